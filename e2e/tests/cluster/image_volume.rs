//! A model that comes as an image.

use anyhow::ensure;
use e2e::{
    golden::{self, assert_right},
    service::of_model,
    with_temp_ns,
};

#[tokio::test]
async fn its_files_are_a_volume_of_the_pod() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(of_model("minilm", "image://kembed.test/minilm:1")).await?;
        ns.await_serving("minilm", 1).await?;
        let golden = &golden::all()?[0];
        let base = format!("http://minilm.{}.svc", ns.name);
        let vectors = ns.kembed.gateway.embed(&base, "minilm", &[&golden.text]).await?;
        ensure!(vectors.len() == 1, "{} vectors", vectors.len());
        assert_right(golden, &vectors[0]);
        Ok(())
    })
    .await
}
