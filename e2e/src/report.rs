//! What a person would look at first when a test has failed.

use crate::command::kubectl;

/// Lines of each log.
const TAIL: &str = "--tail=40";

/// Objects, conditions, events and logs of a namespace, and the last words of the controller.
pub async fn report(namespace: &str) -> String {
    let conditions = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{range .status.conditions[*]}  \
                      {.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}";
    let sections: [(&str, &[&str]); 4] = [
        ("conditions", &["--namespace", namespace, "get", "embeddingservices", "--output", conditions]),
        ("objects", &["--namespace", namespace, "get", "emb,deployments,services,pods", "--output=wide"]),
        ("events", &["--namespace", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"]),
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
    text.push_str(&logs(namespace).await);
    text
}

/// Of each pod, and of its predecessor where it crashed.
async fn logs(namespace: &str) -> String {
    let pods = kubectl(&["--namespace", namespace, "get", "pods", "--output=name"]).await.unwrap_or_default();
    let mut text = String::new();
    for pod in pods.lines() {
        for which in ["--previous=false", "--previous=true"] {
            // One that has not started, or never crashed, has no such log.
            if let Ok(log) = kubectl(&["--namespace", namespace, "logs", pod, which, TAIL]).await {
                text.push_str(&format!("--- log of {pod} {which}\n{}\n", log.trim_end()));
            }
        }
    }
    text
}
