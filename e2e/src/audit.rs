//! What kembed's controller asked of the API server, by its audit log.

use anyhow::Context;
use serde_json::Value;

use crate::command::cluster;

/// As it is called by the API server.
pub const ACCOUNT: &str = "system:serviceaccount:kembed-system:kembed-controller";

/// What it has changed of the objects of that name in this namespace: their kinds in plural, once for each write. What it makes
/// and what it tells in a status is not among them.
///
/// # Errors
/// If there is no log.
pub async fn changes(namespace: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let log = cluster(&["logs", "audit"]).await?;
    // The last line may be half written.
    let whole = log.lines().filter(|line| line.ends_with('}'));
    let ours = whole.filter(|line| line.contains(ACCOUNT) && line.contains(namespace));
    let requests = ours.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let requests = requests.context("a line of the audit log is no JSON")?;
    Ok(requests.iter().filter_map(|request| changed(request, namespace, name)).collect())
}

/// The kind of object that a request changes, if it is called so.
fn changed(request: &Value, namespace: &str, name: &str) -> Option<String> {
    let object = &request["objectRef"];
    let changes = matches!(request["verb"].as_str()?, "patch" | "update" | "delete");
    let ours =
        object["namespace"] == namespace && object["name"] == name && object["subresource"] != "status";
    (changes && ours).then(|| object["resource"].as_str().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_and_what_is_told_are_no_changes() {
        let changed = |verb: &str, namespace: &str, subresource: Option<&str>| {
            let object = json!({"namespace": namespace, "name": "s", "resource": "services", "subresource": subresource});
            changed(&json!({"verb": verb, "objectRef": object}), "ns", "s")
        };
        assert_eq!(changed("patch", "ns", None), Some("services".into()));
        assert_eq!(changed("patch", "ns", Some("scale")), Some("services".into()));
        assert_eq!(changed("patch", "another", None), None);
        assert_eq!(changed("get", "ns", None), None);
        assert_eq!(changed("patch", "ns", Some("status")), None);
    }
}
