//! A model that comes as graphs, as peers ship them: one in 32-bit floats, one in eight bits.

use anyhow::ensure;
use e2e::{
    TempNamespace,
    golden::{self, Shipped, cosine},
    service::{SHIPPED, is_false, of_model, recorded_space, with},
    with_temp_ns,
};
use kembed_crds::conditions::{ConditionType, Reason};
use serde_json::json;

/// A vector is a graph's own from here on. Those of the two graphs are further apart.
const OWN: f64 = 0.999_99;

/// The vectors of all texts, asked for one by one: those of a graph in eight bits depend on what they are batched with.
async fn vectors(ns: &TempNamespace, name: &str, golden: &[Shipped]) -> anyhow::Result<Vec<Vec<f64>>> {
    let base = format!("http://{name}.{}.svc", ns.name);
    let mut vectors = Vec::new();
    for golden in golden {
        vectors.extend(ns.kembed.gateway.embed(&base, name, &[&golden.text]).await?);
    }
    ensure!(vectors.len() == golden.len(), "{} vectors of {} texts", vectors.len(), golden.len());
    Ok(vectors)
}

#[tokio::test]
async fn the_file_that_is_named_is_served() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let uri = format!("hf://{SHIPPED}");
        let file = |file: &str| json!({"model": {"file": file}});
        ns.apply(with(of_model("quantized", &uri), file("onnx/model_quantized.onnx"))).await?;
        ns.apply(with(of_model("plain", &uri), file("onnx/model.onnx"))).await?;
        ns.apply(of_model("unnamed", &uri)).await?;
        // It is computed as it was made.
        let rounded = json!({"model": {"file": "onnx/model.onnx", "precision": "Int8"}});
        ns.apply(with(of_model("rounded", &uri), rounded)).await?;

        let golden = golden::shipped()?;
        let mut digests = Vec::new();
        for name in ["quantized", "plain", "unnamed"] {
            let service = ns.await_serving(name, 1).await?;
            let space = recorded_space(&service)?;
            digests.push(space.digest);
            let info = format!("http://{name}.{}.svc/info", ns.name);
            let info = ns.kembed.gateway.get_of_pod(&info).await?.json()?;
            let rounded = if name == "quantized" { "int8" } else { "float32" };
            ensure!(info["model_dtype"] == rounded, "{name} is of other numbers: {info}");
            for (golden, vector) in golden.iter().zip(vectors(&ns, name, &golden).await?) {
                let (plain, quantized) =
                    (cosine(&golden.vector, &vector), cosine(&golden.quantized, &vector));
                let (own, other) = if name == "quantized" { (quantized, plain) } else { (plain, quantized) };
                ensure!(own > OWN && other < OWN, "{name}, {:?}: cosines {own} and {other}", golden.text);
            }
        }
        ensure!(digests[1] == digests[2] && digests[0] != digests[1], "spaces of two graphs: {digests:?}");
        let unsupported = |emb: &_| is_false(emb, ConditionType::ModelAvailable, Reason::ModelUnsupported);
        ns.await_service("rounded", "it to be refused", unsupported).await?;
        Ok(())
    })
    .await
}
