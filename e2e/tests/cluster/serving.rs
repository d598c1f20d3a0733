//! From `kubectl apply` to the right vectors.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    client::vectors,
    command::{kubectl, repository},
    golden::{self, Golden, assert_right, cosine},
    service::{RERANKER, condition, minilm, of_model, recorded_space, with},
    wait::await_that,
    with_temp_ns,
};
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use serde::Deserialize;
use serde_json::json;

/// What `/rerank` answers of a text.
#[derive(Debug, Deserialize)]
struct Rank {
    index: usize,
    score: f64,
}

/// Texts in several scripts, all well within every limit on tokens.
fn some_golden() -> anyhow::Result<Vec<Golden>> {
    let all = golden::all()?;
    Ok([0, 4, 17, 21, 37, 41].into_iter().filter_map(|i| all.get(i).cloned()).collect())
}

async fn ready(ns: &TempNamespace) -> anyhow::Result<EmbeddingService> {
    ns.apply(minilm("minilm")).await?;
    ns.await_serving("minilm", 1).await
}

#[tokio::test]
async fn pods_get_the_right_vectors_by_every_name_of_the_service() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let service = ready(&ns).await?;
        let url = service.status.and_then(|status| status.url).context("a ready service without a URL")?;
        let golden = some_golden()?;
        let texts: Vec<_> = golden.iter().map(|golden| golden.text.as_str()).collect();
        let body = json!({"model": "minilm", "input": texts}).to_string();
        let full = format!("http://minilm.{}.svc.cluster.local", ns.name);
        let bases =
            [format!("http://minilm.{}", ns.name), format!("http://minilm.{}.svc", ns.name), full, url];

        let mut args: Vec<&str> = Vec::new();
        let urls = bases.map(|base| format!("{}/v1/embeddings", base.trim_end_matches('/')));
        for url in &urls {
            let separator = if args.is_empty() { &[][..] } else { &["--next"] };
            args.extend(separator);
            args.extend(["--fail-with-body", "--write-out", "\n", "--json", &body, url]);
        }
        let output = ns.curl(&args).await?;
        let answers: Vec<_> = output.lines().filter(|line| !line.is_empty()).collect();
        ensure!(answers.len() == urls.len(), "of {} answers came {}: {output}", urls.len(), answers.len());
        for answer in answers {
            let vectors = vectors(answer)?;
            ensure!(vectors.len() == golden.len(), "{} vectors for {} texts", vectors.len(), golden.len());
            golden.iter().zip(&vectors).for_each(|(golden, vector)| assert_right(golden, vector));
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_gateway_routes_by_host_path_and_model() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ready(&ns).await?;
        let (gateway, golden) = (&ns.kembed.gateway, some_golden()?);
        let texts: Vec<_> = golden.iter().map(|golden| golden.text.as_str()).collect();
        let own = "http://kembed-gateway.kembed-system.svc".to_owned();
        let routes = [
            (format!("http://minilm.{}", ns.name), "any".to_owned()),
            (format!("{own}/{}/minilm", ns.name), "any".to_owned()),
            (own, format!("{}/minilm", ns.name)),
        ];
        for (base, model) in routes {
            let vectors =
                gateway.embed(&base, &model, &texts).await.with_context(|| format!("through {base}"))?;
            golden.iter().zip(&vectors).for_each(|(golden, vector)| assert_right(golden, vector));
        }
        Ok(())
    })
    .await
}

/// As an Ingress or an HTTPRoute sends them: to the gateway's Service, by path, with the host that the client asked for.
#[tokio::test]
async fn under_a_foreign_host_the_path_leads_there() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ready(&ns).await?;
        let golden = &some_golden()?[0];
        let body = json!({"model": "any", "input": golden.text}).to_string();
        let path = format!("{}/minilm/v1/embeddings", ns.name);
        let url = format!("http://kembed-gateway.kembed-system/{path}");
        let args = ["--fail-with-body", "--header", "Host: vectors.example.com", "--json", &body, &url];
        assert_right(golden, &vectors(&ns.curl(&args).await?)?[0]);
        let foreign = format!("http://vectors.example.com/{}/minilm", ns.name);
        let vector = &ns.kembed.gateway.embed(&foreign, "any", &[&golden.text]).await?[0];
        assert_right(golden, vector);

        // What the API server takes, and nothing in it that it does not know.
        let sample = repository("docs/samples/ingress.yaml");
        kubectl(&["apply", "--dry-run=server", "--validate=strict", "--filename", &sample]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn plain_gets_answer_one_vector() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ready(&ns).await?;
        let golden = &some_golden()?[0];
        let base = format!("http://minilm.{}.svc", ns.name);
        for query in ["?content=", "get_vector_simple?sentence="] {
            let url = format!("{base}/{query}{}", golden.text.replace(' ', "%20"));
            let answer = ns.kembed.gateway.get(&url).await?.success()?.json()?;
            let vector: Vec<f64> = serde_json::from_value(answer["vector"].clone()).context("no vector")?;
            assert_right(golden, &vector);
        }
        let models = ns.kembed.gateway.get_of_pod(&format!("{base}/v1/models")).await?.json()?;
        ensure!(models["data"].as_array().is_some_and(|models| models.len() == 1), "not one model: {models}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn eight_bits_are_enough() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("rounded"), json!({"model": {"precision": "Int8"}}))).await?;
        ns.await_serving("rounded", 1).await?;
        let (gateway, base) = (&ns.kembed.gateway, format!("http://rounded.{}.svc", ns.name));
        let info = gateway.get_of_pod(&format!("{base}/info")).await?.json()?;
        ensure!(info["model_dtype"] == "int8", "it does not say that it rounds: {info}");
        let golden = some_golden()?;
        let texts: Vec<_> = golden.iter().map(|golden| golden.text.as_str()).collect();
        for (golden, vector) in golden.iter().zip(gateway.embed(&base, "rounded", &texts).await?) {
            let cosine = cosine(&golden.vector, &vector);
            ensure!((0.99..0.999_999).contains(&cosine), "{:?}: cosine {cosine}", golden.text);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_reranker_scores_as_the_reference_does() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(of_model("reranker", &format!("hf://{RERANKER}"))).await?;
        let service = ns.await_serving("reranker", 1).await?;
        let space = recorded_space(&service)?;
        ensure!(space.dimension == 1, "it has one label: {space:?}");
        let (gateway, base) = (&ns.kembed.gateway, format!("http://reranker.{}.svc", ns.name));
        for pair in golden::pairs()? {
            let body = json!({"query": pair.query, "texts": ["x y z", pair.text], "raw_scores": true});
            let answer = gateway.post(&format!("{base}/rerank"), body).await?.success()?;
            ensure!(answer.header("x-kembed-space") == Some(&space.digest), "{:?}", answer.headers);
            let ranks: Vec<Rank> = serde_json::from_str(&answer.body).context("not a ranking")?;
            ensure!(ranks.len() == 2 && ranks[0].score >= ranks[1].score, "best first, please: {ranks:?}");
            let score = ranks.iter().find(|rank| rank.index == 1).context("a text was not ranked")?.score;
            ensure!((score - pair.score[0]).abs() < 1e-4, "{score} for {pair:?}");
        }
        let refused = gateway.post(&format!("{base}/embed"), json!({"inputs": "hello"})).await?;
        ensure!(refused.status == 424, "a reranker has no vectors, yet answers {refused:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_ready_service_says_what_it_serves() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let service = ready(&ns).await?;
        let expected = [
            (ConditionType::Ready, Reason::Serving),
            (ConditionType::ModelAvailable, Reason::Loaded),
            (ConditionType::SpaceConsistent, Reason::Recorded),
            (ConditionType::CapacityAvailable, Reason::Scheduled),
        ];
        for (kind, reason) in expected {
            let found = condition(&service, kind).with_context(|| format!("no condition {kind:?}"))?;
            ensure!((&*found.status, &*found.reason) == ("True", reason.as_str()), "{found:?}");
        }
        ensure!(condition(&service, ConditionType::AcceleratorVerified).is_none(), "there is no accelerator");

        let space = recorded_space(&service)?;
        let answer =
            ns.kembed.gateway.get(&format!("http://minilm.{}/?content=hello", ns.name)).await?.success()?;
        ensure!(
            answer.header("x-kembed-space") == Some(&space.digest),
            "another space: {:?}",
            answer.headers
        );
        ensure!(space.dimension == 384, "{space:?}");
        let head = ns.kembed.hub.requests("/api/models/sentence-transformers/all-MiniLM-L6-v2").await?;
        ensure!(!head.is_empty(), "the model did not come from the hub");

        await_that("kubectl get emb to tell that it serves", async || {
            let table = ns.kubectl(&["get", "emb"]).await?;
            let row = table.lines().nth(1).context("no row")?;
            Ok((row.contains("True") && row.contains("Serving")).then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn who_asks_for_nothing_that_is_there_is_told_so() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let (gateway, body) = (&ns.kembed.gateway, json!({"model": "none", "input": "hello"}));
        let answer = gateway.post(&format!("http://none.{}.svc/v1/embeddings", ns.name), body).await?;
        ensure!(answer.status == 404, "{answer:?}");
        let message = answer.json()?["error"]["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("none"), "a message that does not name the service: {message:?}");
        Ok(())
    })
    .await
}
