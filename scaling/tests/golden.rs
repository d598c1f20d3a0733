//! A day of a service in an hour, decision by decision.

mod common;

use common::{SETTINGS, World};

/// What happens from which second on, and how many requests come in each.
const DAY: [(usize, f64); 7] =
    [(0, 0.), (60, 5.), (180, 250.), (420, 900.), (720, 900.), (840, 30.), (1500, 0.)];

/// Second, count and reason, whenever either changes.
const EXPECTED: &str = "\
0 0 Steady
60 1 Activated
180 8 Burst
201 3 LessWork
420 10 Burst
436 10 AtMaximum
493 10 Burst
735 10 LoadUnknown
855 10 Burst
871 9 LessWork
874 8 LessWork
877 7 LessWork
880 6 LessWork
884 5 LessWork
887 4 LessWork
891 3 LessWork
894 2 LessWork
898 1 LessWork
1799 0 Idle
";

#[test]
fn a_day_goes_as_it_always_did() {
    let mut world = World::new(SETTINGS, 0, 10.);
    let (mut told, mut last) = (String::new(), None);
    for second in 0..2100 {
        let requests = DAY.iter().rev().find(|(from, _)| *from <= second).map_or(0., |part| part.1);
        // For two minutes a gateway is silent; what it counted comes with its next word.
        world.silent = (720..840).contains(&second);
        let decision = world.pass(requests);
        if last != Some((decision.replicas, decision.reason)) {
            last = Some((decision.replicas, decision.reason));
            told += &format!("{second} {} {}\n", decision.replicas, decision.reason.as_str());
        }
    }
    assert_eq!(told, EXPECTED, "{told}");
}
