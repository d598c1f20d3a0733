//! What a person would look at first when a test has failed: little enough that its error, which comes after it, is found.

use std::any::Any;

use crate::command::run;

/// Lines of each section, the last of it.
const LINES: usize = 16;

/// Lines of each pod's log.
const LOG_LINES: usize = 6;

/// Characters of a line.
const WIDTH: usize = 220;

/// Pods whose logs are shown.
const PODS: usize = 4;

/// Objects, conditions, events and logs of a namespace, and the last words of the controller about it.
pub async fn report(namespace: &str) -> String {
    let conditions = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{range .status.conditions[*]}  \
                      {.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}";
    let events = "custom-columns=FIRST:.metadata.creationTimestamp,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message";
    let sections: [(&str, &[&str]); 3] = [
        ("objects", &["get", "emb,deployments,pods"]),
        ("events", &["get", "events", "--sort-by=.metadata.creationTimestamp", "--output", events]),
        ("conditions", &["get", "embeddingservices", "--output", conditions]),
    ];
    let mut text = format!("what namespace {namespace} looks like:\n");
    for (title, args) in sections {
        text.push_str(&section(title, &kubectl(namespace, args).await, LINES));
    }
    text.push_str(&section("controller", &controller(namespace).await, LINES));
    text.push_str(&logs(namespace).await);
    text
}

/// What somebody who panicked said.
pub fn words(panicked: &(dyn Any + Send)) -> &str {
    let text = panicked.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// Asked once: whoever is not there now is not waited for.
async fn kubectl(namespace: &str, args: &[&str]) -> String {
    let args = [&["--namespace", namespace, "--request-timeout=30s"], args].concat();
    run("kubectl", &args, "").await.unwrap_or_else(|error| format!("{error:#}"))
}

/// What controllers said of this namespace, and what they said of none.
async fn controller(namespace: &str) -> String {
    let args = ["logs", "--selector=app.kubernetes.io/component=controller", "--tail=1000"];
    let log = kubectl("kembed-system", &args).await;
    let is_meant = |line: &&str| line.contains(namespace) || !line.contains("kembed-test-");
    log.lines().filter(is_meant).collect::<Vec<_>>().join("\n")
}

/// Of each pod, and of its predecessor where it crashed.
async fn logs(namespace: &str) -> String {
    let pods = kubectl(namespace, &["get", "pods", "--output=name"]).await;
    let tail = format!("--tail={LOG_LINES}");
    let mut text = String::new();
    for pod in pods.lines().take(PODS) {
        for which in ["--previous=false", "--previous=true"] {
            let args = ["--namespace", namespace, "logs", pod, which, &tail];
            // One that has not started, or never crashed, has no such log.
            if let Ok(log) = run("kubectl", &args, "").await {
                text.push_str(&section(&format!("log of {pod} {which}"), &log, LOG_LINES));
            }
        }
    }
    text
}

fn section(title: &str, body: &str, most: usize) -> String {
    let lines: Vec<&str> = body.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut text = format!("--- {title}\n");
    for line in &lines[lines.len().saturating_sub(most)..] {
        text.extend(line.chars().take(WIDTH));
        text.push_str(if line.chars().nth(WIDTH).is_some() { "...\n" } else { "\n" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_short() {
        assert_eq!(section("log", "a\n\nb\nc\n", 2), "--- log\nb\nc\n");
        let long = section("log", &"x".repeat(WIDTH + 1), 2);
        assert_eq!(long, format!("--- log\n{}...\n", "x".repeat(WIDTH)));
    }

    #[test]
    fn who_panics_says_something() {
        let said: [Box<dyn Any + Send>; 3] = [Box::new("a"), Box::new("b".to_owned()), Box::new(1)];
        assert_eq!(said.each_ref().map(|said| words(&**said)), ["a", "b", "without a word"]);
    }
}
