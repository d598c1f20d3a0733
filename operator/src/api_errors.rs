//! What the API server's errors mean, and how they are told.

use std::{error::Error, iter::successors};

use kube::core::Status;

/// An error and its causes in one line; of what the API server refused its message alone, where the rest of its answer would
/// fill a screen.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = Vec::new();
    for cause in successors(Some(error), |error| (*error).source()) {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            words.push(status.message.clone());
            break;
        }
        words.push(cause.to_string());
    }
    words.join(": ")
}

/// Whether something was refused because its namespace is being deleted, and everything in it.
pub fn namespace_terminates(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to apply {0}")]
    struct Failed(&'static str, #[source] kube::Error);

    /// Once, a line for each refused event had 1,300 characters.
    #[test]
    fn of_what_the_api_server_says_its_message_is_enough() {
        let status = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": "pods is forbidden", "details": {"name": "minilm", "kind": "pods"}});
        let status = serde_json::from_value(status).expect("a status");
        let error = Failed("Deployment minilm", kube::Error::Api(Box::new(status)));
        assert_eq!(words(&error), "failed to apply Deployment minilm: pods is forbidden");
    }

    #[test]
    fn other_causes_follow_what_they_caused() {
        let error = Failed("Deployment minilm", kube::Error::LinesCodecMaxLineLengthExceeded);
        assert_eq!(words(&error), "failed to apply Deployment minilm: Error finding newline character");
    }
}
