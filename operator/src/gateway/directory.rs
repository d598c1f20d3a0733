//! All that the gateway knows: services, their pods and what those reported. Fed by watches and probes, asked by
//! requests.

use core::net::SocketAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kembed_queue::{PodId, wire::RecordedSpace};

use http::HeaderMap;

use super::{
    availability::{Endpoint, Insight, Life, Pod, PodName, Service, Unavailable, endpoints},
    balance::Rotation,
    caller::Caller,
    key_index::KeyIndex,
    keys::KeyRing,
    name::ServiceName,
};

/// News of one kind of object.
#[derive(Clone, Debug)]
pub enum Update<T> {
    /// These exist, and no others.
    All(Vec<T>),
    /// This one exists, as follows.
    Put(T),
    /// This one is gone.
    Gone(T),
}

/// What a request needs to know of its service.
#[derive(Debug)]
pub struct View {
    /// The pods that may answer, or why there are none.
    pub endpoints: Result<Vec<Endpoint>, Unavailable>,
    /// Whose turn it is.
    pub rotation: Arc<Rotation>,
    /// Who may use it.
    pub keys: Arc<KeyRing>,
    /// How long a pod may take to answer, where the service says so.
    pub request_timeout: Option<Duration>,
    /// When the service was created, in seconds since 1970.
    pub created: i64,
    /// Whether it has no pod and a request would bring one.
    pub asleep: bool,
    /// The space that its vectors belong to, once one is recorded.
    pub space: Option<RecordedSpace>,
    /// How long a request may wait for a pod, where the service says so.
    pub queue_timeout: Option<Duration>,
    /// Requests that may wait at the same time, where the service says so.
    pub queued: Option<usize>,
    /// So many of 100 interactive requests may be given to a second pod, where the service says so.
    pub hedge_percent: Option<u32>,
    /// All its pods that there are, in whatever state. What is in hand at another one is lost.
    pub pods: Vec<PodId>,
    /// Whether one of them has an address and may yet answer.
    pub is_starting: bool,
}

/// A pod that should be asked which space it serves, and where its readiness is not known, whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unproven {
    /// Which pod.
    pub name: PodName,
    /// The service that it was made for.
    pub service: ServiceName,
    /// Which life of it.
    pub life: Life,
    /// Where to ask.
    pub address: SocketAddr,
    /// Whether the API server has told that it is ready. If not, somebody waits for it.
    pub is_ready: bool,
}

/// The index. A view of each service is kept ready, so that a request costs a look-up.
#[derive(Debug, Default)]
pub struct Directory {
    services: BTreeMap<ServiceName, (Service, Arc<View>)>,
    pods: BTreeMap<PodName, KnownPod>,
    keys: KeyIndex,
    services_listed: bool,
    pods_listed: bool,
    /// Services for whose pods somebody waits.
    sought: BTreeSet<ServiceName>,
    /// The number of the next life of a pod.
    next: u64,
}

#[derive(Debug)]
struct KnownPod {
    pod: Pod,
    insight: Insight,
}

impl Directory {
    /// What a request to this service needs; `None` if there is no such service.
    pub fn view(&self, name: &ServiceName) -> Option<&Arc<View>> {
        self.services.get(name).map(|(_, view)| view)
    }

    /// Who sends a request with these headers.
    pub fn caller(&self, headers: &HeaderMap) -> Caller {
        if self.keys.is_empty() {
            return Caller::Anybody;
        }
        Caller::of(headers, |hash| self.keys.contains(hash))
    }

    /// Whether there may be a service for this caller.
    pub fn admits(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Anybody | Caller::Holder(_) => true,
            Caller::Nobody | Caller::Stranger => self.keys.closed() < self.services.len(),
        }
    }

    /// As [`Directory::view`], of a service that is there for this caller.
    pub fn view_for(&self, caller: &Caller, name: &ServiceName) -> Option<&Arc<View>> {
        self.view(name).filter(|view| caller.may_use(&view.keys))
    }

    /// Whether a service of this name has no pod and a request would bring one.
    pub fn is_asleep(&self, name: &str) -> bool {
        name.parse().is_ok_and(|name| self.view(&name).is_some_and(|view| view.asleep))
    }

    /// All services with their views, by name.
    pub fn views(&self) -> impl Iterator<Item = (&ServiceName, &View)> {
        self.services.iter().map(|(name, (_, view))| (name, view.as_ref()))
    }

    /// Whether both watches have told everything once.
    pub fn is_complete(&self) -> bool {
        self.services_listed && self.pods_listed
    }

    /// Number of services and of pods.
    pub fn counts(&self) -> (usize, usize) {
        (self.services.len(), self.pods.len())
    }

    /// Learns of services.
    pub fn update_services(&mut self, update: Update<Service>) {
        match update {
            Update::All(services) => {
                let old = std::mem::take(&mut self.services);
                self.keys = KeyIndex::default();
                for service in services {
                    let earlier = old.get(&service.name).map(|(_, view)| view.clone());
                    self.put_service(service, earlier);
                }
                self.services_listed = true;
            }
            Update::Put(service) => self.put_service(service, None),
            Update::Gone(service) => {
                self.remove_service(&service.name);
            }
        }
    }

    /// Learns of pods.
    pub fn update_pods(&mut self, update: Update<Pod>) {
        match update {
            Update::All(pods) => {
                let mut old = std::mem::take(&mut self.pods);
                for pod in pods {
                    let known = old.remove(&pod.name);
                    self.put_pod(known, pod);
                }
                self.pods_listed = true;
                let names: Vec<_> = self.services.keys().cloned().collect();
                names.iter().for_each(|name| self.refresh(name));
            }
            Update::Put(pod) => {
                let known = self.pods.remove(&pod.name);
                // A pod that was relabelled leaves another service.
                let left = known.as_ref().map(|known| known.pod.service.clone());
                let joined = pod.service.clone();
                self.put_pod(known, pod);
                if let Some(left) = left.filter(|left| *left != joined) {
                    self.refresh(&left);
                }
                self.refresh(&joined);
            }
            Update::Gone(pod) => {
                if let Some(known) = self.pods.remove(&pod.name) {
                    self.refresh(&known.pod.service);
                }
            }
        }
    }

    /// Learns which space a pod serves, and that it is ready. What an earlier life of the pod reported is of no use.
    pub fn proven(&mut self, probe: &Unproven, digest: String) {
        let Some(known) = self.pods.get_mut(&probe.name).filter(|known| known.pod.life == probe.life) else {
            return;
        };
        known.insight.digest = Some(digest);
        // Who was known to be ready was not asked whether it is.
        known.insight.said_ready = !probe.is_ready && !known.pod.ready;
        let service = known.pod.service.clone();
        self.refresh(&service);
    }

    /// Somebody waits for pods of these services, and of no others.
    pub fn seek(&mut self, services: BTreeSet<ServiceName>) {
        self.sought = services;
    }

    /// The pods that are ready, or that somebody waits for, and have not reported in their present life.
    pub fn unproven(&self) -> impl Iterator<Item = Unproven> {
        self.pods.values().filter_map(|known| self.probe_of(known))
    }

    /// Whether this pod still has to be asked.
    pub fn is_unproven(&self, probe: &Unproven) -> bool {
        self.pods.get(&probe.name).and_then(|known| self.probe_of(known)).as_ref() == Some(probe)
    }

    fn probe_of(&self, known: &KnownPod) -> Option<Unproven> {
        let KnownPod { pod, insight } = known;
        let is_missing = match (pod.ready, &insight.digest) {
            (true, digest) => digest.is_none(),
            (false, None) => self.sought.contains(&pod.service),
            (false, Some(_)) => !insight.said_ready && self.sought.contains(&pod.service),
        };
        let address = pod.live_address().filter(|_| is_missing)?;
        let (name, service, life) = (pod.name.clone(), pod.service.clone(), pod.life.clone());
        Some(Unproven { name, service, life, address, is_ready: pod.ready })
    }

    /// The pod as it is now; what it reported is kept as long as it lives.
    fn put_pod(&mut self, old: Option<KnownPod>, pod: Pod) {
        let insight = match old.filter(|old| old.pod.life == pod.life) {
            // Once the API server tells its readiness, that is what counts.
            Some(old) => Insight { said_ready: old.insight.said_ready && !pod.ready, ..old.insight },
            None => {
                self.next += 1;
                Insight { id: PodId(self.next), digest: None, said_ready: false }
            }
        };
        self.pods.insert(pod.name.clone(), KnownPod { pod, insight });
    }

    /// Of the view that there was, here or in an earlier list, what lasts is kept.
    fn put_service(&mut self, service: Service, earlier: Option<Arc<View>>) {
        let before = self.remove_service(&service.name).or(earlier);
        let keys = Arc::new(KeyRing::new(&service.keys, before.as_ref().map(|view| view.keys.as_ref())));
        self.keys.add(&keys);
        let rotation = before.map(|view| view.rotation.clone()).unwrap_or_default();
        let view = Arc::new(self.look(&service, rotation, keys));
        self.services.insert(service.name.clone(), (service, view));
    }

    fn remove_service(&mut self, name: &ServiceName) -> Option<Arc<View>> {
        let (_, view) = self.services.remove(name)?;
        self.keys.remove(&view.keys);
        Some(view)
    }

    /// Makes the view of a service again, if there is such a service.
    fn refresh(&mut self, name: &ServiceName) {
        let Some((service, view)) = self.services.get(name) else { return };
        let view = Arc::new(self.look(service, view.rotation.clone(), view.keys.clone()));
        if let Some(entry) = self.services.get_mut(name) {
            entry.1 = view;
        }
    }

    fn look(&self, service: &Service, rotation: Arc<Rotation>, keys: Arc<KeyRing>) -> View {
        let first = PodName { namespace: service.name.namespace().to_owned(), name: String::new() };
        let pods = self.pods.range(first..).map(|(_, known)| known);
        let pods = pods.take_while(|known| known.pod.name.namespace == service.name.namespace());
        let pods: Vec<_> = pods.filter(|known| known.pod.service == service.name).collect();
        let recorded =
            |digest: &String| RecordedSpace { digest: digest.clone(), revision: service.revision.clone() };
        View {
            endpoints: endpoints(service, pods.iter().map(|known| (&known.pod, &known.insight))),
            rotation,
            keys,
            request_timeout: service.request_timeout,
            created: service.created,
            asleep: service.replicas == 0 && service.scales,
            space: service.digest.as_ref().map(recorded),
            queue_timeout: service.queue_timeout,
            queued: service.queued,
            hedge_percent: service.hedge_percent,
            pods: pods.iter().map(|known| known.insight.id).collect(),
            is_starting: pods.iter().any(|known| known.pod.live_address().is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::{
        fixtures::{pod, service},
        keys::{Allowance, ApiKey, KeyHash},
    };

    fn name(text: &str) -> ServiceName {
        text.parse().expect("the test's own name")
    }

    /// Names of the pods that may answer for a service.
    fn answering(directory: &Directory, service: &str) -> Vec<String> {
        let view = directory.view(&name(service)).expect("a known service");
        view.endpoints.iter().flatten().map(|endpoint| endpoint.pod.clone()).collect()
    }

    /// Has every pod that is asked report this digest.
    fn prove_all(directory: &mut Directory, digest: &str) {
        let asked: Vec<_> = directory.unproven().collect();
        asked.iter().for_each(|probe| directory.proven(probe, digest.to_owned()));
    }

    fn with_one_pod() -> Directory {
        let mut directory = Directory::default();
        directory.update_services(Update::All(vec![service("minilm")]));
        directory.update_pods(Update::All(vec![pod("a")]));
        prove_all(&mut directory, "sha256:one");
        directory
    }

    #[test]
    fn it_is_complete_once_both_kinds_were_listed() {
        let mut directory = Directory::default();
        directory.update_services(Update::Put(service("minilm")));
        directory.update_pods(Update::All(vec![]));
        assert!(!directory.is_complete());
        directory.update_services(Update::All(vec![]));
        assert!(directory.is_complete());
        assert!(directory.view(&name("team/minilm")).is_none(), "the list did not hold it");
    }

    #[test]
    fn a_pod_answers_once_it_reported_the_recorded_space() {
        let mut directory = Directory::default();
        directory.update_pods(Update::Put(pod("a")));
        let unrecorded = Service { digest: None, ..service("minilm") };
        directory.update_services(Update::Put(unrecorded));
        assert_eq!(directory.unproven().count(), 1);
        prove_all(&mut directory, "sha256:one");
        assert_eq!(directory.unproven().count(), 0);
        assert_eq!(answering(&directory, "team/minilm"), [""; 0], "no space is recorded");
        directory.update_services(Update::Put(service("minilm")));
        assert_eq!(answering(&directory, "team/minilm"), ["a"]);
    }

    #[test]
    fn a_pod_with_another_space_answers_nothing_and_is_not_asked_again() {
        let mut directory = Directory::default();
        directory.update_services(Update::All(vec![service("minilm")]));
        directory.update_pods(Update::All(vec![pod("a")]));
        prove_all(&mut directory, "sha256:two");
        assert_eq!(answering(&directory, "team/minilm"), [""; 0]);
        assert_eq!(directory.unproven().count(), 0);
    }

    #[test]
    fn after_a_restart_a_pod_is_asked_again() {
        let mut directory = with_one_pod();
        let restarted = Pod { life: Life { restarts: 1, ..pod("a").life }, ..pod("a") };
        directory.update_pods(Update::Put(restarted));
        assert_eq!(answering(&directory, "team/minilm"), [""; 0]);
        assert_eq!(directory.unproven().count(), 1);
    }

    /// Once, one that became unready while it was asked for its space was taken to be ready.
    #[test]
    fn a_pod_that_tells_its_space_does_not_tell_that_it_is_ready() {
        let mut directory = Directory::default();
        directory.update_services(Update::All(vec![service("minilm")]));
        directory.update_pods(Update::All(vec![pod("a")]));
        let asked: Vec<_> = directory.unproven().collect();
        directory.update_pods(Update::Put(Pod { ready: false, ..pod("a") }));
        asked.iter().for_each(|probe| directory.proven(probe, "sha256:one".to_owned()));
        assert_eq!(answering(&directory, "team/minilm"), [""; 0]);
        directory.update_pods(Update::Put(pod("a")));
        assert_eq!(answering(&directory, "team/minilm"), ["a"]);
    }

    #[test]
    fn the_report_of_an_earlier_life_counts_for_nothing() {
        let mut directory = Directory::default();
        directory.update_services(Update::All(vec![service("minilm")]));
        directory.update_pods(Update::All(vec![pod("a")]));
        let asked: Vec<_> = directory.unproven().collect();
        let successor = Pod { life: Life { uid: "another".to_owned(), restarts: 0 }, ..pod("a") };
        directory.update_pods(Update::Put(successor));
        assert!(!directory.is_unproven(&asked[0]));
        directory.proven(&asked[0], "sha256:one".to_owned());
        assert_eq!(answering(&directory, "team/minilm"), [""; 0]);
        assert_eq!(directory.unproven().count(), 1);
    }

    #[test]
    fn a_pod_that_somebody_waits_for_is_asked_before_it_is_told_as_ready() {
        let mut directory = Directory::default();
        directory.update_services(Update::All(vec![service("minilm")]));
        let unready = Pod { ready: false, ..pod("a") };
        directory.update_pods(Update::All(vec![unready.clone()]));
        assert_eq!(directory.unproven().count(), 0, "nobody waits");
        directory.seek([name("team/minilm")].into());
        assert_eq!(directory.unproven().map(|probe| probe.is_ready).collect::<Vec<_>>(), [false]);
        prove_all(&mut directory, "sha256:one");
        assert_eq!(answering(&directory, "team/minilm"), ["a"]);
        assert_eq!(directory.unproven().count(), 0);
        // What the API server tells of it meanwhile is older than what the pod said.
        directory.update_pods(Update::Put(unready.clone()));
        assert_eq!(answering(&directory, "team/minilm"), ["a"]);
        directory.update_pods(Update::Put(pod("a")));
        assert_eq!(answering(&directory, "team/minilm"), ["a"]);
        directory.update_pods(Update::Put(unready));
        assert_eq!(
            answering(&directory, "team/minilm"),
            [""; 0],
            "once told as ready it can be told as unready"
        );
    }

    #[test]
    fn each_life_of_a_pod_has_its_number() {
        let mut directory = with_one_pod();
        let number =
            |directory: &Directory| directory.view(&name("team/minilm")).expect("a service").pods.clone();
        let first = number(&directory);
        directory.update_pods(Update::Put(Pod { ready: false, ..pod("a") }));
        assert_eq!(number(&directory), first);
        directory.update_pods(Update::Put(Pod { life: Life { restarts: 1, ..pod("a").life }, ..pod("a") }));
        assert_ne!(number(&directory), first);
        directory.update_pods(Update::Gone(pod("a")));
        assert_eq!(number(&directory), []);
    }

    #[test]
    fn a_list_replaces_what_was_known_and_keeps_what_pods_reported() {
        let mut directory = with_one_pod();
        directory.update_pods(Update::All(vec![pod("a"), pod("b")]));
        assert_eq!(answering(&directory, "team/minilm"), ["a"]);
        directory.update_pods(Update::All(vec![pod("b")]));
        assert_eq!(answering(&directory, "team/minilm"), [""; 0]);
        assert_eq!(directory.counts(), (1, 1));
    }

    #[test]
    fn a_relabelled_pod_leaves_its_service() {
        let mut directory = with_one_pod();
        directory.update_services(Update::Put(service("e5")));
        directory.update_pods(Update::Put(Pod { service: name("team/e5"), ..pod("a") }));
        assert_eq!(answering(&directory, "team/minilm"), [""; 0]);
        assert_eq!(answering(&directory, "team/e5"), ["a"]);
    }

    #[test]
    fn a_label_reaches_no_service_of_another_namespace() {
        let mut directory = with_one_pod();
        let foreign = PodName { namespace: "other".to_owned(), name: "b".to_owned() };
        directory.update_pods(Update::Put(Pod { name: foreign, ..pod("b") }));
        prove_all(&mut directory, "sha256:one");
        assert_eq!(answering(&directory, "team/minilm"), ["a"]);
    }

    #[test]
    fn turns_go_on_over_changes() {
        let mut directory = with_one_pod();
        directory.update_pods(Update::Put(pod("b")));
        prove_all(&mut directory, "sha256:one");
        let turn = |directory: &Directory| {
            let view = directory.view(&name("team/minilm")).expect("a known service").clone();
            let pods = view.endpoints.as_deref().expect("two pods");
            view.rotation.order(pods).next().expect("two pods").pod.clone()
        };
        assert_eq!(turn(&directory), "a");
        directory.update_services(Update::All(vec![service("minilm")]));
        directory.update_pods(Update::Put(pod("b")));
        assert_eq!(turn(&directory), "b");
    }

    fn key(secret: &str) -> ApiKey {
        let hash = Some(KeyHash::of(secret.as_bytes()));
        ApiKey { name: secret.to_owned(), hash, allowance: Allowance::default() }
    }

    #[test]
    fn a_service_with_keys_is_there_for_who_holds_one() {
        let mut directory = Directory::default();
        let with_key = |secret| {
            let headers: HeaderMap =
                [(http::header::AUTHORIZATION, format!("Bearer {secret}").parse().expect("a value"))]
                    .into_iter()
                    .collect();
            headers
        };
        directory.update_services(Update::Put(service("open")));
        assert_eq!(directory.caller(&with_key("first")), Caller::Anybody, "nobody has keys");
        directory.update_services(Update::Put(Service { keys: vec![key("first")], ..service("closed") }));
        let seen = |directory: &Directory, headers: &HeaderMap| {
            let caller = directory.caller(headers);
            ["team/open", "team/closed", "team/none"]
                .map(|one| directory.view_for(&caller, &name(one)).is_some())
        };
        assert_eq!(seen(&directory, &with_key("first")), [true, true, false]);
        assert_eq!(seen(&directory, &with_key("second")), [true, false, false]);
        assert_eq!(seen(&directory, &HeaderMap::new()), [true, false, false]);
        assert!(directory.admits(&Caller::Nobody));
        directory.update_services(Update::Gone(service("open")));
        assert!(!directory.admits(&Caller::Nobody) && !directory.admits(&Caller::Stranger));
        assert!(directory.admits(&directory.caller(&with_key("first"))));
        directory.update_services(Update::Put(service("open")));
        directory.update_services(Update::Put(Service { keys: vec![key("second")], ..service("closed") }));
        assert_eq!(seen(&directory, &with_key("first")), [true, false, false], "it was taken away");
        directory.update_services(Update::Gone(service("closed")));
        assert_eq!(directory.caller(&with_key("second")), Caller::Anybody, "nobody has keys any more");
    }

    /// One thing that can happen, to one of a few services and pods.
    #[derive(Clone, Debug)]
    enum Step {
        Service(Update<Service>),
        Pod(Update<Pod>),
        Prove(&'static str),
    }

    fn digests() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("sha256:one"), Just("sha256:two")]
    }

    fn services() -> impl Strategy<Value = Service> {
        let keys = proptest::collection::vec(any::<bool>(), 0..3);
        (0..3usize, 0..2i32, proptest::option::of(digests()), keys).prop_map(|(i, replicas, digest, keys)| {
            Service {
                replicas,
                digest: digest.map(str::to_owned),
                keys: keys.into_iter().map(|first| key(if first { "first" } else { "second" })).collect(),
                ..service(["minilm", "e5", "bge"][i])
            }
        })
    }

    fn pods() -> impl Strategy<Value = Pod> {
        (0..4usize, 0..3usize, 0..2i32, any::<bool>(), any::<bool>()).prop_map(
            |(i, of, restarts, ready, ending)| {
                let plain = pod(["a", "b", "c", "d"][i]);
                let life = Life { restarts, ..plain.life.clone() };
                let service = name(["team/minilm", "team/e5", "team/bge"][of]);
                Pod { service, life, ready, terminating: ending, ..plain }
            },
        )
    }

    fn updates<T: Clone + std::fmt::Debug + 'static>(
        one: impl Strategy<Value = T> + Clone + 'static,
    ) -> impl Strategy<Value = Update<T>> {
        prop_oneof![
            4 => one.clone().prop_map(Update::Put),
            2 => one.clone().prop_map(Update::Gone),
            1 => proptest::collection::vec(one, 0..4).prop_map(Update::All),
        ]
    }

    proptest! {
        /// However it came to know what it knows, it answers as one that is told all at once.
        #[test]
        fn views_follow_from_what_is_known(steps in proptest::collection::vec(prop_oneof![
            updates(services().boxed()).prop_map(Step::Service),
            updates(pods().boxed()).prop_map(Step::Pod),
            digests().prop_map(Step::Prove),
        ], 0..40)) {
            let mut directory = Directory::default();
            for step in steps {
                match step {
                    Step::Service(update) => directory.update_services(update),
                    Step::Pod(update) => directory.update_pods(update),
                    Step::Prove(digest) => prove_all(&mut directory, digest),
                }
                for (service, view) in directory.services.values() {
                    let pods = directory.pods.values().filter(|known| known.pod.service == service.name);
                    let wanted = endpoints(service, pods.map(|known| (&known.pod, &known.insight)));
                    prop_assert_eq!(&view.endpoints, &wanted);
                }
                for secret in ["first", "second"] {
                    let hash = KeyHash::of(secret.as_bytes());
                    let listed = directory.views().any(|(_, view)| view.keys.find(&hash).is_some());
                    prop_assert_eq!(directory.keys.contains(&hash), listed);
                }
                let open = directory.views().all(|(_, view)| view.keys.is_open());
                prop_assert_eq!(directory.keys.is_empty(), open);
                for probe in directory.unproven() {
                    let known = &directory.pods[&probe.name];
                    prop_assert!(known.insight.digest.is_none() || !known.pod.ready);
                }
                let ids: BTreeSet<_> = directory.pods.values().map(|known| known.insight.id).collect();
                prop_assert_eq!(ids.len(), directory.pods.len(), "each life has a number of its own");
            }
        }
    }
}
