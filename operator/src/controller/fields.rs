//! Whose the fields of an object are, to the API server. Pure.
//!
//! An object is created, so that it is never merged into somebody else's, and applied from then on. Those are two owners of its fields,
//! though of one name: what a later apply leaves out would stay, for who created it owns it still.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::{Map, Value};

/// The owners of an object's fields when what `manager` has created belongs to what it applies. Nothing where it does already.
pub fn adopted(found: &ObjectMeta, manager: &str) -> Option<Vec<ManagedFieldsEntry>> {
    let is = |entry: &ManagedFieldsEntry, operation: &str| {
        entry.manager.as_deref() == Some(manager)
            && entry.operation.as_deref() == Some(operation)
            && entry.subresource.is_none()
    };
    let entries = found.managed_fields.iter().flatten().cloned();
    let (created, mut owners): (Vec<_>, Vec<_>) = entries.partition(|entry| is(entry, "Update"));
    if created.is_empty() {
        return None;
    }
    for entry in created {
        let same =
            |owner: &&mut ManagedFieldsEntry| is(owner, "Apply") && owner.api_version == entry.api_version;
        match (owners.iter_mut().find(same).and_then(|owner| owner.fields_v1.as_mut()), entry.fields_v1) {
            (Some(applied), Some(fields)) => unite(&mut applied.0, fields.0),
            (_, fields_v1) => {
                let operation = Some("Apply".to_owned());
                owners.push(ManagedFieldsEntry { operation, fields_v1, ..entry });
            }
        }
    }
    Some(owners)
}

/// Whether an object is as it was built, if it was built so when `manager` wrote it last: nobody has taken a field of it
/// since. `found` is the object with this metadata.
///
/// What was written may be read otherwise (`0.5` of a core as `500m`), so a string is known by its owner alone.
pub fn keeps(meta: &ObjectMeta, manager: &str, found: &Value, built: &Value) -> bool {
    let mut owned = Value::Object(Map::new());
    for entry in meta.managed_fields.iter().flatten() {
        let ours = entry.manager.as_deref() == Some(manager) && entry.subresource.is_none();
        if let Some(fields) = entry.fields_v1.as_ref().filter(|_| ours) {
            unite(&mut owned, fields.0.clone());
        }
    }
    let (Some(owned), Some(fields)) = (owned.as_object(), built.as_object()) else { return false };
    !owned.is_empty()
        && fields.iter().all(|(name, built)| match (name.as_str(), built) {
            // What an object is called belongs to nobody.
            ("apiVersion" | "kind", _) => true,
            ("metadata", Value::Object(built)) => {
                let mut built = built.clone();
                built.retain(|name, _| !matches!(name.as_str(), "name" | "namespace"));
                owns(owned, found, name, &Value::Object(built))
            }
            _ => owns(owned, found, name, built),
        })
}

/// Whether a field of an object is owned and as built.
fn owns(owned: &Map<String, Value>, found: &Value, name: &str, built: &Value) -> bool {
    match (owned.get(&format!("f:{name}")).and_then(Value::as_object), found.get(name)) {
        (Some(owned), Some(found)) => covers(owned, found, built),
        _ => is_empty_list(built),
    }
}

/// Whether what is built here is owned and as built.
fn covers(owned: &Map<String, Value>, found: &Value, built: &Value) -> bool {
    match built {
        // Owned as one, or all that was owned below is somebody else's now.
        Value::Object(_) | Value::Array(_) if owned.is_empty() => holds(found, built),
        Value::Object(fields) => fields.iter().all(|(name, built)| owns(owned, found, name, built)),
        Value::Array(items) => items.iter().all(|built| {
            let is = |(name, _): &(&String, &Value)| is_item(name, built);
            let owned = owned.iter().find(is).and_then(|(name, owned)| Some((name, owned.as_object()?)));
            let found = found.as_array().into_iter().flatten();
            owned.is_some_and(|(name, owned)| {
                found.filter(|found| is_item(name, found)).any(|found| covers(owned, found, built))
            })
        }),
        Value::String(_) => found.is_string(),
        _ => found == built,
    }
}

/// Whether an item of a list is called so: by some of its fields, or by itself.
fn is_item(name: &str, item: &Value) -> bool {
    let parsed = |json: &str| serde_json::from_str::<Value>(json).ok();
    match name.split_once(':') {
        Some(("k", fields)) => parsed(fields).is_some_and(|fields| {
            let mut fields = fields.as_object().into_iter().flatten();
            fields.all(|(name, value)| item.get(name) == Some(value))
        }),
        Some(("v", value)) => parsed(value).as_ref() == Some(item),
        _ => false,
    }
}

/// Whether all that is built is found; what the API server has added to objects says nothing.
fn holds(found: &Value, built: &Value) -> bool {
    match (found, built) {
        (Value::Object(found), Value::Object(built)) => built.iter().all(|(name, built)| {
            found.get(name).map_or_else(|| is_empty_list(built), |found| holds(found, built))
        }),
        (Value::Array(found), Value::Array(built)) => {
            found.len() == built.len() && found.iter().zip(built).all(|(found, built)| holds(found, built))
        }
        _ => found == built,
    }
}

/// The API server keeps none.
fn is_empty_list(built: &Value) -> bool {
    built.as_array().is_some_and(Vec::is_empty)
}

/// A set of fields is a tree of objects.
fn unite(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        for (field, below) in from {
            unite(into.entry(field).or_insert_with(|| Value::Object(Default::default())), below);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
            "fieldsV1": fields})
    }

    fn of(entries: &[Value]) -> Option<Value> {
        let meta = serde_json::from_value(json!({"managedFields": entries})).expect("metadata");
        adopted(&meta, "us").map(|owners| json!(owners))
    }

    #[test]
    fn what_was_created_is_as_what_is_applied() {
        let created = entry("us", "Update", json!({"f:spec": {"f:replicas": {}}}));
        let theirs = entry("them", "Update", json!({"f:metadata": {}}));
        let applied = entry("us", "Apply", json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(of(&[created, theirs.clone()]), Some(json!([theirs, applied])));
    }

    #[test]
    fn what_was_applied_since_is_united_with_it() {
        let created = entry("us", "Update", json!({"f:spec": {"f:env": {".": {}, "k:a": {}}}}));
        let applied = entry("us", "Apply", json!({"f:spec": {"f:env": {"k:b": {}}, "f:image": {}}}));
        let both = json!({"f:spec": {"f:env": {".": {}, "k:a": {}, "k:b": {}}, "f:image": {}}});
        assert_eq!(of(&[applied, created]), Some(json!([entry("us", "Apply", both)])));
    }

    #[test]
    fn who_has_only_applied_or_writes_the_status_is_left_alone() {
        let mut status = entry("us", "Update", json!({"f:status": {}}));
        status["subresource"] = "status".into();
        assert_eq!(of(&[entry("us", "Apply", json!({})), entry("them", "Update", json!({})), status]), None);
        assert_eq!(of(&[]), None);
    }

    fn built() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "s", "namespace": "t", "labels": {"a": "1"}},
            "spec": {"replicas": 2, "limits": {"cpu": "0.5"}, "selector": {"app": "s"}, "args": ["x"], "none": [],
                "env": [{"name": "E", "value": "1"}]}})
    }

    /// As the API server answers: with defaults, and what others have added.
    fn found() -> Value {
        json!({"metadata": {"name": "s", "namespace": "t", "labels": {"a": "1", "theirs": "2"}},
            "spec": {"replicas": 2, "limits": {"cpu": "500m"}, "selector": {"app": "s"}, "args": ["x"], "default": true,
                "env": [{"name": "X"}, {"name": "E", "value": "1", "default": 1}]}, "status": {"replicas": 1}})
    }

    /// The fields that are owned by who has created it.
    fn owned() -> Value {
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:limits": {".": {}, "f:cpu": {}}, "f:selector": {}, "f:args": {}, "f:default": {},
                "f:env": {".": {}, r#"k:{"name":"E"}"#: {".": {}, "f:name": {}, "f:value": {}, "f:default": {}}}}})
    }

    /// Whether it is kept when the fields that we own, and what is found, are changed so.
    fn kept(own: impl FnOnce(&mut Value), find: impl FnOnce(&mut Value)) -> bool {
        let (mut owned, mut found) = (owned(), found());
        own(&mut owned);
        find(&mut found);
        let theirs = entry("them", "Update", json!({"f:metadata": {"f:labels": {"f:theirs": {}}}}));
        let meta = json!({"managedFields": [theirs, entry("us", "Update", owned)]});
        let meta = serde_json::from_value(meta).expect("metadata");
        keeps(&meta, "us", &found, &built())
    }

    #[test]
    fn what_nobody_has_touched_is_kept() {
        assert!(kept(|_| (), |_| ()));
        let meta = |owned: Value| serde_json::from_value(json!({"managedFields": owned})).expect("metadata");
        let halves = [
            entry("us", "Apply", json!({"f:metadata": owned()["f:metadata"]})),
            entry("us", "Update", json!({"f:spec": owned()["f:spec"]})),
        ];
        assert!(keeps(&meta(json!(halves)), "us", &found(), &built()), "it is ours in two ways");
        assert!(!keeps(&meta(json!([halves[0]])), "us", &found(), &built()));
        assert!(!keeps(&meta(json!([entry("them", "Apply", owned())])), "us", &found(), &built()));
        assert!(!keeps(&ObjectMeta::default(), "us", &found(), &built()), "nobody says whose it is");
    }

    #[test]
    fn what_others_have_taken_is_not_kept() {
        for taken in [
            "/f:spec/f:replicas",
            "/f:spec/f:selector",
            "/f:spec/f:args",
            "/f:spec/f:limits/f:cpu",
            "/f:spec/f:env/k:{\"name\":\"E\"}/f:value",
            "/f:spec/f:env/k:{\"name\":\"E\"}",
            "/f:metadata/f:labels/f:a",
        ] {
            let (parent, name) = taken.rsplit_once('/').expect("a path");
            let take = |owned: &mut Value| {
                let parent = owned.pointer_mut(parent).and_then(Value::as_object_mut).expect("it is there");
                assert!(parent.remove(name).is_some(), "{taken}");
            };
            assert!(!kept(take, |_| ()), "{taken}");
        }
    }

    /// Who loses all fields below one owns it as if it were one.
    #[test]
    fn what_is_owned_as_one_is_compared() {
        let lost = |owned: &mut Value| owned["f:metadata"]["f:labels"] = json!({});
        assert!(kept(lost, |_| ()));
        assert!(!kept(lost, |found| found["metadata"]["labels"]["a"] = json!("3")));
        assert!(!kept(lost, |found| found["metadata"]["labels"] = json!({"theirs": "2"})));
        assert!(!kept(|_| (), |found| found["spec"]["args"] = json!(["x", "y"])));
        assert!(!kept(|_| (), |found| found["spec"]["replicas"] = json!(3)), "a count is compared");
        assert!(!kept(|_| (), |found| found["spec"]["env"] = json!([{"name": "X"}])));
    }
}
