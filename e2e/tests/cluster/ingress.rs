//! The gateway behind a reverse proxy, as an Ingress controller is one: nginx, which knows nothing of kembed but its Service
//! and a prefix of paths.

use anyhow::{Context, ensure};
use e2e::{
    Client, TempNamespace,
    client::{Answer, vectors},
    golden::{self, assert_right},
    service::{minilm, with},
    with_temp_ns,
    zero::woken,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// What ingress-nginx makes of `docs/samples/ingress.yaml`, as far as it matters here. `TEAM` is the path's prefix.
const CONFIGURATION: &str = r#"
daemon off;
pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path /tmp/bodies;
  proxy_temp_path /tmp/answers;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  upstream gateway {
    server kembed-gateway.kembed-system.svc.cluster.local:80;
    keepalive 16;
  }
  server {
    listen 8080;
    client_max_body_size 8m;
    location = /ready { return 200; }
    location /TEAM/ {
      proxy_pass http://gateway;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_buffering off;
      proxy_read_timeout 660s;
    }
  }
}
"#;

/// A host that nobody in the cluster knows.
const HOST: &str = "http://vectors.example.com:8080";

/// Starts the proxy, and connects to it.
async fn proxy(ns: &TempNamespace) -> anyhow::Result<Client> {
    let configuration = CONFIGURATION.replace("TEAM", &ns.name);
    ns.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "proxy"},
        "data": {"nginx.conf": configuration},
    }))
    .await?;
    let container = json!({
        "name": "nginx", "image": "kembed.test/nginx:dev",
        "args": ["-e", "stderr", "-c", "/etc/proxy/nginx.conf"],
        // Without any it would hardly get to run beside pods that are busy.
        "resources": {"requests": {"cpu": "20m"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "configuration", "mountPath": "/etc/proxy"}, {"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    ns.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "proxy"},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "configuration", "configMap": {"name": "proxy"}}, {"name": "tmp", "emptyDir": {}}],
        },
    }))
    .await?;
    let pod = ns.await_object("proxy", "the proxy", |pod: Option<&Pod>| pod.is_some_and(is_ready)).await?;
    let address = pod.and_then(|pod| pod.status?.pod_ip).context("the proxy has no address")?;
    Client::to(address.parse().context("another address than expected")?)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A request for the vector of this text, of more than so many bytes: spaces are JSON too.
fn padded(text: &str, bytes: usize) -> Value {
    json!({"model": "minilm", "input": text, "user": " ".repeat(bytes)})
}

#[tokio::test]
async fn requests_come_through_a_reverse_proxy_unchanged() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        // One pod and no more, whatever a long body makes of the load, and more time than by default for all of it.
        let spec =
            json!({"scaling": {"minReplicas": 0, "maxReplicas": 1}, "traffic": {"requestTimeout": "4m"}});
        ns.apply(with(minilm("minilm"), spec)).await?;
        ns.await_serving("minilm", 1).await?;
        let proxy = proxy(&ns).await?;
        let golden: Vec<_> = golden::all()?.into_iter().filter(|golden| !golden.text.is_empty()).collect();
        let first = golden.first().context("no golden vector")?;
        let base = format!("{HOST}/{}/minilm", ns.name);
        let url = format!("{base}/v1/embeddings");

        // One after the other over connections that are kept, with answers longer than a proxy's buffers.
        let texts: Vec<_> = golden.iter().map(|golden| golden.text.as_str()).collect();
        for _ in 0..3 {
            let answered = proxy.embed(&base, "minilm", &texts).await?;
            golden.iter().zip(&answered).for_each(|(golden, vector)| assert_right(golden, vector));
            ensure!(answered.len() == golden.len(), "{} vectors", answered.len());
        }
        let long = proxy.post(&url, padded(&first.text, 3_000_000)).await?;
        assert_right(first, vectors(&long.success()?.body)?.first().context("no vector")?);
        let chunked = in_chunks(&ns, &proxy_address(&ns).await?, &first.text).await?;
        assert_right(first, vectors(&chunked)?.first().context("no vector")?);

        // Long, and of every pod at all times the same, unlike `/info`, which tells a pod's speed.
        let direct = format!("http://minilm.{}.svc", ns.name);
        same(
            &proxy.get_of_pod(&format!("{base}/openapi.json")).await?,
            &ns.kembed.gateway.get_of_pod(&format!("{direct}/openapi.json")).await?,
        )?;
        let refused = proxy.post(&format!("{HOST}/{}/none/v1/embeddings", ns.name), json!({})).await?;
        let told = (refused.json()?["error"]["code"].clone(), refused.header("x-should-retry"));
        ensure!(refused.status == 404 && told == (json!("unknown_url"), Some("false")), "{refused:?}");

        // Longer than a proxy waits that was told nothing is not tried here; that it waits at all is.
        ns.to_zero("minilm").await?;
        let body = json!({"model": "minilm", "input": first.text});
        let answer = woken(async || proxy.post(&url, body.clone()).await?.success()).await?;
        ensure!(
            answer.header("x-kembed-space").is_some() && answer.header("server-timing").is_some(),
            "{answer:?}"
        );
        assert_right(first, vectors(&answer.body)?.first().context("no vector")?);
        Ok(())
    })
    .await
}

/// The same answer, but for what says when it was made and over which connection it came.
fn same(one: &Answer, other: &Answer) -> anyhow::Result<()> {
    let lasting = |answer: &Answer| {
        let own = ["date", "connection", "server", "server-timing", "transfer-encoding", "content-length"];
        let mut headers = answer.headers.clone();
        own.into_iter().for_each(|name| drop(headers.remove(name)));
        (answer.status, headers, answer.body.clone())
    };
    ensure!(lasting(one) == lasting(other), "{one:?} and {other:?}");
    Ok(())
}

async fn proxy_address(ns: &TempNamespace) -> anyhow::Result<String> {
    ns.kubectl(&["get", "pod/proxy", "--output=jsonpath={.status.podIP}"]).await
}

/// As clients send that do not know how long their body will be.
async fn in_chunks(ns: &TempNamespace, proxy: &str, text: &str) -> anyhow::Result<String> {
    let (body, url) =
        (padded(text, 0).to_string(), format!("http://{proxy}:8080/{}/minilm/v1/embeddings", ns.name));
    let headers = ["--header", "Transfer-Encoding: chunked", "--header", "Host: vectors.example.com"];
    ns.curl(&[&headers[..], &["--fail-with-body", "--json", &body, &url]].concat()).await
}
