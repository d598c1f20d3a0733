//! Follows the services and pods of the cluster. When the API server is away, what was known last stays in force.

use std::{error::Error, sync::Arc};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::{EmbeddingService, MANAGED_BY, MANAGED_BY_LABEL, SERVICE_LABEL};
use kube::{
    Api, Client,
    core::ApiResource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event, watcher},
    },
};

use super::{directory::Update, knowledge::Knowledge, objects, peers::Peers};
use crate::pauses::Pauses;

/// Follows all EmbeddingServices; never ends by itself.
pub async fn services(client: Client, knowledge: Arc<Knowledge>) {
    let resource = ApiResource::erase::<EmbeddingService>(&());
    let api = Api::<objects::WatchedService>::all_with(client, &resource);
    let events = watcher(api, Config::default()).backoff(Pauses::new());
    let learn = |update| knowledge.update(|directory| directory.update_services(update));
    follow("EmbeddingServices", events, objects::service, learn).await;
}

/// Follows the pods of all EmbeddingServices; never ends by itself.
pub async fn pods(client: Client, knowledge: Arc<Knowledge>) {
    // A pod that loses one of the labels is told as deleted.
    let selector = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{SERVICE_LABEL}");
    let events = watcher(Api::<Pod>::all(client), Config::default().labels(&selector)).backoff(Pauses::new());
    let learn = |update| knowledge.update(|directory| directory.update_pods(update));
    follow("pods", events, objects::pod, learn).await;
}

/// Follows the gateways, which are the pods of a namespace with these labels; never ends by itself.
pub async fn gateways(client: Client, namespace: &str, labels: &str, peers: &Arc<Peers>) {
    let api = Api::<Pod>::namespaced(client, namespace);
    let events = watcher(api, Config::default().labels(labels)).backoff(Pauses::new());
    follow("gateways", events, objects::gateway, |update| peers.update(update)).await;
}

/// Turns events into updates: a list that was begun again replaces what was known only once it is whole.
async fn follow<K, T>(
    kind: &str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    keep: impl Fn(K) -> Option<T>,
    learn: impl Fn(Update<T>),
) {
    pin_mut!(events);
    let mut list = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => list.clear(),
            Ok(Event::InitApply(object)) => list.extend(keep(object)),
            Ok(Event::InitDone) => {
                tracing::info!(kind, count = list.len(), "listed");
                learn(Update::All(std::mem::take(&mut list)));
            }
            Ok(Event::Apply(object)) => {
                keep(object).into_iter().for_each(|object| learn(Update::Put(object)))
            }
            Ok(Event::Delete(object)) => {
                keep(object).into_iter().for_each(|object| learn(Update::Gone(object)))
            }
            // The watcher begins again by itself, after a while.
            Err(error) => tracing::warn!(kind, error = &error as &dyn Error, "failed to watch"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::{FutureExt, stream};

    use super::*;

    /// What is learnt from events about numbers, of which only even ones are kept.
    fn learnt(events: Vec<watcher::Result<Event<i32>>>) -> Vec<String> {
        let learnt = Mutex::new(Vec::new());
        let learn = |update| learnt.lock().expect("one thread").push(format!("{update:?}"));
        follow("numbers", stream::iter(events), |n| (n % 2 == 0).then_some(n), learn)
            .now_or_never()
            .expect("events that are all there");
        learnt.into_inner().expect("one thread")
    }

    #[test]
    fn a_list_is_learnt_when_it_is_whole() {
        let list = vec![Ok(Event::Init), Ok(Event::InitApply(2)), Ok(Event::InitApply(4))];
        assert_eq!(learnt(list), [""; 0]);
        let whole =
            vec![Ok(Event::Init), Ok(Event::InitApply(2)), Ok(Event::InitApply(3)), Ok(Event::InitDone)];
        assert_eq!(learnt(whole), ["All([2])"]);
    }

    #[test]
    fn a_list_that_broke_off_leaves_nothing() {
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(2)),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(4)),
            Ok(Event::InitDone),
        ];
        assert_eq!(learnt(events), ["All([4])"]);
    }

    #[test]
    fn changes_are_learnt_one_by_one() {
        let events = vec![Ok(Event::Apply(2)), Ok(Event::Apply(3)), Ok(Event::Delete(2))];
        assert_eq!(learnt(events), ["Put(2)", "Gone(2)"]);
    }
}
