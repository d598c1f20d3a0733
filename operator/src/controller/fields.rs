//! Whose the fields of an object are, to the API server. Pure.
//!
//! An object is created, so that it is never merged into somebody else's, and applied from then on. Those are two owners of its fields,
//! though of one name: what a later apply leaves out would stay, for who created it owns it still.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

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
}
