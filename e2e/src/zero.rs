//! A service without pods.

use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};

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
}
