//! Requests from a pod, by the names that only pods can resolve.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::PostParams};
use serde_json::{Value, json};

use crate::{namespace::TempNamespace, wait::await_that};

/// An image whose only program is curl.
const CURL: &str = "kembed.test/curl:dev";

impl TempNamespace {
    /// Runs curl in a pod of its own and returns what it printed; once more where the cluster's DNS was too busy for it.
    ///
    /// # Errors
    /// If the pod cannot run, or curl fails.
    pub async fn curl(&self, args: &[&str]) -> anyhow::Result<String> {
        await_that("names to be resolved", || async {
            let (is_well, log) = self.curl_once(args).await?;
            // Of several requests the last alone decides how curl ends.
            if log.contains("Could not resolve host") {
                return Ok(None);
            }
            ensure!(is_well, "curl {args:?} failed: {log}");
            Ok(Some(log))
        })
        .await
    }

    /// Whether curl ended well, and what it printed.
    async fn curl_once(&self, args: &[&str]) -> anyhow::Result<(bool, String)> {
        let args = [&["--silent", "--show-error", "--max-time", "240"], args].concat();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "curl-"},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "curl",
                    "image": CURL,
                    "args": args,
                    // Without any it would hardly get to run beside pods that are busy.
                    "resources": {"requests": {"cpu": "10m"}},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        }))
        .expect("it is a pod");
        let pod =
            self.api::<Pod>().create(&PostParams::default(), &pod).await.context("failed to create a pod")?;
        let name = pod.name_any();
        let ended = self
            .await_object(&name, "curl to end", |pod: Option<&Pod>| pod.and_then(ended_well).is_some())
            .await?;
        let pods = self.api::<Pod>();
        // The kubelet has it, and may not have the time at once.
        let log = await_that("curl's output", async || {
            pods.logs(&name, &Default::default()).await.map(Some).context("failed to read curl's output")
        })
        .await?;
        Ok((ended.as_ref().and_then(ended_well) == Some(true), log))
    }

    /// Asks one URL after the other from a pod of its own, with `POST` where there is a body, and gives the answers. All of it
    /// again where no pod was ready for one that does not wait, as [`Client::get_of_pod`](crate::Client::get_of_pod).
    ///
    /// # Errors
    /// If one of them is no success, or no JSON.
    pub async fn ask(&self, requests: &[(&str, Option<Value>)]) -> anyhow::Result<Vec<Value>> {
        let bodies: Vec<_> = requests.iter().map(|(_, body)| body.as_ref().map(Value::to_string)).collect();
        let mut args = Vec::new();
        for ((url, _), body) in requests.iter().zip(&bodies) {
            args.extend(if args.is_empty() { &[][..] } else { &["--next", "--silent", "--show-error"] });
            // No answer has a line break, so that each is one line.
            args.extend(["--fail-with-body", "--write-out", "\n", url]);
            args.extend(body.iter().flat_map(|body| ["--json", body]));
        }
        let output = await_that("a pod to answer", || async {
            match self.curl(&args).await {
                Err(error) if error.to_string().contains("returned error: 503") => Ok(None),
                answered => answered.map(Some),
            }
        })
        .await?;
        let lines = output.lines().filter(|line| !line.is_empty());
        let answers =
            lines.map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")));
        let answers = answers.collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(answers.len() == requests.len(), "{} answers: {output}", answers.len());
        Ok(answers)
    }
}

/// Whether a pod succeeded; `None` while it runs.
fn ended_well(pod: &Pod) -> Option<bool> {
    match pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => Some(true),
        "Failed" => Some(false),
        _ => None,
    }
}
