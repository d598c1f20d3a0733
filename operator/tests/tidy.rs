//! Files that decide import nothing that acts: no runtime, no client, no clock, no random number. That is what makes
//! them testable, so it is kept so here.

use std::{fs, path::Path};

/// Files that decide, from the root of the repository.
const PURE: &[&str] = &[
    "crds/src/*",
    "int8/src/*",
    "queue/src/*",
    "queue/src/dispatcher/*",
    "scaling/src/*",
    "scaling/src/core/*",
    "scaling/src/simulate/*",
    "scaling/src/simulate/peers/*",
    "operator/src/autoscaler/activation.rs",
    "operator/src/autoscaler/change.rs",
    "operator/src/autoscaler/gateways.rs",
    "operator/src/autoscaler/plan.rs",
    "operator/src/autoscaler/seen.rs",
    "operator/src/autoscaler/settings.rs",
    "operator/src/autoscaler/starting.rs",
    "operator/src/autoscaler/traffic.rs",
    "operator/src/autoscaler/writing.rs",
    "operator/src/controller/accelerator.rs",
    "operator/src/controller/build/*",
    "operator/src/controller/deployed.rs",
    "operator/src/controller/events.rs",
    "operator/src/controller/fields.rs",
    "operator/src/controller/lease.rs",
    "operator/src/controller/memory.rs",
    "operator/src/controller/pods.rs",
    "operator/src/controller/status.rs",
    "operator/src/controller/validate.rs",
    "operator/src/gateway/admission.rs",
    "operator/src/gateway/availability.rs",
    "operator/src/gateway/balance.rs",
    "operator/src/gateway/bucket.rs",
    "operator/src/gateway/caller.rs",
    "operator/src/gateway/directory.rs",
    "operator/src/gateway/headers.rs",
    "operator/src/gateway/held_tokens.rs",
    "operator/src/gateway/hop.rs",
    "operator/src/gateway/inference.rs",
    "operator/src/gateway/key_index.rs",
    "operator/src/gateway/keys.rs",
    "operator/src/gateway/model_body.rs",
    "operator/src/gateway/models.rs",
    "operator/src/gateway/name.rs",
    "operator/src/gateway/names.rs",
    "operator/src/gateway/objects.rs",
    "operator/src/gateway/ownership.rs",
    "operator/src/gateway/refusal.rs",
    "operator/src/gateway/route.rs",
    "operator/src/gateway/timing.rs",
    "operator/src/simulate/args.rs",
    "operator/src/simulate/json.rs",
    "operator/src/simulate/picture/*",
    "operator/src/simulate/service.rs",
    "operator/src/simulate/table.rs",
    "inference-pod/src/api/openai_body.rs",
    "inference-pod/src/api/options.rs",
    "inference-pod/src/api/query.rs",
    "inference-pod/src/api/scores_body.rs",
    "inference-pod/src/api/tei_body.rs",
    "inference-pod/src/batch/allowance.rs",
    "inference-pod/src/batch/attempt.rs",
    "inference-pod/src/batch/flights.rs",
    "inference-pod/src/batch/pad.rs",
    "inference-pod/src/batch/row.rs",
    "inference-pod/src/cuda/budget.rs",
    "inference-pod/src/cuda/fault.rs",
    "inference-pod/src/cuda/pack.rs",
    "inference-pod/src/cuda/parts.rs",
    "inference-pod/src/duration.rs",
    "inference-pod/src/effort.rs",
    "inference-pod/src/export/*",
    "inference-pod/src/head.rs",
    "inference-pod/src/limits.rs",
    "inference-pod/src/model/config.rs",
    "inference-pod/src/model/dense.rs",
    "inference-pod/src/model/digest.rs",
    "inference-pod/src/model/files.rs",
    "inference-pod/src/model/graph.rs",
    "inference-pod/src/model/modules.rs",
    "inference-pod/src/model/parts.rs",
    "inference-pod/src/model/precision.rs",
    "inference-pod/src/model/prompts.rs",
    "inference-pod/src/model/recipe.rs",
    "inference-pod/src/norm.rs",
    "inference-pod/src/pooling.rs",
    "inference-pod/src/quantity.rs",
    "inference-pod/src/scores.rs",
    "inference-pod/src/source/check.rs",
    "inference-pod/src/source/listing.rs",
    "inference-pod/src/source/location.rs",
    "inference-pod/src/source/retry.rs",
    "inference-pod/src/space.rs",
    "inference-pod/src/tokenise/border.rs",
    "inference-pod/src/tokenise/pairs.rs",
    "inference-pod/src/vector.rs",
];

/// What a file that decides must not hold, outside its tests.
const ACTING: &[&str] = &[
    "tokio::",
    "tokio_util::",
    "axum::",
    "hyper::",
    "hyper_util::",
    "reqwest::",
    "kube::Client",
    "kube::Api",
    "kube::api",
    "kube::runtime",
    "prometheus_client::",
    "tracing::",
    "std::fs",
    "std::net",
    "std::env",
    "rand::",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
];

/// Ways to read a clock that somebody may set.
const WALL_CLOCKS: &[&str] = &["SystemTime", "Timestamp::now", "Utc::now", "Local::now", "Zoned::now"];

/// Files of the operator that read one, and what it goes into. Nothing is decided by any of them: a clock that is set by an
/// hour makes what is written say another time, and changes no count, no leader and no condition.
const WALL: &[(&str, &str)] = &[
    ("operator/src/autoscaler/looks.rs", "status.scaling.since"),
    ("operator/src/autoscaler/write.rs", "status.scaling.since"),
    ("operator/src/controller/leader.rs", "the Lease's times, which candidates write and do not read"),
    ("operator/src/controller/reconcile.rs", "when a condition of the status changed last"),
    ("operator/src/publisher.rs", "when an event happened"),
];

fn files(pattern: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Some(folder) = pattern.strip_suffix("/*") else {
        return vec![root.join(pattern).display().to_string()];
    };
    let entries =
        fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("cannot list {folder}: {error}"));
    entries
        .map(|entry| entry.expect("a readable folder").path().display().to_string())
        .filter(|path| path.ends_with(".rs"))
        .collect()
}

/// The code of a file without its tests and comments.
fn code(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// All Rust files below a folder.
fn below(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot list {folder:?}: {error}"));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths
        .flat_map(|path| if path.is_dir() { below(&path) } else { vec![path.display().to_string()] })
        .filter(|path| path.ends_with(".rs"))
        .collect()
}

#[test]
fn wall_clocks_are_read_only_to_tell_people_the_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in ["operator/src", "queue/src", "scaling/src", "crds/src"] {
        for path in below(&root.join(folder)) {
            let code = code(&path);
            let read = WALL_CLOCKS.iter().find(|clock| code.contains(**clock));
            let may = WALL.iter().any(|(known, _)| path.ends_with(known));
            assert_eq!(read.is_some(), may, "{path}: {read:?}");
        }
    }
}

#[test]
fn files_that_decide_do_not_act() {
    let found: Vec<String> = PURE.iter().flat_map(|pattern| files(pattern)).collect();
    assert!(found.len() > PURE.len(), "the list matches files");
    let mut violations = Vec::new();
    for path in &found {
        let code = code(path);
        violations
            .extend(ACTING.iter().filter(|&&word| code.contains(word)).map(|word| format!("{path}: {word}")));
    }
    assert!(violations.is_empty(), "files that decide import what acts:\n{}", violations.join("\n"));
}
