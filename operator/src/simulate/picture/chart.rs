//! Axes.

use super::{
    LEFT, RIGHT,
    canvas::{Anchor, Canvas},
};

/// Pixels of a letter, on average and with most fonts.
pub(super) const LETTER: f64 = 7.6;

/// From values to pixels.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    /// What the first pixel stands for.
    pub(super) from: f64,
    /// What the last one stands for.
    pub(super) to: f64,
    /// Equal factors are equal distances.
    pub(super) is_logarithmic: bool,
    /// The first pixel and the last.
    pub(super) pixels: (f64, f64),
}

impl Scale {
    /// Where a value is. What is outside is at the edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let on = |value: f64| if self.is_logarithmic { value.max(1e-12).ln() } else { value };
        let (from, to) = (on(self.from), on(self.to));
        let part = ((on(value) - from) / (to - from)).clamp(0., 1.);
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }

    /// Round values along it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let first = self.from.log10().floor() as i32;
            let last = self.to.log10().ceil() as i32;
            let steps: &[f64] = if last - first > 2 { &[1.] } else { &[1., 2., 5.] };
            let all =
                (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
            return all.filter(|tick| (self.from * 0.999..=self.to * 1.001).contains(tick)).collect();
        }
        let step = round_step((self.to - self.from) / 4.);
        let first = (self.from / step).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }
}

/// 1, 2 or 5 of a power of ten, and no smaller than told.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    let steps = [1., 2., 5., 10.].map(|step| step * power);
    steps.into_iter().find(|step| *step >= least * 0.999).unwrap_or(10. * power)
}

/// The lines across, with their values left of them.
pub(super) fn rows(canvas: &mut Canvas, scale: &Scale, told: impl Fn(f64) -> String) {
    for tick in scale.ticks() {
        let y = scale.at(tick);
        canvas.curve("grid", None, &[Some((LEFT, y)), Some((RIGHT, y))]);
        let told = told(tick);
        if !told.is_empty() {
            canvas.text((LEFT - 8., y + 4.), "faint", Anchor::End, &told);
        }
    }
}

/// The lines down, with their values below them.
pub(super) fn columns(
    canvas: &mut Canvas,
    scale: &Scale,
    (top, foot): (f64, f64),
    told: impl Fn(f64) -> String,
) {
    for tick in scale.ticks() {
        let x = scale.at(tick);
        canvas.curve("grid", None, &[Some((x, top)), Some((x, foot))]);
        let told = told(tick);
        if !told.is_empty() {
            canvas.text((x, foot + 16.), "faint", Anchor::Middle, &told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_pixels() {
        let scale = Scale { from: 0., to: 10., is_logarithmic: false, pixels: (100., 0.) };
        assert_eq!([0., 5., 10., 99.].map(|value| scale.at(value)), [100., 50., 0., 0.]);
        let scale = Scale { from: 1., to: 100., is_logarithmic: true, pixels: (0., 100.) };
        assert_eq!([1., 10., 100., 0.].map(|value| scale.at(value)), [0., 50., 100., 0.]);
    }

    #[test]
    fn ticks_are_round() {
        let linear = |to| Scale { from: 0., to, is_logarithmic: false, pixels: (0., 1.) }.ticks();
        assert_eq!(linear(9.), [0., 5.]);
        assert_eq!(linear(3600.), [0., 1000., 2000., 3000.]);
        assert_eq!(linear(4.), [0., 1., 2., 3., 4.]);
        let logarithmic = |from, to| Scale { from, to, is_logarithmic: true, pixels: (0., 1.) }.ticks();
        assert_eq!(logarithmic(3., 40.), [5., 10., 20.]);
        assert_eq!(logarithmic(0.01, 90.).len(), 4);
    }
}
