//! Work that grows evenly.

use super::history::History;

/// Stretches of time that are compared.
const STRETCHES: usize = 4;

/// Seconds of each: what grows fast is seen in the short ones, what grows slowly in the long ones alone.
const LENGTHS: [u64; 3] = [15, 30, 60];

/// Standard errors that it must have grown by to be no chance, though it is looked each second for an hour.
const ERRORS: f64 = 7.;

/// The part of the growth that one step must stay below: what grew at once is no ramp, and need not go on. It falls into two
/// steps at most, of which one has half of it.
const AT_ONCE: f64 = 0.5;

/// The most that is believed to come on top, as a part of what there is.
const MOST: f64 = 0.5;

/// Tokens a second that will come in `lead` seconds if they go on growing as evenly as in the last minutes; 0 if they do not.
/// `lump` is as for [`Recent::rate`](super::recent::Recent::rate).
pub fn ahead(history: &History, lead: f64, lump: f64) -> f64 {
    LENGTHS.iter().map(|&length| by(length, history, lead, lump)).fold(0., f64::max)
}

fn by(length: u64, history: &History, lead: f64, lump: f64) -> f64 {
    let seconds = history.seconds();
    let watched = length * STRETCHES as u64;
    if seconds.end - seconds.start < watched {
        return 0.;
    }
    let from = seconds.end - watched;
    let means: [f64; STRETCHES] = std::array::from_fn(|stretch| {
        let begin = from + stretch as u64 * length;
        (begin..begin + length).map(|second| history.at(second)).sum::<f64>() / length as f64
    });
    let (first, last) = (means[0], means[STRETCHES - 1]);
    let grown = last - first;
    let error = (lump * last / length as f64).sqrt();
    let steps = means.windows(2).map(|pair| pair[1] - pair[0]);
    if grown <= ERRORS * error || !steps.into_iter().all(|step| step > -error && step < AT_ONCE * grown) {
        return 0.;
    }
    // From the middle of the first stretch to that of the last.
    let slope = grown / (watched - length) as f64;
    last + (slope * (lead + length as f64 / 2.)).min(MOST * last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u32, work: impl Fn(f64) -> f64) -> History {
        let mut history = History::default();
        (0..seconds).for_each(|second| history.add(1., work(f64::from(second))));
        history
    }

    #[test]
    fn a_ramp_goes_on() {
        let ramp = after(200, |second| 1000. + 10. * second);
        let come = 1000. + 10. * (200. + 20.);
        assert!((ahead(&ramp, 20., 1.) - come).abs() < 10.);
        assert_eq!(ahead(&ramp, 20., 1e6), 0., "it may as well be chance");
        let steep = ahead(&ramp, 1e6, 1.);
        assert!(steep > 4000. && steep < 4500., "but not for ever");
    }

    #[test]
    fn neither_a_step_nor_a_fall_is_a_ramp() {
        for when in 100..199 {
            let step = after(200, |second| if second < f64::from(when) { 100. } else { 1000. });
            assert_eq!(ahead(&step, 20., 1.), 0., "{when}");
        }
        assert_eq!(ahead(&after(200, |second| 5000. - 10. * second), 20., 1.), 0.);
        assert_eq!(ahead(&after(59, |second| 10. * (second + 1.)), 20., 1.), 0.);
    }
}
