//! What the user wants of a service's count, as the policy reads it. Pure.

use std::time::Duration;

use kembed_crds::{Latency, Scaling, Tuning};
use kembed_scaling::{Objective, Settings};

/// The settings in a spec. What another version stored and this one cannot read is as if it were left out.
pub fn settings(scaling: &Scaling) -> Settings {
    let min = count(scaling.min_replicas);
    Settings {
        min,
        max: count(scaling.max_replicas).max(min).max(1),
        queue_depth: count(scaling.queue_depth).max(1),
        objective: scaling.latency.as_ref().and_then(objective),
        zero_after: scaling.scale_to_zero_after.parse().unwrap_or(Duration::from_secs(300)),
        tunes: scaling.tuning == Tuning::Auto,
    }
}

fn objective(latency: &Latency) -> Option<Objective> {
    let target = latency.target.parse().ok().filter(|target| !target.is_zero())?;
    Some(Objective { share: f64::from(latency.percentile.clamp(1, 99)) / 100., target })
}

fn count(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(scaling: Value) -> Settings {
        settings(&serde_json::from_value(scaling).expect("a spec"))
    }

    #[test]
    fn what_is_left_out_has_the_defaults_of_the_api() {
        let expected = Settings {
            min: 0,
            max: 8,
            queue_depth: 16,
            objective: None,
            zero_after: Duration::from_secs(300),
            tunes: true,
        };
        assert_eq!(read(json!({})), expected);
    }

    #[test]
    fn an_objective_is_a_share_and_a_target() {
        let read = read(json!({"latency": {"percentile": 99, "target": "1s500ms"}, "tuning": "Off"}));
        let target = Duration::from_millis(1500);
        assert_eq!((read.objective, read.tunes), (Some(Objective { share: 0.99, target }), false));
    }

    /// Stored before a rule existed, or by a version with other rules.
    #[test]
    fn what_cannot_be_is_brought_to_what_can() {
        let read =
            read(json!({"minReplicas": 5, "maxReplicas": -1, "queueDepth": 0, "scaleToZeroAfter": "soon",
            "latency": {"target": "fast"}}));
        assert_eq!((read.min, read.max, read.queue_depth), (5, 5, 1));
        assert_eq!((read.zero_after, read.objective), (Duration::from_secs(300), None));
    }
}
