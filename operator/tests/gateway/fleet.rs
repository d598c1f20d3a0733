//! Several gateways, of which one keeps the queue of a service at a time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use kembed_queue::report::{Counts, Level};
use operator::gateway::{
    availability::{Life, Service},
    directory::Update,
    objects::GatewayPod,
    ownership,
};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{stub::*, support::*};

pub const SERVICE: &str = "team/minilm";

/// A gateway with threads of its own, which can be killed like a process.
pub struct Member {
    pub bench: Arc<Bench>,
    pub runtime: Option<Runtime>,
    pub pod: GatewayPod,
}

/// Gateways that know each other.
pub struct Fleet(pub Vec<Member>);

impl Member {
    pub async fn start(name: &str, setup: Setup) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let setup = Setup { name: Some(name.to_owned()), ..setup };
        let bench = runtime.spawn(Bench::start_with(setup)).await.expect("no panic");
        let life = Life { uid: format!("uid of {name}"), restarts: 0 };
        let pod = GatewayPod { name: name.to_owned(), life, address: Some(bench.internal), serves: true };
        Self { bench: Arc::new(bench), runtime: Some(runtime), pod }
    }

    /// Learns of gateways.
    pub fn learn<'a>(&self, pods: impl IntoIterator<Item = &'a GatewayPod>) {
        let _its_threads = self.runtime.as_ref().expect("it lives").enter();
        self.bench.peers.update(Update::All(pods.into_iter().cloned().collect()));
    }

    /// As SIGKILL does.
    pub fn kill(&mut self) {
        self.runtime.take().expect("it lives").shutdown_background();
    }

    pub fn counts(&self, line: &str) -> usize {
        let metrics = self.bench.metrics();
        let count = metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok());
        count.unwrap_or(0)
    }

    /// What it tells the leader of the service.
    pub fn counted(&self) -> (Counts, Level) {
        let (mut report, _) = self.bench.gateway.load().report(0, |_| false);
        let told = report.services.remove(SERVICE).unwrap_or_default();
        (told.counts, told.level)
    }

    pub fn connected(&self) -> usize {
        self.counts("kembed_gateway_peers ")
    }

    pub fn answered(&self) -> usize {
        self.counts("kembed_gateway_attempts_total{outcome=\"answered\"} ")
    }

    pub fn forwarded(&self, outcome: &str) -> usize {
        self.counts(&format!("kembed_gateway_forwarded_total{{outcome=\"{outcome}\"}} "))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Fleet {
    /// So many gateways before these pods.
    pub async fn start(size: usize, pods: &[&StubPod]) -> Self {
        Self::with(size, service(SERVICE), pods, |_, _| ()).await
    }

    /// The owner comes first, then who comes after it; `change` sets each of them up.
    pub async fn with(
        size: usize,
        service: Service,
        pods: &[&StubPod],
        change: impl Fn(usize, &mut Setup),
    ) -> Self {
        let names: Vec<_> = (0..size).map(|i| format!("gateway-{i}")).collect();
        let ranked = ownership::ranked(&service.name, names.iter().map(String::as_str));
        let mut members = Vec::new();
        for (rank, name) in ranked.into_iter().enumerate() {
            let mut setup = Setup::default();
            setup.limits.bodies = 1 << 20;
            change(rank, &mut setup);
            members.push(Member::start(name, setup).await);
        }
        let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
        members.iter().for_each(|member| member.bench.add(service.clone(), &addresses));
        Self(members)
    }

    /// Has all know all.
    pub async fn meet(self) -> Self {
        let pods: Vec<_> = self.0.iter().map(|member| member.pod.clone()).collect();
        self.0.iter().for_each(|member| member.learn(&pods));
        for member in &self.0 {
            eventually(|| member.connected() == self.0.len() - 1).await;
        }
        self
    }

    /// What all that live have counted, as the leader adds it up.
    pub fn told(&self) -> Counts {
        self.0.iter().fold(Counts::default(), |sum, member| sum.plus(&member.counted().0))
    }

    /// Sends so many requests at once, by turns to each of these gateways.
    pub async fn ask(&self, entries: &[usize], count: usize) -> Vec<Answer> {
        let mut asking = JoinSet::new();
        for i in 0..count {
            let bench = self.0[entries[i % entries.len()]].bench.clone();
            asking.spawn(async move { bench.ask(embed(&i.to_string())).await });
        }
        asking.join_all().await
    }
}

pub fn embed(text: &str) -> Request<Full<Bytes>> {
    post("minilm.team", "/embed", text.to_owned())
}

pub fn all_answered(answers: &[Answer]) {
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), answers.len(), failed[0]);
}

/// Clients that ask again and again at these gateways until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    pub fn on(fleet: &Fleet, entries: &[usize]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for entry in entries.iter().cycle().take(8) {
            let (stop, done, bench) = (stop.clone(), done.clone(), fleet.0[*entry].bench.clone());
            clients.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    all_answered(&[bench.ask(embed("x")).await]);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { stop, done, clients }
    }

    /// Waits until so many more were answered.
    pub async fn more(&self, count: usize) {
        let before = self.done.load(Ordering::SeqCst);
        eventually(|| self.done.load(Ordering::SeqCst) >= before + count).await;
    }

    pub async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.join_all().await;
    }
}
