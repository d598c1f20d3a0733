//! A model in a bucket of a private S3 server with a certificate of a private authority: read with the credentials of a
//! Secret, and by anybody.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    command::{repository, run},
    golden::{self, assert_right},
    service::{of_model, recorded_space, with},
    with_temp_ns,
};
use k8s_openapi::api::{apps::v1::Deployment, networking::v1::NetworkPolicy};
use kembed_crds::conditions::{ConditionType, Reason};
use serde_json::{Value, json};

use crate::failures::fails;

const KEY: &str = "kembed-test";
const SECRET: &str = "kembed-test-secret";
/// Also in the values of the chart: inference pods may connect to it.
const PORT: u16 = 9000;

/// Where the model lies, for all to list and read.
const FOLDER: &str = "some/minilm";
/// Where it lies for all to read alone, as most public buckets have it.
const UNLISTED: &str = "unlisted/minilm";
const FILES: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "model.safetensors",
];

/// Makes an authority, and a certificate of it for the host $2, in the folder $1.
const CERTIFY: &str = r#"
    cd "$1"
    new=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2)
    "${new[@]}" -subj /CN=authority -keyout ca.key -out ca.crt
    "${new[@]}" -subj /CN=server -addext "subjectAltName=DNS:$2" -addext basicConstraints=critical,CA:FALSE \
      -CA ca.crt -CAkey ca.key -keyout private.key -out public.crt
"#;

/// By what name pods find the server of this namespace.
fn host(ns: &TempNamespace) -> String {
    format!("minio.{}.svc", ns.name)
}

fn bucket(ns: &TempNamespace) -> String {
    format!("https://{}:{PORT}/models", host(ns))
}

/// What who has no key may do.
fn policy() -> Value {
    let all = json!({"Effect": "Allow", "Principal": {"AWS": ["*"]}});
    let may = |mut statement: Value, action, resource: String| {
        statement["Action"] = json!([action]);
        statement["Resource"] = json!([resource]);
        statement
    };
    let read = |folder| may(all.clone(), "s3:GetObject", format!("arn:aws:s3:::models/{folder}/*"));
    let mut list = may(all.clone(), "s3:ListBucket", "arn:aws:s3:::models".into());
    list["Condition"] = json!({"StringLike": {"s3:prefix": [format!("{FOLDER}*")]}});
    json!({"Version": "2012-10-17", "Statement": [read(FOLDER), read(UNLISTED), list]})
}

/// Gives the server a certificate, and pods the authority's to check it with.
async fn certify(ns: &TempNamespace, folder: &str) -> anyhow::Result<()> {
    run("bash", &["-ec", CERTIFY, "certify", folder, &host(ns)], "").await?;
    let [key, certificate, authority] =
        ["private.key", "public.crt", "ca.crt"].map(|name| format!("--from-file={folder}/{name}"));
    ns.kubectl(&["create", "secret", "generic", "minio", &key, &certificate]).await?;
    ns.kubectl(&["create", "configmap", "authority", &authority]).await?;
    Ok(())
}

/// A server whose only bucket, `models`, has the test model in its folder `some/minilm`.
async fn with_bucket(ns: &TempNamespace) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("failed to make a folder for certificates")?;
    let folder = folder.path().to_str().context("a folder with a strange name")?;
    certify(ns, folder).await?;
    let labels = json!({"app": "minio"});
    ns.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "minio"},
        "spec": {"selector": labels, "ports": [{"port": PORT, "targetPort": "http"}]},
    }))
    .await?;
    let variables = [
        ("MINIO_ROOT_USER", KEY),
        ("MINIO_ROOT_PASSWORD", SECRET),
        ("MINIO_BROWSER", "off"),
        ("HOME", "/data"),
    ];
    let container = json!({
        "name": "minio", "image": "kembed.test/minio:dev",
        // Without any it would hardly get to run beside pods that are busy.
        "resources": {"requests": {"cpu": "50m"}},
        "args": ["server", "--quiet", "--certs-dir", "/certs", "--address", format!(":{PORT}"), "/data/drive"],
        "env": variables.map(|(name, value)| json!({"name": name, "value": value})),
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/minio/health/ready", "port": "http", "scheme": "HTTPS"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "certs", "mountPath": "/certs"}],
        "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    ns.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "minio"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "certs", "secret": {"secretName": "minio"}}],
        }}},
    }))
    .await?;
    let ready = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(1))
    };
    ns.await_object("minio", "the S3 server", ready).await?;
    fill(ns, folder).await
}

/// Puts the model there as a person would who has curl alone.
async fn fill(ns: &TempNamespace, folder: &str) -> anyhow::Result<()> {
    let address = ns.kubectl(&["get", "service/minio", "--output=jsonpath={.spec.clusterIP}"]).await?;
    let bucket = bucket(ns);
    let (to, authority) = (format!("::{address}:"), format!("{folder}/ca.crt"));
    let user = format!("{KEY}:{SECRET}");
    let signed = [
        "--fail-with-body",
        "--silent",
        "--show-error",
        // A server that says that it is ready may answer 503 yet, and the network may not know of it.
        "--retry",
        "9",
        "--retry-all-errors",
        "--connect-to",
        &to,
        "--cacert",
        &authority,
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
        "--user",
        &user,
    ];
    run("curl", &[&signed[..], &["--request", "PUT", &bucket]].concat(), "").await?;
    // From a file, for of a body that is given otherwise curl tells a type and does not sign it.
    let (file, url) = (format!("{folder}/policy.json"), format!("{bucket}?policy="));
    std::fs::write(&file, policy().to_string()).context("failed to write the policy of a bucket")?;
    run("curl", &[&signed[..], &["--upload-file", &file, &url]].concat(), "").await?;
    let mut args = signed.map(str::to_owned).to_vec();
    for file in FILES {
        for folder in [FOLDER, UNLISTED] {
            let (from, to) =
                (repository(&format!(".build/model/{file}")), format!("{bucket}/{folder}/{file}"));
            args.extend(["--upload-file".to_owned(), from, to]);
        }
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    run("curl", &args, "").await?;
    Ok(())
}

/// An EmbeddingService of the model at `uri`, with what is in a Secret of the service's own name.
async fn apply(ns: &TempNamespace, name: &str, uri: &str, secret: &[(&str, &str)]) -> anyhow::Result<()> {
    let given: Vec<_> = secret.iter().map(|(key, value)| format!("--from-literal={key}={value}")).collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    ns.kubectl(&[&["create", "secret", "generic", name][..], &given].concat()).await?;
    let credentials = json!({"model": {"credentials": {"secretName": name}}});
    ns.apply(with(of_model(name, uri), with_endpoint(ns, credentials))).await
}

/// What is not secret stands in the pod's environment: where the server is, and whose word for it counts.
fn with_endpoint(ns: &TempNamespace, mut spec: Value) -> Value {
    spec["podTemplate"] = json!({
        "env": [
            {"name": "AWS_ENDPOINT_URL", "value": format!("https://{}:{PORT}", host(ns))},
            {"name": "SSL_CERT_FILE", "value": "/authority/ca.crt"},
        ],
        "volumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        "volumeMounts": [{"name": "authority", "mountPath": "/authority"}],
    });
    spec
}

#[tokio::test]
async fn its_model_is_served_to_who_has_the_key() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        with_bucket(&ns).await?;
        let uri = "s3://models/some/minilm";
        let keys = |secret| [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", secret)];
        apply(&ns, "minilm", uri, &keys(SECRET)).await?;
        apply(&ns, "wrong-key", uri, &keys("not-the-secret")).await?;
        apply(&ns, "lost", "s3://models/some/other", &keys(SECRET)).await?;
        ns.apply(with(of_model("no-key", uri), with_endpoint(&ns, json!({})))).await?;

        let available = ConditionType::ModelAvailable;
        let refused = (available, Reason::CredentialsRefused, "SignatureDoesNotMatch");
        let service = fails(&ns, "wrong-key", refused).await?;
        ensure!(
            !format!("{service:?}").contains("not-the-secret"),
            "the key stands in the object: {service:?}"
        );
        fails(&ns, "lost", (available, Reason::ModelNotFound, uri.trim_end_matches("minilm"))).await?;
        fails(&ns, "no-key", (available, Reason::CredentialsMissing, "AWS_ACCESS_KEY_ID")).await?;

        let service = ns.await_serving("minilm", 1).await?;
        let space = recorded_space(&service)?;
        ensure!(space.revision.is_some(), "a bucket's listing has a revision: {space:?}");
        right(&ns, "minilm").await?;
        may_be_reached(&ns).await?;

        // Corrected, it serves, and is the same space. A new pod has the new Secret at once.
        let right_one = json!({"stringData": {"AWS_SECRET_ACCESS_KEY": SECRET}}).to_string();
        ns.kubectl(&["patch", "secret", "wrong-key", "--patch", &right_one]).await?;
        ns.kubectl(&["delete", "pods", "--selector=kembed.dev/service=wrong-key", "--wait=false"]).await?;
        let corrected = ns.await_serving("wrong-key", 1).await?;
        let corrected = recorded_space(&corrected)?;
        ensure!(corrected == space, "of the same files came {corrected:?} and {space:?}");
        right(&ns, "wrong-key").await
    })
    .await
}

/// As a web server, and as Google's store, which speaks as S3 does where nothing has to be signed.
#[tokio::test]
async fn what_all_may_read_needs_no_key() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        with_bucket(&ns).await?;
        let of = |name, uri: String| with(of_model(name, &uri), with_endpoint(&ns, json!({})));
        ns.apply(of("web", format!("{}/{FOLDER}", bucket(&ns)))).await?;
        ns.apply(of("unlisted", format!("{}/{UNLISTED}/", bucket(&ns)))).await?;
        let mut google = of("google", format!("gs://models/{FOLDER}"));
        let variables = google["spec"]["podTemplate"]["env"].as_array_mut().context("a list")?;
        let base = bucket(&ns);
        variables.push(json!({"name": "GOOGLE_BASE_URL", "value": base.trim_end_matches("/models")}));
        variables.push(json!({"name": "GOOGLE_SKIP_SIGNATURE", "value": "true"}));
        ns.apply(google).await?;
        ns.apply(of("lost", format!("{}/other/minilm", bucket(&ns)))).await?;
        for name in ["web", "unlisted", "google"] {
            ns.await_serving(name, 1).await?;
            right(&ns, name).await?;
        }
        let available = ConditionType::ModelAvailable;
        fails(&ns, "lost", (available, Reason::CredentialsMissing, "the server refuses")).await?;
        Ok(())
    })
    .await
}

async fn right(ns: &TempNamespace, name: &str) -> anyhow::Result<()> {
    let golden = golden::all()?.into_iter().next().context("no golden vector")?;
    let base = format!("http://{name}.{}.svc", ns.name);
    let vectors = ns.kembed.gateway.embed(&base, name, &[&golden.text]).await?;
    assert_right(&golden, vectors.first().context("no vector")?);
    Ok(())
}

/// The network of the test cluster obeys no policies, so what one says is all that can be looked at.
async fn may_be_reached(ns: &TempNamespace) -> anyhow::Result<()> {
    let policy = ns.api::<NetworkPolicy>().get("minilm").await?;
    let policy = serde_json::to_value(policy)?;
    let rules = policy["spec"]["egress"].as_array().context("a policy without rules")?;
    let to_server = |rule: &&Value| {
        rule["ports"][0]["port"] == PORT && rule["to"][0]["podSelector"]["matchLabels"]["app"] == "minio"
    };
    ensure!(rules.iter().any(|rule| to_server(&rule)), "no rule lets a pod reach the server: {rules:?}");
    Ok(())
}
