//! Only pods that serve the recorded vector space get requests, and the prober finds out which do.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{Json, Router, http::StatusCode, routing::get as answer};
use kembed_queue::{
    device::{Device, Verification},
    wire::{Info, Space},
};
use operator::gateway::{
    availability::{Life, Pod, Service},
    directory::Update,
    probe,
};

use crate::support::*;

/// Tokens a second that pods say to compute.
const RATE: u64 = 4210;

fn info(digest: &str) -> Info {
    Info {
        model_id: "hf://a/b".to_owned(),
        model_sha: None,
        max_input_length: 256,
        version: "0".to_owned(),
        space: Space { digest: digest.to_owned(), revision: None, dimension: 3, max_tokens: 256 },
        tokens_per_second: Some(RATE),
        devices: Vec::new(),
    }
}

/// A pod of a space.
async fn pod_of(digest: &'static str, called: &'static str) -> std::net::SocketAddr {
    pod_that_tells(digest, called, Arc::new(AtomicBool::new(true))).await
}

/// A pod of a space, which tells it once it can.
async fn pod_that_tells(
    digest: &'static str,
    called: &'static str,
    can: Arc<AtomicBool>,
) -> std::net::SocketAddr {
    let tell = async move || match can.load(Ordering::SeqCst) {
        true => Ok(Json(info(digest))),
        false => Err(StatusCode::SERVICE_UNAVAILABLE),
    };
    pod_with(Router::new().route("/info", answer(tell)).fallback(async move || called)).await
}

/// A gateway that asks pods itself.
async fn probing() -> Bench {
    let bench = Bench::start().await;
    tokio::spawn(probe::run(bench.knowledge.clone(), bench.gateway.load().clone()));
    bench
}

fn learn(bench: &Bench, service: Service, pods: Vec<Pod>) {
    bench.knowledge.update(|directory| {
        directory.update_services(Update::All(vec![service]));
        directory.update_pods(Update::All(pods));
    });
}

/// Pods of the service that may answer.
fn answering(bench: &Bench) -> usize {
    bench.knowledge.read(|directory| {
        let view = directory.view(&name("team/minilm")).expect("a known service");
        view.endpoints.as_ref().map_or(0, Vec::len)
    })
}

/// Whether all pods have told their space.
fn all_told(bench: &Bench) -> bool {
    bench.knowledge.read(|directory| directory.unproven().count() == 0)
}

#[tokio::test]
async fn a_pod_with_another_space_gets_nothing() {
    let bench = probing().await;
    let (right, wrong) = (pod_of(SPACE, "right").await, pod_of("sha256:two", "wrong").await);
    let of = name("team/minilm");
    learn(&bench, service("team/minilm"), vec![pod(&of, "right", right), pod(&of, "wrong", wrong)]);
    eventually(|| all_told(&bench)).await;
    for _ in 0..4 {
        assert_eq!(bench.ask(get("minilm.team", "/")).await.body, "right");
    }
}

/// Inference pods end where this is so; the gateway does not rely on it.
#[tokio::test]
async fn a_pod_that_computes_wrong_vectors_gets_nothing() {
    let bench = probing().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let tell = async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let wrong = Device {
            name: "GPU".to_owned(),
            compute_capability: "9.0".to_owned(),
            memory_bytes: 1,
            driver_version: None,
            cuda_version: "13.0".to_owned(),
            precision: "float16".to_owned(),
            verification: Verification::of(2, 0.5, 0.999),
        };
        Json(Info { devices: vec![wrong], ..info(SPACE) })
    };
    let wrong = pod_with(Router::new().route("/info", answer(tell)).fallback(async || "wrong")).await;
    let (of, right) = (name("team/minilm"), pod_of(SPACE, "right").await);
    learn(&bench, service("team/minilm"), vec![pod(&of, "right", right), pod(&of, "wrong", wrong)]);
    // It is asked again because its first answer was not taken.
    eventually(|| asked.load(Ordering::Relaxed) > 1 && answering(&bench) == 1).await;
    for _ in 0..4 {
        assert_eq!(bench.ask(get("minilm.team", "/")).await.body, "right");
    }
}

/// Once, the speed of pods was known only from answers, so that a service which nobody asked kept its first pod for
/// minutes: nobody knew what it would take to do without.
#[tokio::test]
async fn how_fast_a_pod_is_is_known_before_it_is_asked_for_anything() {
    let bench = probing().await;
    let right = pod_of(SPACE, "right").await;
    learn(&bench, service("team/minilm"), vec![pod(&name("team/minilm"), "right", right)]);
    eventually(|| all_told(&bench)).await;
    let (report, _) = bench.gateway.load().report(0, |_| false);
    assert_eq!(report.services["team/minilm"].rates, [("minilm-right".to_owned(), RATE)].into());
}

#[tokio::test]
async fn a_pod_that_cannot_tell_at_first_is_asked_again() {
    let bench = probing().await;
    let can = Arc::new(AtomicBool::new(false));
    let late = pod_that_tells(SPACE, "late", can.clone()).await;
    learn(&bench, service("team/minilm"), vec![pod(&name("team/minilm"), "late", late)]);
    assert_eq!(bench.ask(get("minilm.team", "/")).await.status, 503);
    can.store(true, Ordering::SeqCst);
    eventually(|| answering(&bench) == 1).await;
    assert_eq!(bench.ask(get("minilm.team", "/")).await.body, "late");
}

#[tokio::test]
async fn a_pod_that_starts_again_is_asked_again() {
    let bench = probing().await;
    let of = name("team/minilm");
    let first = pod(&of, "a", pod_of(SPACE, "first").await);
    learn(&bench, service("team/minilm"), vec![first.clone()]);
    eventually(|| answering(&bench) == 1).await;
    let address = Some(pod_of("sha256:two", "second").await);
    let second = Pod { life: Life { restarts: 1, ..first.life.clone() }, address, ..first };
    bench.knowledge.update(|directory| directory.update_pods(Update::Put(second)));
    assert_eq!(bench.ask(get("minilm.team", "/")).await.status, 503);
    eventually(|| all_told(&bench)).await;
    assert_eq!(bench.ask(get("minilm.team", "/")).await.status, 503);
}

#[tokio::test]
async fn a_pod_that_told_before_the_space_was_recorded_answers_at_once_after() {
    let bench = probing().await;
    let unrecorded = Service { digest: None, ..service("team/minilm") };
    learn(&bench, unrecorded, vec![pod(&name("team/minilm"), "a", pod_of(SPACE, "a").await)]);
    eventually(|| all_told(&bench)).await;
    assert_eq!(bench.ask(get("minilm.team", "/")).await.status, 503);
    bench.knowledge.update(|directory| directory.update_services(Update::Put(service("team/minilm"))));
    assert_eq!(bench.ask(get("minilm.team", "/")).await.body, "a");
}
