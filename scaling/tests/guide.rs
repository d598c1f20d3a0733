//! Holds the guide against what there is.

use kembed_scaling::{
    Reason,
    simulate::{Kind, peers::Peer},
};

const GUIDE: &str = include_str!("../../docs/guide/scaling.md");

#[test]
fn every_reason_and_every_kind_of_traffic_is_in_the_guide() {
    for reason in Reason::ALL {
        assert!(GUIDE.contains(&format!("\n| `{}` | ", reason.as_str())), "{reason:?}");
    }
    let rows = GUIDE.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 3);
    assert_eq!(rows.count(), Reason::ALL.len(), "no reason is told of that there is not");
    for kind in Kind::ALL {
        assert!(GUIDE.contains(&format!("`{}`", kind.name())), "{kind:?}");
    }
    for peer in Peer::NAMES {
        assert!(GUIDE.contains(peer), "{peer}");
    }
}
