//! What a person would look at first when a test has failed.

use crate::command::kubectl;

/// Lines of each log.
const TAIL: &str = "--tail=40";

/// Objects, conditions, events and logs of a namespace, and the last words of the controller.
pub async fn report(namespace: &str) -> String {
    let conditions = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{range .status.conditions[*]}  \
                      {.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}";
    let sections: [(&str, &[&str]); 5] = [
        ("conditions", &["--namespace", namespace, "get", "embeddingservices", "--output", conditions]),
        ("objects", &["--namespace", namespace, "get", "emb,deployments,services,pods", "--output=wide"]),
        ("events", &["--namespace", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"]),
        ("pod logs", &["--namespace", namespace, "logs", "--selector=kembed.dev/service", "--prefix", TAIL]),
        (
            "controller",
            &[
                "--namespace=kembed-system",
                "logs",
                "--selector=app.kubernetes.io/component=controller",
                "--prefix",
                TAIL,
            ],
        ),
    ];
    let mut text = format!("what namespace {namespace} looks like:\n");
    for (title, args) in sections {
        let body = kubectl(args).await.unwrap_or_else(|error| format!("{error:#}"));
        text.push_str(&format!("--- {title}\n{}\n", body.trim_end()));
    }
    text
}
