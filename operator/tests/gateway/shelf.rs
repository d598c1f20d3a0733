//! Objects of one kind as an API server tells of them: as a list, page by page, and as a watch from any version on. Benchmarks
//! use it too.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedSender, unbounded},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// All objects of one kind. Clones are the same.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// By name.
    objects: BTreeMap<String, Value>,
    /// What happened, from the first event on: the version of the whole is how many there were.
    events: Vec<Bytes>,
    watches: Vec<UnboundedSender<Bytes>>,
    /// What whoever asks has to say.
    selector: Option<&'static str>,
    /// How often it refused to answer, since it does.
    refused: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    #[serde(default)]
    watch: bool,
    #[serde(default)]
    limit: Option<usize>,
    /// How many objects were told already.
    #[serde(default)]
    r#continue: Option<usize>,
    #[serde(default)]
    resource_version: Option<usize>,
    #[serde(default)]
    label_selector: String,
}

impl Shelf {
    /// An empty one, for those alone who ask for these labels.
    pub fn for_labels(selector: &'static str) -> Self {
        let shelf = Self::default();
        shelf.with(|kept| kept.selector = Some(selector));
        shelf
    }

    /// Tells of them under this path.
    pub fn at(&self, path: &str) -> Router {
        Router::new().route(path, get(answer)).with_state(self.clone())
    }

    /// An object comes or changes.
    pub fn put(&self, object: Value) {
        self.with(|kept| kept.put(object));
    }

    /// An object goes.
    pub fn remove(&self, name: &str) {
        self.with(|kept| {
            let object = kept.objects.remove(name).expect("it is there");
            kept.tell("DELETED", object);
        });
    }

    /// Ends all watches, and answers nothing more but 503.
    pub fn refuse(&self) {
        self.with(|kept| {
            kept.watches.clear();
            kept.refused = Some(0);
        });
    }

    /// How often it did.
    pub fn refused(&self) -> usize {
        self.with(|kept| kept.refused.unwrap_or(0))
    }

    fn with<R>(&self, act: impl FnOnce(&mut Kept) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    fn put(&mut self, object: Value) {
        let name = object["metadata"]["name"].as_str().expect("an object has a name").to_owned();
        let what = if self.objects.contains_key(&name) { "MODIFIED" } else { "ADDED" };
        let object = self.tell(what, object);
        self.objects.insert(name, object);
    }

    fn tell(&mut self, what: &str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!((self.events.len() + 1).to_string());
        let event = Bytes::from(format!("{}\n", json!({"type": what, "object": object})));
        self.events.push(event.clone());
        self.watches.retain(|watch| watch.unbounded_send(event.clone()).is_ok());
        object
    }

    fn list(&self, limit: Option<usize>, from: usize) -> Value {
        let items: Vec<_> = self.objects.values().skip(from).take(limit.unwrap_or(usize::MAX)).collect();
        let until = from + items.len();
        let mut metadata = json!({"resourceVersion": self.events.len().to_string()});
        if until < self.objects.len() {
            metadata["continue"] = json!(until.to_string());
        }
        json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items})
    }

    /// What happened after that version, and what happens from now on.
    fn watch(&mut self, version: usize) -> Response {
        let (watch, events) = unbounded();
        for event in &self.events[version.min(self.events.len())..] {
            let _ = watch.unbounded_send(event.clone());
        }
        self.watches.push(watch);
        Body::from_stream(events.map(Ok::<_, Infallible>)).into_response()
    }
}

async fn answer(State(shelf): State<Shelf>, Query(asked): Query<Asked>) -> Response {
    shelf.with(|kept| {
        if let Some(selector) = kept.selector {
            assert_eq!(asked.label_selector, selector);
        }
        if let Some(refused) = &mut kept.refused {
            *refused += 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        match asked.watch {
            true => kept.watch(asked.resource_version.unwrap_or(0)),
            false => Json(kept.list(asked.limit, asked.r#continue.unwrap_or(0))).into_response(),
        }
    })
}
