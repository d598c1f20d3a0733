//! How the stores of all clouds are asked, by a stand-in for them.

use inference_pod::source::Variables;
use kembed_queue::wire::FailureReason::*;

use crate::{
    client::{Client, WEIGHTS, variables},
    stand_in::{Seen, StandIn},
    support::small_model,
};

/// Fetches a model, of whose weights a part came before, and tells what was asked.
async fn seen(model: &str, server: &StandIn, variables: Variables) -> Vec<Seen> {
    let files = small_model();
    let client = Client::new(variables);
    let mut snapshot = client.open(model, None).await.unwrap_or_else(|e| panic!("{model}: {e}"));
    let config = snapshot.file("config.json", &client.progress).await.expect("it comes");
    let weights = &files[4].1;
    std::fs::write(config.with_file_name("model.safetensors.part"), &weights[..100])
        .expect("it can be written");
    let fetched = snapshot.file(WEIGHTS, &client.progress).await.expect("it goes on");
    assert!(std::fs::read(fetched).expect("it can be read") == *weights);
    client.fetch(model, None, &files).await.expect("the rest comes");
    server.take_seen()
}

fn all_authorized(seen: &[Seen], begin: &str) {
    let others: Vec<_> = seen.iter().filter(|seen| !seen.authorization.starts_with(begin)).collect();
    assert!(others.is_empty() && !seen.is_empty(), "{others:?}");
}

#[tokio::test]
async fn google_cloud_storage() {
    let server = StandIn::start(small_model()).await;
    let base = ("GOOGLE_BASE_URL", server.address.as_str());
    let with_token = seen("gs://b/m", &server, variables(&[base, ("GOOGLE_BEARER_TOKEN", "a-token")])).await;
    all_authorized(&with_token, "Bearer a-token");
    assert_eq!(with_token[0].path, "/b");

    let public = seen("gs://b/m", &server, variables(&[base, ("GOOGLE_SKIP_SIGNATURE", "true")])).await;
    assert!(public.iter().all(|seen| seen.authorization.is_empty()), "{public:?}");

    let broken = variables(&[base, ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"private_key\": \"secret\"}")]);
    let (reason, message) = Client::new(broken).reason("gs://b/m").await;
    assert_eq!(reason, CredentialsRefused, "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[tokio::test]
async fn azure_blob_storage() {
    let server = StandIn::start(small_model()).await;
    let at = [("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_ENDPOINT", server.address.as_str())];
    let key = [&at[..], &[("AZURE_STORAGE_KEY", "c2VjcmV0")]].concat();
    let with_key = seen("az://b/m", &server, variables(&key)).await;
    all_authorized(&with_key, "SharedKey acc:");
    assert_eq!(with_key[0].path, "/b");

    let sas = [&at[..], &[("AZURE_STORAGE_SAS_TOKEN", "?sv=2025&sig=a-signature")]].concat();
    let with_sas = seen("az://b/m", &server, variables(&sas)).await;
    assert!(with_sas.iter().all(|seen| seen.query.contains("sig=a-signature")), "{with_sas:?}");

    let missing = Client::new(variables(&sas)).reason("az://b/other").await;
    assert_eq!(missing.0, ModelNotFound, "{}", missing.1);
    let nowhere = [("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9")];
    let sas = [&nowhere[..], &[("AZURE_STORAGE_SAS_TOKEN", "?sv=2025&sig=a-signature")]].concat();
    let (reason, message) = Client::new(variables(&sas)).reason("az://b/m").await;
    assert_eq!(reason, SourceUnreachable, "{message}");
    assert!(!message.contains("a-signature"), "{message}");

    let no_account = Client::new(variables(&[])).reason("az://b/m").await;
    assert_eq!(no_account.0, CredentialsMissing, "{}", no_account.1);
}

#[tokio::test]
async fn a_role_of_aws_by_the_identity_of_a_workload() {
    let server = StandIn::start(small_model()).await;
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&token, "an-identity").expect("it can be written");
    let role = |file: &str| {
        variables(&[
            ("AWS_ENDPOINT_URL_S3", &server.address),
            ("AWS_ENDPOINT_URL_STS", &server.address),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file),
        ])
    };
    let mut all = seen("s3://b/m", &server, role(token.path().to_str().expect("a plain path"))).await;
    let asked = all.remove(0);
    assert!(asked.query.contains("WebIdentityToken=an-identity"), "{asked:?}");
    // Each pod asks once.
    all.retain(|seen| !seen.query.contains("AssumeRole"));
    all_authorized(&all, "AWS4-HMAC-SHA256 Credential=key-of-the-role/");

    let (reason, message) = Client::new(role("/no/such/token")).reason("s3://b/m").await;
    assert_eq!(reason, CredentialsRefused, "{message}");
    assert!(message.contains("/no/such/token"), "{message}");
}
