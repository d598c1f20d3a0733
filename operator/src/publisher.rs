//! Publishes Kubernetes events about EmbeddingServices.
//!
//! Other recorders count what happens again for the same reason in the event that told it first, whose words then stay: of a
//! count that was raised from 1 to 3 and later from 2 to 5 for the same reason, one would read `1 -> 3` twice. This one counts
//! only what has the same words.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::events::v1::{Event, EventSeries},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kembed_crds::EmbeddingService;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::api_errors::{namespace_terminates, words};

/// Who says so.
const CONTROLLER: &str = "kembed-controller";

/// Bytes of words that an event can hold.
const NOTE_LIMIT: usize = 1024;

/// How long after an event was told last it still counts what is told in the same words.
const SERIES: Duration = Duration::from_secs(360);

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Told {
    /// Whether somebody should look into it.
    pub warning: bool,
    /// One word for why.
    pub reason: String,
    /// In words; what an event cannot hold of them is cut.
    pub note: String,
    /// What was being done.
    pub action: &'static str,
}

/// Publishes events. Clones share what was told.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    identity: String,
    told: Arc<Mutex<HashMap<(String, Told), Series>>>,
}

/// An event that was told.
#[derive(Clone, Debug)]
struct Series {
    name: String,
    count: i32,
    last: Instant,
}

impl Publisher {
    /// `identity` is that of this process among all controllers.
    pub fn new(client: Client, identity: &str) -> Self {
        Self { client, identity: identity.to_owned(), told: Arc::default() }
    }

    /// Publishes an event about `object`. One that cannot be published is only logged: the status says the same.
    pub async fn publish(&self, object: &EmbeddingService, mut told: Told) {
        told.note.truncate(told.note.floor_char_boundary(NOTE_LIMIT));
        let reason = told.reason.clone();
        match self.send(object, told).await {
            Ok(()) => (),
            // Of a service that goes with its namespace nobody wants to hear.
            Err(kube::Error::Api(status)) if namespace_terminates(&status) => {
                tracing::debug!(reason, "the namespace of an event is being deleted");
            }
            Err(error) => tracing::warn!(error = words(&error), reason, "failed to publish an event"),
        }
    }

    async fn send(&self, object: &EmbeddingService, told: Told) -> kube::Result<()> {
        let events = Api::<Event>::namespaced(
            self.client.clone(),
            object.metadata.namespace.as_deref().unwrap_or_default(),
        );
        let key = (object.uid().unwrap_or_default(), told);
        let now = Timestamp::now();
        if let Some(Series { name, count, .. }) = self.again(&key, Instant::now()) {
            let count = count.saturating_add(1);
            let series = EventSeries { count, last_observed_time: MicroTime(now) };
            let patch = Patch::Merge(json!({"series": series}));
            match events.patch(&name, &PatchParams::default(), &patch).await {
                // The API server keeps events for an hour or so, and anybody may delete them.
                Err(kube::Error::Api(status)) if status.code == 404 => (),
                patched => {
                    patched?;
                    self.remember(key, Series { name, count, last: Instant::now() });
                    return Ok(());
                }
            }
        }
        let event = self.event(object, &key.1, now);
        events.create(&PostParams::default(), &event).await?;
        self.remember(key, Series { name: event.name_any(), count: 1, last: Instant::now() });
        Ok(())
    }

    /// The event that told the same not long ago.
    fn again(&self, key: &(String, Told), now: Instant) -> Option<Series> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, series| now.saturating_duration_since(series.last) < SERIES);
        told.get(key).cloned()
    }

    fn remember(&self, key: (String, Told), series: Series) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(key, series);
    }

    fn event(&self, object: &EmbeddingService, told: &Told, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", object.name_any(), now.as_nanosecond())),
                namespace: object.metadata.namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(if told.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(told.reason.clone()),
            note: Some(told.note.clone()),
            action: Some(told.action.into()),
            event_time: Some(MicroTime(now)),
            regarding: Some(object.object_ref(&())),
            reporting_controller: Some(CONTROLLER.into()),
            reporting_instance: Some(self.identity.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Method, Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::Value;
    use tower::service_fn;

    use super::*;

    #[derive(Default)]
    struct State {
        asked: Vec<(Method, Value)>,
        /// What it says to the next request in place of an answer.
        refusal: Option<Value>,
    }

    /// An API server.
    #[derive(Clone, Default)]
    struct Api(Arc<Mutex<State>>);

    impl Api {
        async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let asked = serde_json::from_slice::<Value>(&body).expect("an object");
            let mut state = self.0.lock().expect("no panic");
            let refused = state.refusal.take();
            let code = refused.as_ref().map_or(200, |status| status["code"].as_u64().expect("a code"));
            let answer = refused.unwrap_or_else(|| asked.clone());
            state.asked.push((head.method, asked));
            let response = Response::builder().status(u16::try_from(code).expect("a code"));
            Ok(response.body(Body::from(answer.to_string().into_bytes())).expect("a response"))
        }

        fn publisher(&self) -> Publisher {
            let answers = self.clone();
            let client = Client::new(service_fn(move |request| answers.clone().answer(request)), "search");
            Publisher::new(client, "controller-1")
        }

        /// The next request is refused.
        fn refuse(&self, status: Value) {
            self.0.lock().expect("no panic").refusal = Some(status);
        }

        fn asked(&self) -> Vec<(Method, Value)> {
            std::mem::take(&mut self.0.lock().expect("no panic").asked)
        }

        fn methods(&self) -> Vec<Method> {
            self.asked().into_iter().map(|(method, _)| method).collect()
        }
    }

    fn minilm(uid: &str) -> EmbeddingService {
        serde_json::from_value(json!({
            "apiVersion": "kembed.dev/v1alpha1",
            "kind": "EmbeddingService",
            "metadata": {"name": "minilm", "namespace": "search", "uid": uid},
            "spec": {"model": {"uri": "hf://a/b"}},
        }))
        .expect("a valid object")
    }

    fn told(note: &str) -> Told {
        Told { warning: false, reason: "Burst".into(), note: note.into(), action: "Scale" }
    }

    #[tokio::test]
    async fn an_event_says_who_and_what() {
        let (api, service) = (Api::default(), minilm("2f1c"));
        api.publisher().publish(&service, told("1 -> 3")).await;
        let [(Method::POST, event)] = &api.asked()[..] else { panic!("it was not created") };
        assert_eq!(event["regarding"]["name"], "minilm");
        assert_eq!(event["regarding"]["uid"], "2f1c");
        assert_eq!((&event["type"], &event["reason"]), (&json!("Normal"), &json!("Burst")));
        assert_eq!((&event["note"], &event["action"]), (&json!("1 -> 3"), &json!("Scale")));
        assert_eq!(event["reportingController"], "kembed-controller");
        assert_eq!(event["reportingInstance"], "controller-1");
    }

    /// Once, the second was counted in the first, and nobody read of it.
    #[tokio::test]
    async fn what_has_other_words_is_another_event() {
        let (api, service) = (Api::default(), minilm("2f1c"));
        let publisher = api.publisher();
        publisher.publish(&service, told("1 -> 3")).await;
        publisher.publish(&service, told("2 -> 5")).await;
        assert_eq!(api.methods(), [Method::POST, Method::POST]);
    }

    #[tokio::test]
    async fn the_same_words_are_counted_and_told_anew_when_they_are_gone() {
        let (api, service) = (Api::default(), minilm("2f1c"));
        let publisher = api.publisher();
        for _ in 0..3 {
            publisher.publish(&service, told("1 -> 3")).await;
        }
        let asked = api.asked();
        let count = |(method, event): &(Method, Value)| (method.clone(), event["series"]["count"].clone());
        let counts = [(Method::POST, json!(null)), (Method::PATCH, json!(2)), (Method::PATCH, json!(3))];
        assert_eq!(asked.iter().map(count).collect::<Vec<_>>(), counts);
        // Another service says the same of itself.
        publisher.publish(&minilm("77aa"), told("1 -> 3")).await;
        assert_eq!(api.methods(), [Method::POST]);
        api.refuse(json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"}));
        publisher.publish(&service, told("1 -> 3")).await;
        assert_eq!(api.methods(), [Method::PATCH, Method::POST]);
    }

    #[tokio::test]
    async fn what_could_not_be_told_is_not_counted() {
        let (api, service) = (Api::default(), minilm("2f1c"));
        let publisher = api.publisher();
        api.refuse(json!({"kind": "Status", "status": "Failure", "code": 500}));
        publisher.publish(&service, told("1 -> 3")).await;
        publisher.publish(&service, told("1 -> 3")).await;
        assert_eq!(api.methods(), [Method::POST, Method::POST]);
    }

    #[tokio::test]
    async fn long_words_are_cut_to_what_an_event_holds() {
        let (api, service) = (Api::default(), minilm("2f1c"));
        api.publisher().publish(&service, told(&"ü".repeat(NOTE_LIMIT))).await;
        let note = api.asked()[0].1["note"].as_str().expect("a note").to_owned();
        assert_eq!(note, "ü".repeat(NOTE_LIMIT / 2));
    }
}
