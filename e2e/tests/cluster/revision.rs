//! The model's branch moves while it is served.

use anyhow::ensure;
use e2e::{
    hub::repo::Access,
    service::{of_model, recorded_space},
    with_temp_ns,
};

#[tokio::test]
async fn later_pods_load_the_recorded_revision() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let (hub, repo) = (&ns.kembed.hub, format!("{}/moving", ns.name));
        let first = hub.create(&repo, Access::Public).await?;
        ns.apply(of_model("moving", &format!("hf://{repo}@main"))).await?;
        let service = ns.await_serving("moving", 1).await?;
        let recorded = recorded_space(&service)?;
        ensure!(recorded.revision.as_deref() == Some(first.as_str()), "{recorded:?} was loaded, not {first}");

        // Mean pooling becomes that of the first token: other vectors.
        let pooling = r#"{"word_embedding_dimension": 384, "pooling_mode_cls_token": true}"#;
        let second = hub.commit(&repo, "1_Pooling/config.json", pooling).await?;
        ensure!(second != first, "the branch did not move");
        ns.kubectl(&["scale", "emb/moving", "--replicas=2"]).await?;
        let service = ns.await_serving("moving", 2).await?;
        let later = recorded_space(&service)?;
        ensure!(later == recorded, "the recorded space became {later:?}");
        let seen = hub.requests(&format!("/{repo}/resolve/")).await?;
        let others: Vec<_> = seen.iter().filter(|seen| !seen.path.contains(&first)).collect();
        ensure!(
            others.is_empty(),
            "files were asked for by another name than the recorded revision: {others:?}"
        );

        // A service that begins now has the other space.
        ns.apply(of_model("moved", &format!("hf://{repo}@main"))).await?;
        let moved = ns.await_serving("moved", 1).await?;
        let moved = recorded_space(&moved)?;
        ensure!(moved.revision.as_deref() == Some(second.as_str()), "{moved:?} was loaded, not {second}");
        ensure!(moved.digest != recorded.digest, "another pooling has the same digest");
        Ok(())
    })
    .await
}
