//! What the programs asked of the API server while the other tests ran, compared with what they may ask.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use e2e::{
    command::cluster,
    installation::{NAMESPACE, installation},
};
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        rbac::v1::{ClusterRole, PolicyRule, Role},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, api::ListParams};
use serde::Deserialize;

/// `verb group/resource[/subresource]`.
type Verbs = BTreeSet<String>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: Time,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    api_group: String,
    resource: String,
    subresource: Option<String>,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: u16,
}

#[tokio::test]
async fn every_verb_that_is_allowed_is_used_and_none_is_refused() -> anyhow::Result<()> {
    let kembed = installation().await?;
    for account in ["kembed-controller", "kembed-gateway"] {
        let events = events(&kembed.kube, account).await?;
        let (refused, let_through): (Vec<_>, Vec<_>) = events.iter().partition(|event| forbidden(event));
        let [refused, let_through] =
            [refused, let_through].map(|events| events.into_iter().flat_map(used).collect::<Verbs>());
        // What the rules allow may be refused in their first moments: the API server learns of them as everybody does.
        let refused: Vec<_> = refused.difference(&let_through).collect();
        ensure!(refused.is_empty(), "{account} was refused {refused:?}");
        let used: Verbs = events.iter().flat_map(used).collect();
        let allowed = allowed(&kembed.kube, account).await?;
        let unused: Vec<_> = allowed.difference(&used).collect();
        ensure!(unused.is_empty(), "{account} never used {unused:?}: its rules allow more than it needs");
        // What everybody may do, such as to ask for the API's version, is in no rule of ours.
        let others: Vec<_> = used.difference(&allowed).collect();
        ensure!(others.is_empty(), "{account} used {others:?}, which its own rules do not allow");
    }
    Ok(())
}

/// Requests of an account since its program and its rules are those of now.
async fn events(kube: &kube::Client, account: &str) -> anyhow::Result<Vec<Event>> {
    let replica_sets = Api::<ReplicaSet>::namespaced(kube.clone(), NAMESPACE);
    let component = account.trim_start_matches("kembed-");
    let mine = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    let made = replica_sets.list(&mine).await?.into_iter().filter_map(|set| set.metadata.creation_timestamp);
    let role = Api::<ClusterRole>::all(kube.clone()).get(account).await?;
    let written = role.metadata.managed_fields.into_iter().flatten().filter_map(|entry| entry.time);
    let since = made.chain(written).max().with_context(|| format!("{component} is not installed"))?;

    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let log = cluster(&["logs", "audit"]).await?;
    let mut events = Vec::new();
    // The last line may be half written.
    for line in log.lines().filter(|line| line.contains(&user) && line.ends_with('}')) {
        let event: Event =
            serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
        if event.user.username == user && event.request_received_timestamp >= since {
            events.push(event);
        }
    }
    ensure!(!events.is_empty(), "the audit log holds nothing of {user}");
    Ok(events)
}

/// Whether a rule was missing. Other refusals, as in a namespace that is being deleted, are not meant.
fn forbidden(event: &Event) -> bool {
    event.annotations.get("authorization.k8s.io/decision").is_some_and(|decision| decision == "forbid")
}

fn code(event: &Event) -> u16 {
    event.response_status.as_ref().map_or(0, |status| status.code)
}

/// What an event used: a patch that made its object needed the right to create it too.
fn used(event: &Event) -> Vec<String> {
    let Some(object) = &event.object_ref else {
        return Vec::new();
    };
    let subresource = object.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    let resource = format!("{}/{}{subresource}", object.api_group, object.resource);
    let created = event.verb == "patch" && code(event) == 201;
    let verbs = [Some(event.verb.as_str()), created.then_some("create")];
    verbs.into_iter().flatten().map(|verb| format!("{verb} {resource}")).collect()
}

async fn allowed(kube: &kube::Client, account: &str) -> anyhow::Result<Verbs> {
    let everywhere = Api::<ClusterRole>::all(kube.clone()).get(account).await?.rules.unwrap_or_default();
    let here = Api::<Role>::namespaced(kube.clone(), NAMESPACE).get_opt(account).await?;
    let here = here.and_then(|role| role.rules).unwrap_or_default();
    Ok(everywhere.iter().chain(&here).flat_map(verbs).collect())
}

fn verbs(rule: &PolicyRule) -> Vec<String> {
    let (groups, resources) =
        (rule.api_groups.iter().flatten(), rule.resources.as_deref().unwrap_or_default());
    let objects =
        groups.flat_map(|group| resources.iter().map(move |resource| format!("{group}/{resource}")));
    objects.flat_map(|object| rule.verbs.iter().map(move |verb| format!("{verb} {object}"))).collect()
}
