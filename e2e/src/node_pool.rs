//! Nodes that Karpenter buys for the pods of one test. They are fake: their pods only pretend to run, and
//! [`stub::fake_nodes`](crate::stub::fake_nodes) answers for them.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    TempNamespace,
    command::{cluster, kubectl, kubectl_with},
    stub::fake_nodes,
};

/// Label of nodes, and what pods that want them select.
const POOL: &str = "kembed.test/pool";

/// Nodes with place for one pod each.
const INSTANCE_TYPE: &str = "g-1x-amd64-linux";

/// What those have one of.
pub const GPU: &str = "nvidia.com/gpu";

/// Tests that need Karpenter. It runs only meanwhile: where it does, every pod without a node has its word in events.
static KARPENTER: Mutex<usize> = Mutex::const_new(0);

/// What may be bought for one test.
#[derive(Clone, Debug)]
pub struct NodePool {
    name: String,
}

impl NodePool {
    /// Has nodes bought, and taken back when they are empty, while `test` runs. Afterwards none is left.
    ///
    /// # Errors
    /// Those of the test, and if Karpenter cannot be started.
    pub async fn with<F>(ns: &TempNamespace, test: impl FnOnce(Self) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        fake_nodes::answer().await?;
        start().await?;
        let pool = Self { name: ns.name.clone() };
        let result = match pool.buy_after(Duration::ZERO).await.and(pool.apply(json!({})).await) {
            Ok(()) => std::panic::AssertUnwindSafe(test(pool.clone())).catch_unwind().await,
            Err(error) => Ok(Err(error)),
        };
        let ended = pool.end().await;
        let ended = ended.and(stop().await);
        match result {
            Ok(result) => result.and(ended),
            Err(panicked) => std::panic::resume_unwind(panicked),
        }
    }

    /// How long a node takes from now on.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn buy_after(&self, delay: Duration) -> anyhow::Result<()> {
        apply(&json!({
            "apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": self.name},
            "spec": {"nodeRegistrationDelay": format!("{}s", delay.as_secs())},
        }))
        .await
    }

    /// So many nodes may be there at most.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn limit(&self, nodes: u32) -> anyhow::Result<()> {
        self.apply(json!({GPU: nodes.to_string()})).await
    }

    async fn apply(&self, limits: Value) -> anyhow::Result<()> {
        let only = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
        let name = &self.name;
        apply(&json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": name},
            "spec": {
                "limits": limits,
                "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "1s"},
                "template": {
                    "metadata": {"labels": {"type": "kwok", POOL: name}},
                    "spec": {
                        "taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}],
                        "requirements": [
                            only("karpenter.sh/capacity-type", "on-demand"),
                            only("node.kubernetes.io/instance-type", INSTANCE_TYPE),
                        ],
                        "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": name},
                        "expireAfter": "Never",
                    },
                },
            },
        }))
        .await
    }

    /// What a service's spec needs so that its pods run on these nodes, one on each.
    pub fn spec(&self) -> Value {
        json!({
            "accelerator": {"resource": {"name": GPU}},
            "podTemplate": {
                "nodeSelector": {POOL: self.name},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            },
        })
    }

    /// Names of the nodes that are there.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let mine = format!("--selector={POOL}={}", self.name);
        let names = "--output=jsonpath={.items[*].metadata.name}";
        let nodes = kubectl(&["get", "nodes", &mine, names]).await?;
        Ok(nodes.split_whitespace().map(str::to_owned).collect())
    }

    /// Services first: a node ends when its last pod has gone.
    async fn end(&self) -> anyhow::Result<()> {
        kubectl(&["--namespace", &self.name, "delete", "emb", "--all"]).await?;
        kubectl(&["delete", "nodepool", &self.name, "--timeout=240s"]).await?;
        kubectl(&["delete", "kwoknodeclass", &self.name, "--timeout=240s"]).await?;
        Ok(())
    }
}

async fn apply(object: &Value) -> anyhow::Result<()> {
    kubectl_with(&["apply", "--filename=-"], &object.to_string()).await?;
    Ok(())
}

async fn start() -> anyhow::Result<()> {
    let mut users = KARPENTER.lock().await;
    if *users == 0 {
        cluster(&["karpenter"]).await.context("failed to start Karpenter")?;
    }
    *users += 1;
    Ok(())
}

async fn stop() -> anyhow::Result<()> {
    let mut users = KARPENTER.lock().await;
    *users -= 1;
    if *users == 0 {
        cluster(&["stop", "karpenter"]).await?;
        cluster(&["stop", "kwok"]).await?;
    }
    Ok(())
}
