//! A service without pods.

use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};

use serde_json::json;

use crate::{namespace::TempNamespace, service::condition, wait::await_that};

impl TempNamespace {
    /// Takes the last pod of a service that scales away, and waits until all know.
    ///
    /// # Errors
    /// If somebody does not hear of it.
    pub async fn to_zero(&self, name: &str) -> anyhow::Result<()> {
        self.kubectl(&["scale", &format!("emb/{name}"), "--replicas=0"]).await?;
        let asleep = |emb: &EmbeddingService| {
            let ready = condition(emb, ConditionType::Ready);
            ready.is_some_and(|ready| ready.status == "True" && ready.reason == Reason::ScaledToZero.as_str())
                && emb.status.as_ref().is_some_and(|status| status.replicas == 0)
        };
        self.await_service(name, "the service to sleep", asleep).await?;
        let url = format!("http://{name}.{}.svc:8080/info", self.name);
        for gateway in self.kembed.gateways().await? {
            let refuses = async || Ok(gateway.get(&url).await?.body.contains("ScaledToZero").then_some(()));
            await_that("each gateway to know that it sleeps", refuses).await?;
        }
        Ok(())
    }

    /// Asks for a vector of a service that may be at zero. A gateway refuses that where the API server takes longer than a
    /// moment to answer, as on a machine that does many things at once: then it is asked again.
    ///
    /// # Errors
    /// If another answer comes than a vector.
    pub async fn wake(&self, name: &str) -> anyhow::Result<()> {
        let url = format!("http://{name}.{}.svc/v1/embeddings", self.name);
        let body = json!({"model": name, "input": "hello"});
        await_that("a gateway to find the API server fast enough", || async {
            let answer = self.kembed.gateway.post(&url, body.clone()).await?;
            let is_slow = answer.body.contains("ActivationUnavailable");
            if is_slow { Ok(None) } else { answer.success().map(|_| Some(())) }
        })
        .await
    }
}
