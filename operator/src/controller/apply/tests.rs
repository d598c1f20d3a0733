//! Against an API server that keeps what it is sent, and whose each field is.

use std::{collections::BTreeMap, convert::Infallible};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kembed_crds::EmbeddingService;
use kube::{
    client::Body,
    core::Status,
    runtime::{
        reflector::{self, store::Writer},
        watcher,
    },
};
use tower::service_fn;

use super::*;
use crate::controller::{
    build,
    config::{Config, tests::config},
    validate::{tests::object, validate},
};

fn refusal(status: serde_json::Value) -> ApplyError {
    let status: Status = serde_json::from_value(status).expect("a status");
    classify::<ConfigMap>("minilm-space", kube::Error::Api(Box::new(status)))
}

#[test]
fn a_quota_is_told_from_a_namespace_that_ends() {
    let quota = refusal(serde_json::json!({"code": 403, "message": "exceeded quota"}));
    let hindrance = quota.hindrance().expect("a user has to act");
    assert_eq!(hindrance.reason, Reason::PodRejected);
    assert_eq!(hindrance.message, "the API server refused ConfigMap minilm-space: exceeded quota");
    let ending = refusal(serde_json::json!({"code": 403, "message": "is being terminated",
        "details": {"causes": [{"reason": "NamespaceTerminating"}]}}));
    assert!(matches!(ending, ApplyError::NamespaceTerminating(_)));
    assert_eq!(ending.hindrance(), None);
}

#[test]
fn a_conflict_is_worth_another_try() {
    assert!(matches!(refusal(serde_json::json!({"code": 409})), ApplyError::Failed { .. }));
}

/// An API server.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// Of the requests that came.
    asked: Vec<Method>,
}

impl Api {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().expect("no panic")
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let mut stored = self.stored();
        stored.asked.push(head.method.clone());
        let mut path = head.uri.path().to_owned();
        let (status, answer) = if head.method == Method::GET {
            let found = stored.objects.get(&path).cloned();
            found.map_or(
                (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})),
                |found| (200, found),
            )
        } else if head.method == Method::DELETE {
            let asked: Value = serde_json::from_slice(&body).expect("options");
            let found = stored.objects.remove(&path).expect("it is there");
            assert_eq!(asked["preconditions"]["uid"], found["metadata"]["uid"], "another may be deleted");
            (200, json!({"kind": "Status", "status": "Success"}))
        } else if head.headers["content-type"] == "application/merge-patch+json" {
            let patch: Value = serde_json::from_slice(&body).expect("an object");
            let object = stored.objects.get_mut(&path).expect("it is there");
            object["metadata"]["managedFields"] = patch["metadata"]["managedFields"].clone();
            (200, object.clone())
        } else {
            let mut object: Value = serde_json::from_slice(&body).expect("an object");
            if head.method == Method::POST {
                path = format!("{path}/{}", object["metadata"]["name"].as_str().expect("a name"));
            }
            let next = stored.asked.len().to_string();
            object["metadata"]["uid"] = path.clone().into();
            object["metadata"]["resourceVersion"] = next.into();
            object["metadata"]["generation"] = 1.into();
            let operation = if head.method == Method::POST { "Update" } else { "Apply" };
            object["metadata"]["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": operation,
                "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields_of(&object)}]);
            stored.objects.insert(path, object.clone());
            (200, object)
        };
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        Ok(response)
    }

    /// How many requests came since the last time, and how many of them were writes.
    fn asked(&self) -> (usize, usize) {
        let methods = std::mem::take(&mut self.stored().asked);
        (methods.len(), methods.iter().filter(|method| **method != Method::GET).count())
    }
}

/// The fields that who has written an object owns. Lists are owned as one.
fn fields_of(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    fields
        .map(|(name, below)| (format!("f:{name}"), fields_of(below)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

struct World {
    api: Api,
    client: Client,
    service: EmbeddingService,
    config: Config,
    memory: Mutex<Memory>,
    deployments: Writer<Deployed>,
}

impl World {
    fn new() -> Self {
        let api = Api::default();
        let answers = api.clone();
        let client = Client::new(service_fn(move |request| answers.clone().answer(request)), "search");
        let (_, deployments) = reflector::store();
        let (service, config) = (object(json!({})), config());
        Self { api, client, service, config, memory: Mutex::default(), deployments }
    }

    /// Applies the objects of the service, and says how many requests and writes that took.
    async fn apply(&self) -> (usize, usize) {
        let objects =
            build::build(&validate(&self.service).expect("valid"), &self.config).expect("there are images");
        let applier = Applier {
            client: &self.client,
            service: &self.service.metadata,
            memory: &self.memory,
            deployments: &self.deployments.as_reader(),
        };
        applier.apply(&objects).await.expect("an API server that works");
        self.api.asked()
    }

    /// Whether the service has a NetworkPolicy of its name.
    fn has_policy(&self) -> bool {
        self.api.stored().objects.keys().any(|path| path.contains("/networkpolicies/"))
    }

    /// Another process leads, which remembers nothing.
    fn follow(&mut self) {
        self.memory = Mutex::default();
        self.deployments = reflector::store().1;
    }

    /// The watch tells of the Deployment, as it is stored but for this.
    fn see(&mut self, change: impl FnOnce(&mut Deployed)) {
        let mut deployment = self.stored("deployments", |stored| {
            serde_json::from_value::<Deployed>(stored.clone()).expect("a Deployment")
        });
        change(&mut deployment);
        self.deployments.apply_watcher_event(&watcher::Event::Apply(deployment));
    }

    /// Does something to the object of that kind in the API server.
    fn stored<T>(&self, kind: &str, what: impl FnOnce(&mut Value) -> T) -> T {
        let mut stored = self.api.stored();
        let mut objects = stored.objects.iter_mut();
        what(objects.find(|(path, _)| path.contains(&format!("/{kind}/"))).expect("it was made").1)
    }
}

#[tokio::test]
async fn what_has_not_changed_costs_no_request() {
    let mut world = World::new();
    assert_eq!(world.apply().await, (8, 4), "each of four is looked for and created");
    // The watch has not told of the Deployment yet: it is looked for, made ours, and applied.
    assert_eq!(world.apply().await, (3, 2));
    world.see(|_| ());
    assert_eq!(world.apply().await, (0, 0));
    world.service.spec.replicas = 5;
    assert_eq!(world.apply().await, (2, 1), "the Deployment alone has the count");
}

#[tokio::test]
async fn what_others_changed_is_made_right() {
    let mut world = World::new();
    world.apply().await;
    world.see(|_| ());
    assert_eq!(world.apply().await, (0, 0));
    world.see(|deployment| deployment.metadata.generation = Some(2));
    assert_eq!(world.apply().await, (3, 2), "somebody edited it");
    world.see(|deployment| deployment.metadata.labels = None);
    assert_eq!(world.apply().await, (2, 1), "somebody took its labels");
    // Who annotates the service has everything looked at and applied, also what is not watched.
    world.see(|_| ());
    world.service.metadata.annotations = Some([("look".to_owned(), "again".to_owned())].into());
    assert_eq!(world.apply().await, (11, 7));
}

/// Once, what a user took out of a spec stayed in the Deployment for ever, for it had been created with it.
#[tokio::test]
async fn what_was_created_can_be_taken_away_later() {
    let mut world = World::new();
    world.apply().await;
    world.see(|_| ());
    world.service.spec.replicas = 5;
    assert_eq!(world.apply().await, (3, 2), "it is looked for, made ours, and applied");
    let owners = world.stored("deployments", |stored| stored["metadata"]["managedFields"].take());
    let operations: Vec<&Value> =
        owners.as_array().expect("a list").iter().map(|owner| &owner["operation"]).collect();
    assert_eq!(operations, ["Apply"]);
}

#[tokio::test]
async fn who_leads_next_writes_nothing_where_all_is_as_it_was() {
    let mut world = World::new();
    world.apply().await;
    // As it was created it is made ours before it is applied, and once it was applied it need not be.
    for writes in [2, 1] {
        world.follow();
        assert_eq!(world.apply().await, (4, 0), "each of four is looked at");
        world.see(|_| ());
        assert_eq!(world.apply().await, (0, 0));
        world.follow();
        world.service.spec.replicas += 1;
        assert_eq!(world.apply().await, (4 + writes, writes), "the Deployment alone has the count");
    }
}

/// The kind of an object, and what somebody does to it.
type Edit<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// What others do while nobody leads is undone by who leads next, and all else is left as it is.
#[tokio::test]
async fn who_leads_next_makes_right_what_others_changed_meanwhile() {
    let take = |field: &str, owners: &mut Value| {
        let (parent, name) = field.rsplit_once('/').expect("a path");
        let parent = owners.pointer_mut(&format!("/metadata/managedFields/0/fieldsV1{parent}"));
        parent.and_then(Value::as_object_mut).expect("it is there").remove(name).expect("it was ours");
    };
    let changes: [Edit; 7] = [
        ("deployments", &|object| {
            object["spec"]["replicas"] = json!(7);
            take("/f:spec/f:replicas", object);
        }),
        ("deployments", &|object| {
            object["spec"]["template"]["spec"]["nodeSelector"] = json!({"theirs": "1"});
            object["metadata"]["annotations"][STAMP] = json!("of what was built otherwise");
        }),
        ("networkpolicies", &|object| {
            object["spec"]["egress"][0]["to"] = json!([]);
            take("/f:spec/f:egress", object);
        }),
        ("services", &|object| {
            object["spec"]["externalName"] = json!("elsewhere");
            take("/f:spec/f:externalName", object);
        }),
        ("services", &|object| object["metadata"]["managedFields"] = json!([])),
        ("poddisruptionbudgets", &|object| object["spec"]["maxUnavailable"] = json!(0)),
        ("poddisruptionbudgets", &|object| {
            object["metadata"]["labels"].take();
        }),
    ];
    for (number, (kind, change)) in changes.into_iter().enumerate() {
        let mut world = World::new();
        world.apply().await;
        let spec = world.stored(kind, |stored| stored["spec"].clone());
        world.stored(kind, change);
        world.follow();
        let (asked, writes) = world.apply().await;
        assert!(
            asked == 4 + writes && (1..=2).contains(&writes),
            "change {number} of {kind}: {asked}, {writes}"
        );
        assert_eq!(world.stored(kind, |stored| stored["spec"].clone()), spec, "change {number} of {kind}");
        world.follow();
        assert_eq!(world.apply().await, (4, 0), "change {number} of {kind}");
    }
}

#[tokio::test]
async fn who_leads_next_makes_again_what_is_gone() {
    let mut world = World::new();
    world.apply().await;
    world.api.stored().objects.retain(|path, _| !path.contains("/services/"));
    world.follow();
    assert_eq!(world.apply().await, (5, 1));
    assert!(world.stored("services", |service| service["spec"]["externalName"].is_string()));
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_written_to_though_ours_was_there() {
    let world = World::new();
    world.apply().await;
    let disown = |object: &mut Value| object["metadata"]["ownerReferences"] = json!([]);
    world.api.stored().objects.values_mut().for_each(disown);
    world.api.asked();
    let objects =
        build::build(&validate(&world.service).expect("valid"), &config()).expect("there are images");
    let (memory, deployments) = (Mutex::default(), world.deployments.as_reader());
    let applier = Applier {
        client: &world.client,
        service: &world.service.metadata,
        memory: &memory,
        deployments: &deployments,
    };
    assert!(matches!(applier.apply(&objects).await, Err(ApplyError::NotOurs(_))));
    assert_eq!(world.api.asked().1, 0);
}

/// Once, policies that the platform team had switched off kept pods from their models until each was deleted by hand.
#[tokio::test]
async fn policies_that_are_switched_off_go_and_come_back() {
    let mut world = World::new();
    world.apply().await;
    assert!(world.has_policy());
    world.follow();
    world.config.network_policy.enabled = false;
    assert_eq!(world.apply().await, (5, 1), "each of four is looked at, and the policy deleted");
    assert!(!world.has_policy());
    world.see(|_| ());
    assert_eq!(world.apply().await, (0, 0));
    // The next one looks whether there is one, which is all it does about it.
    world.follow();
    world.see(|_| ());
    assert_eq!(world.apply().await, (4, 0));
    world.follow();
    world.config.network_policy.enabled = true;
    world.apply().await;
    assert!(world.has_policy());
}

#[tokio::test]
async fn a_policy_of_somebody_else_stays_though_ours_are_switched_off() {
    let mut world = World::new();
    world.apply().await;
    world.stored("networkpolicies", |stored| stored["metadata"]["ownerReferences"] = json!([]));
    world.follow();
    world.config.network_policy.enabled = false;
    assert_eq!(world.apply().await, (4, 0));
    assert!(world.has_policy());
}
