//! A service without pods.

use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};

use crate::{client::Answer, namespace::TempNamespace, service::condition, wait::await_that};

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
        let refuses = |answer: &Answer| answer.body.contains("ScaledToZero");
        self.await_gateways("each gateway to know that it sleeps", name, "/info", refuses).await
    }

    /// Asks for a vector of a service that may be at zero.
    ///
    /// # Errors
    /// If another answer comes than a vector.
    pub async fn wake(&self, name: &str) -> anyhow::Result<()> {
        let base = format!("http://{name}.{}.svc", self.name);
        woken(async || self.kembed.gateway.embed(&base, name, &["hello"]).await).await?;
        Ok(())
    }
}

/// What comes of asking a service that may be at zero. A gateway refuses that where the API server takes longer than a
/// moment to answer, as on a machine that does many things at once: then it is asked again, as clients do.
///
/// # Errors
/// Those of `ask` but that refusal.
pub async fn woken<T, F>(mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    await_that("a gateway to find the API server fast enough", || {
        let asked = ask();
        async {
            match asked.await {
                Err(error) if format!("{error:#}").contains("ActivationUnavailable") => Ok(None),
                answered => answered.map(Some),
            }
        }
    })
    .await
}
