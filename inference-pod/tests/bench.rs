//! What benches/serving counts with, on times that are made up.

#[allow(dead_code, reason = "the bench works in windows, and this only looks through them")]
#[path = "../benches/serving/window.rs"]
mod window;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::window::{Crew, Piece, Window};

fn at(begin: Instant, seconds: f64) -> Instant {
    begin + Duration::from_secs_f64(seconds)
}

/// A connection whose requests take as long as is said, each sent so long after the last was answered.
fn one_by_one(begin: Instant, gap: f64, took: impl IntoIterator<Item = f64>) -> Vec<Piece> {
    let next = |now: &mut f64, took: f64| {
        let from = *now + gap;
        *now = from + took;
        Some(Piece { from: at(begin, from), to: at(begin, *now) })
    };
    took.into_iter().scan(0., next).collect()
}

fn ends(window: Window, pieces: &[Piece]) -> f64 {
    pieces.iter().filter(|piece| window.has_end(piece)).count() as f64
}

proptest! {
    /// That is why what is counted in one of them is on average what was done.
    #[test]
    fn over_all_windows_each_piece_counts_once(
        pieces in proptest::collection::vec((0..900u64, 0..100u64), 0..60),
        cuts in proptest::collection::btree_set(1..1000u64, 0..20),
    ) {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let pieces: Vec<_> =
            pieces.iter().map(|&(from, took)| Piece { from: at(from), to: at(from + took) }).collect();
        let cuts: Vec<_> = [0].into_iter().chain(cuts).chain([1001]).collect();
        let windows = cuts.windows(2).map(|cut| Window::new(at(cut[0]), Duration::from_millis(cut[1] - cut[0])));
        let counted: f64 = windows.map(|window| window.count(&pieces)).sum();
        prop_assert!((counted - pieces.len() as f64).abs() < 1e-6, "{counted} of {}", pieces.len());
    }

    /// Four requests of 32 texts that are computed together take 1.9 seconds, one of them a little more or less than another.
    #[test]
    fn what_ends_together_is_counted_to_the_hundredth(
        start in 5.0..9.0f64,
        length in 4.0..12.0f64,
        took in proptest::collection::vec(1.89..1.91f64, 20),
        apart in 0.0..0.005f64,
    ) {
        let (begin, connections) = (Instant::now(), 4);
        let pieces: Vec<_> =
            (0..connections).flat_map(|i| one_by_one(at(begin, apart * f64::from(i)), 0., took.clone())).collect();
        let window = Window::new(at(begin, start), Duration::from_secs_f64(length));
        let rate = window.rate(&pieces) * 1.9 / f64::from(connections);
        prop_assert!((rate - 1.).abs() < 0.01, "{rate} of what was done");
    }

    /// Of 100 who wait for one that answers them in turn, each waits for the 99 before it.
    #[test]
    fn who_waits_in_turn_is_counted_to_the_hundredth(
        start in 1.0..2.0f64,
        length in 1.0..3.0f64,
        took in proptest::collection::vec(0.0018..0.0022f64, 100),
    ) {
        let (begin, round) = (Instant::now(), took.iter().sum::<f64>());
        let places = took.iter().scan(0., |now, took| Some(std::mem::replace(now, *now + took)));
        let pieces: Vec<_> = places
            .flat_map(|place| one_by_one(at(begin, place), 0., std::iter::repeat_n(round, (6. / round) as usize)))
            .collect();
        let window = Window::new(at(begin, start), Duration::from_secs_f64(length));
        let rate = window.rate(&pieces) * round / 100.;
        prop_assert!((rate - 1.).abs() < 0.01, "{rate} of what was done");
    }

    /// Between two requests a client does something itself.
    #[test]
    fn a_single_connection_counts_with_its_gaps(start in 0.1..0.2f64, gap in 0.0..0.001f64) {
        let begin = Instant::now();
        let pieces = one_by_one(begin, gap, std::iter::repeat_n(0.005, 1000));
        let rate = Window::new(at(begin, start), Duration::from_secs(2)).rate(&pieces) * (0.005 + gap);
        prop_assert!((rate - 1.).abs() < 0.01, "{rate} of what was done");
    }
}

/// Else there would be no need for parts.
#[test]
fn counting_ends_goes_by_all_that_end_together() {
    let begin = Instant::now();
    let pieces: Vec<_> = (0..4).flat_map(|_| one_by_one(begin, 0., vec![1.9; 20])).collect();
    let windows = [5., 5.5].map(|start| Window::new(at(begin, start), Duration::from_secs(8)));
    assert_eq!(windows.map(|window| ends(window, &pieces)), [16., 20.]);
    assert!(windows.iter().all(|window| (window.count(&pieces) - 4. * 8. / 1.9).abs() < 1e-6));
}

#[test]
fn nobody_stops_before_all_are_through() {
    let begin = Instant::now();
    let crew = Crew::new(Window::new(begin, Duration::from_secs(1)), 3);
    let piece = |from, to| Piece { from: at(begin, from), to: at(begin, to) };
    let (mut quick, mut slow, lost) = (crew.member(), crew.member(), crew.member());
    quick.did(piece(0., 0.9));
    quick.did(piece(0.9, 1.1));
    drop(lost);
    assert!(quick.goes_on(), "the slow one is not through");
    quick.did(piece(1.1, 1.3));
    slow.did(piece(0., 2.));
    assert!(!quick.goes_on() && !slow.goes_on());
    assert_eq!((quick.pieces().len(), slow.pieces().len()), (3, 1));
}
