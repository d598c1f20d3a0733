//! What is replayed: when requests came, and how long they were.

use crate::simulate::random::Random;

/// The most requests that a trace may have: a gigabyte and a half of them.
pub const LIMIT: usize = 100_000_000;

/// The farthest, in seconds, that a clone of a request comes from it.
const CLONE_REACH: f64 = 4.;

/// A clone has the length of one of so many requests before or after.
const NEIGHBOURS: usize = 8;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Seconds since the trace began.
    pub at: f64,
    /// Its work.
    pub tokens: u32,
}

/// Requests in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    arrivals: Vec<Arrival>,
    seconds: f64,
}

/// Why a text is no trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Nothing in it.
    #[error("the trace has no requests")]
    Empty,
    /// Neither form has such a line.
    #[error(
        "line {line}: {problem}: expected \"TIMESTAMP,ContextTokens,GeneratedTokens\" or \"seconds,tokens\""
    )]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than is replayed.
    #[error("the trace would have {0} requests; {LIMIT} are the most")]
    TooMany(usize),
    /// A factor that is no factor.
    #[error("{0:?} must be a number above 0")]
    Factor(&'static str),
}

impl Trace {
    /// These arrivals in order, over that many seconds, or until the last of them if that is later.
    pub fn new(mut arrivals: Vec<Arrival>, seconds: f64) -> Self {
        arrivals.sort_by(|a, b| a.at.total_cmp(&b.at));
        let last = arrivals.last().map_or(0., |last| last.at);
        Self { seconds: seconds.max(last), arrivals }
    }

    /// Reads either form, told apart by how many columns there are: `TIMESTAMP,ContextTokens,GeneratedTokens` as in the
    /// public traces of Azure, whose generated tokens do not count here, or `seconds,tokens`. The first line may name the
    /// columns. Time begins with the first request.
    ///
    /// # Errors
    /// The first line that is neither, and a trace without requests or with too many.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let mut arrivals = Vec::new();
        for (index, line) in lines {
            match parse_line(line) {
                Ok(arrival) => arrivals.push(arrival),
                Err(_) if index == 0 && is_header(line) => {}
                Err(problem) => return Err(TraceError::Line { line: index + 1, problem }),
            }
            if arrivals.len() > LIMIT {
                return Err(TraceError::TooMany(arrivals.len()));
            }
        }
        let first =
            arrivals.iter().map(|arrival| arrival.at).min_by(f64::total_cmp).ok_or(TraceError::Empty)?;
        for arrival in &mut arrivals {
            arrival.at -= first;
        }
        Ok(Self::new(arrivals, 0.))
    }

    /// The same traffic from `factor` times as many clients: each request has clones that come within 4 s of it and are as
    /// long as a neighbour. Time is not squeezed, for then gaps and bursts would be shorter than any that were seen.
    ///
    /// # Errors
    /// A factor that is not above 0, or more requests than are replayed.
    pub fn with_rate(&self, factor: f64, seed: u64) -> Result<Self, TraceError> {
        if !(factor.is_finite() && factor > 0.) {
            return Err(TraceError::Factor("rate"));
        }
        let count = self.arrivals.len() as f64 * factor;
        if count > LIMIT as f64 {
            return Err(TraceError::TooMany(count as usize));
        }
        let mut random = Random::new(seed);
        let mut arrivals = Vec::with_capacity(count as usize + 1);
        for (index, arrival) in self.arrivals.iter().enumerate() {
            // One that comes three times and a half comes four times every other time.
            let copies = (factor + random.unit()).floor() as usize;
            arrivals.extend((0..copies).map(|copy| match copy {
                0 => *arrival,
                _ => self.clone_of(index, &mut random),
            }));
        }
        Ok(Self::new(arrivals, self.seconds))
    }

    fn clone_of(&self, index: usize, random: &mut Random) -> Arrival {
        let at = self.arrivals[index].at + random.between(-CLONE_REACH, CLONE_REACH);
        let (first, last) =
            (index.saturating_sub(NEIGHBOURS), self.arrivals.len().min(index + NEIGHBOURS + 1));
        let neighbour = first + (random.unit() * (last - first) as f64) as usize;
        Arrival { at: at.clamp(0., self.seconds), tokens: self.arrivals[neighbour].tokens }
    }

    /// The same with each request `factor` times as long, and at least one token.
    ///
    /// # Errors
    /// A factor that is not above 0.
    pub fn with_length(&self, factor: f64) -> Result<Self, TraceError> {
        if !(factor.is_finite() && factor > 0.) {
            return Err(TraceError::Factor("length"));
        }
        let scale = |arrival: &Arrival| Arrival {
            tokens: (f64::from(arrival.tokens) * factor).round().max(1.) as u32,
            ..*arrival
        };
        Ok(Self { arrivals: self.arrivals.iter().map(scale).collect(), seconds: self.seconds })
    }

    /// The requests in order.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// How long it is.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

fn is_header(line: &str) -> bool {
    line.split(',').all(|column| column.trim().starts_with(|first: char| first.is_ascii_alphabetic()))
}

fn parse_line(line: &str) -> Result<Arrival, &'static str> {
    let columns: Vec<&str> = line.split(',').map(str::trim).collect();
    let (at, tokens) = match columns[..] {
        [at, tokens] => (at.parse().map_err(|_| "the seconds are no number")?, tokens),
        [at, tokens, _] => {
            (timestamp(at).ok_or("the timestamp is not as in 2023-11-16 18:15:46.68")?, tokens)
        }
        _ => return Err("there are neither two nor three columns"),
    };
    if !f64::is_finite(at) || at < 0. {
        return Err("the seconds are no time");
    }
    let tokens = tokens.parse::<u32>().map_err(|_| "the tokens are no whole number")?;
    Ok(Arrival { at, tokens: tokens.max(1) })
}

/// Seconds since 1 March of year 0 of `YYYY-MM-DD HH:MM:SS[.fraction]`.
fn timestamp(text: &str) -> Option<f64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = numbers::<u32>(date, '-')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers::<u32>(clock, ':')?;
    let is_time =
        hour < 24 && minute < 60 && second <= 60 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) || !is_time {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    Some(f64::from(days) * 86_400. + f64::from(hour * 3600 + minute * 60 + second) + fraction)
}

fn numbers<T: std::str::FromStr>(text: &str, separator: char) -> Option<[T; 3]> {
    let numbers: Vec<T> = text.split(separator).map_while(|part| part.parse().ok()).collect();
    numbers.try_into().ok().filter(|_| text.split(separator).count() == 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(at: f64, tokens: u32) -> Arrival {
        Arrival { at, tokens }
    }

    #[test]
    fn both_forms_are_read() {
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                     2023-12-31 23:59:59.5000000,374,44\r\n2024-01-01 00:00:01,396,109\n\n";
        assert_eq!(Trace::parse(azure), Ok(Trace::new(vec![at(0., 374), at(1.5, 396)], 0.)));
        let plain = "3.5,10\n3,0\n";
        assert_eq!(Trace::parse(plain), Ok(Trace::new(vec![at(0., 1), at(0.5, 10)], 0.)));
        assert_eq!(Trace::parse("seconds,tokens\n1,2"), Ok(Trace::new(vec![at(0., 2)], 0.)));
    }

    #[test]
    fn days_are_counted_across_leap_years() {
        let days =
            |a: &str, b: &str| (timestamp(b).expect("a time") - timestamp(a).expect("a time")) / 86_400.;
        assert_eq!(days("2024-02-28 00:00:00", "2024-03-01 00:00:00"), 2.);
        assert_eq!(days("2023-02-28 00:00:00", "2023-03-01 00:00:00"), 1.);
        assert_eq!(days("1999-12-31 12:00:00", "2001-01-01 12:00:00"), 367.);
    }

    #[test]
    fn what_is_no_trace_is_told_with_its_line() {
        assert_eq!(Trace::parse(""), Err(TraceError::Empty));
        assert_eq!(Trace::parse("seconds,tokens\n"), Err(TraceError::Empty));
        for (text, line, problem) in [
            ("1,2\nfoo,bar\n", 2, "the seconds are no number"),
            ("1,2,3\n", 1, "the timestamp is not as in 2023-11-16 18:15:46.68"),
            ("2023-13-16 18:15:46,1,2", 1, "the timestamp is not as in 2023-11-16 18:15:46.68"),
            ("0,1\n\n1,-5", 3, "the tokens are no whole number"),
            ("1", 1, "there are neither two nor three columns"),
            ("0,1\nNaN,1", 2, "the seconds are no time"),
            ("0,1\n-1,1", 2, "the seconds are no time"),
        ] {
            assert_eq!(Trace::parse(text), Err(TraceError::Line { line, problem }), "{text}");
        }
    }

    #[test]
    fn clones_come_near_and_look_alike() {
        let base = Trace::new((0..1000).map(|index| at(f64::from(index * 10), 100 + index)).collect(), 0.);
        let many = base.with_rate(2.5, 1).expect("a factor");
        assert!((many.arrivals().len() as f64 / 2500. - 1.).abs() < 0.05, "{}", many.arrivals().len());
        assert_eq!(many.seconds(), base.seconds());
        for arrival in many.arrivals() {
            let near = base.arrivals().iter().filter(|other| (other.at - arrival.at).abs() <= CLONE_REACH);
            assert!(near.count() >= 1, "{arrival:?}");
            let home = 100. + arrival.at / 10.;
            assert!((f64::from(arrival.tokens) - home).abs() <= NEIGHBOURS as f64 + 1., "{arrival:?}");
        }
        assert_eq!(base.with_rate(1., 9), Ok(base.clone()));
        assert_eq!(base.with_rate(2.5, 1), base.with_rate(2.5, 1));
        let few = base.with_rate(0.2, 3).expect("a factor").arrivals().len();
        assert!((150..250).contains(&few), "{few}");
    }

    #[test]
    fn factors_are_numbers_above_zero() {
        let base = Trace::new(vec![at(0., 10)], 0.);
        for factor in [0., -1., f64::NAN, f64::INFINITY] {
            assert_eq!(base.with_rate(factor, 1), Err(TraceError::Factor("rate")));
            assert_eq!(base.with_length(factor), Err(TraceError::Factor("length")));
        }
        assert_eq!(
            base.with_rate(1e12, 1),
            Err(TraceError::TooMany(10_000_000_000_000))
                .map_err(|_| { TraceError::TooMany(1_000_000_000_000) })
        );
        assert_eq!(base.with_length(0.01).expect("a factor").arrivals(), [at(0., 1)]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[0-9:,. T\n-]{0,60}") {
            if let Ok(trace) = Trace::parse(&text) {
                prop_assert!(trace.arrivals().windows(2).all(|pair| pair[0].at <= pair[1].at));
                prop_assert!(trace.arrivals()[0].at == 0.);
            }
        }
    }
}
