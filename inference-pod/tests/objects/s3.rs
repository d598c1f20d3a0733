//! A real S3 server.

use inference_pod::{
    model::files::Network,
    source::{Snapshot, progress::Progress},
};
use kembed_queue::wire::FailureReason::{self, *};

use crate::{
    client::{Client, WEIGHTS, variables},
    cut::Cut,
    minio::Minio,
    support::small_model,
};

const MODEL: &str = "s3://models/some/model";

/// A server that has the small model.
async fn with_model() -> Minio {
    let minio = Minio::start().await;
    minio.put("some/model", &small_model()).await;
    minio
}

fn revision(snapshot: &Snapshot) -> String {
    snapshot.revision.clone().expect("a listing has a revision")
}

#[tokio::test]
async fn a_model_is_fetched_once_and_then_found_without_the_store() {
    let minio = with_model().await;
    let files = small_model();
    let client = Client::new(minio.variables());
    let first = client.fetch(MODEL, None, &files).await.expect("it comes");
    assert_eq!(first.network, Network::Safetensors(WEIGHTS.into()));
    assert!(!first.has("tokenizer_config.json").await.expect("no error"));

    // A slash at the end is no other place, and nothing is fetched twice.
    let mut again = Client::new(minio.variables());
    again.access.cache = client.cache.path().into();
    let second = again.fetch(&format!("{MODEL}/"), None, &files).await.expect("it is cached");
    assert_eq!(revision(&second), revision(&first));
    assert_eq!(again.progress.to_string(), format!("listing {MODEL}"), "nothing came after the listing");

    drop(minio);
    let recorded = again.fetch(MODEL, Some(&revision(&first)), &files).await.expect("it is cached");
    assert_eq!(revision(&recorded), revision(&first));
}

#[tokio::test]
async fn what_broke_off_goes_on_where_it_was() {
    const MIB: usize = 1 << 20;
    let minio = Minio::start().await;
    let weights: Vec<u8> = (0..8 * MIB as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files = [("config.json", b"{}".to_vec()), (WEIGHTS, weights)];
    minio.put("large", &files).await;
    let cut = Cut::start(&minio.address, 6 * MIB as u64).await;
    let client = Client::new(minio.variables_at(&cut.address, "kembed-test-secret"));
    client.fetch("s3://models/large", None, &files).await.expect("it comes in the end");
    assert!(cut.was_cut());
    assert!(cut.brought() < 10 * MIB as u64, "{} bytes came for 8 MiB", cut.brought());
}

#[tokio::test]
async fn what_is_not_there_or_not_for_everybody_is_told_apart() {
    let minio = with_model().await;
    let endpoint = format!("http://{}", minio.address);
    let public = variables(&[("AWS_ENDPOINT_URL", &endpoint), ("AWS_SKIP_SIGNATURE", "true")]);
    let half = variables(&[("AWS_ENDPOINT_URL", &endpoint), ("AWS_ACCESS_KEY_ID", "kembed-test")]);
    // Nobody runs the discard service, which has port 9.
    let metadata = ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9");
    let none = variables(&[("AWS_ENDPOINT_URL", &endpoint), metadata]);
    let cases: [(_, _, FailureReason, _); 7] = [
        (minio.variables(), "s3://models/other", ModelNotFound, "s3://models/other"),
        (minio.variables(), "s3://other/some/model", ModelNotFound, "NoSuchBucket"),
        (minio.variables_at(&minio.address, "wrong"), MODEL, CredentialsRefused, "SignatureDoesNotMatch"),
        (half, MODEL, CredentialsRefused, "cannot be used"),
        (public, MODEL, CredentialsMissing, "AccessDenied"),
        (none, MODEL, CredentialsMissing, "AWS_ACCESS_KEY_ID"),
        (minio.variables_at("127.0.0.1:9", "any"), MODEL, SourceUnreachable, "refused"),
    ];
    for (variables, model, expected, word) in cases {
        let (reason, message) = Client::new(variables).reason(model).await;
        assert_eq!(reason, expected, "{model}: {message}");
        assert!(message.contains(word), "{message} does not hold {word}");
        assert!(!message.contains("Signature="), "{message}");
    }
}

#[tokio::test]
async fn a_prefix_that_moved_is_another_revision() {
    let minio = with_model().await;
    let files = small_model();
    let client = Client::new(minio.variables());
    let first = revision(&client.fetch(MODEL, None, &files).await.expect("it comes"));

    let mut moved = files.clone();
    moved[3].1 = br#"{"pooling_mode_cls_token": true}"#.to_vec();
    minio.put("some/model", &moved).await;
    let second = revision(&client.fetch(MODEL, None, &moved).await.expect("it comes"));
    assert_ne!(second, first);
    // What was recorded is in the cache of this pod still, and nowhere else: another one loads what there is and says so.
    let cached = client.fetch(MODEL, Some(&first), &files).await.expect("it is cached");
    assert_eq!(revision(&cached), first);
    let elsewhere = Client::new(minio.variables());
    let loaded = elsewhere.fetch(MODEL, Some(&first), &moved).await.expect("it comes");
    assert_eq!(revision(&loaded), second);
}

#[tokio::test]
async fn a_file_that_was_replaced_after_the_listing_is_refused() {
    let minio = with_model().await;
    let client = Client::new(minio.variables());
    let mut snapshot = client.open(MODEL, None).await.expect("it is there");
    minio.put("some/model", &[("config.json", b"{}".to_vec())]).await;
    minio.delete("some/model/tokenizer.json").await;
    for (name, word) in [("config.json", "replaced"), ("tokenizer.json", "NoSuchKey")] {
        let error = snapshot.file(name, &client.progress).await.expect_err("it is another");
        assert_eq!(error.reason(), ModelNotFound, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn two_pods_with_one_cache_fetch_each_file_once() {
    let minio = with_model().await;
    let files = small_model();
    let client = Client::new(minio.variables());
    let mut other = Client::new(minio.variables());
    other.access.cache = client.cache.path().into();
    let bytes = prometheus_client::metrics::counter::Counter::<u64>::default();
    let (mut one, mut two) = (client, other);
    one.progress = Progress::new(bytes.clone());
    two.progress = Progress::new(bytes.clone());
    let both = tokio::join!(one.fetch(MODEL, None, &files), two.fetch(MODEL, None, &files));
    assert!(both.0.is_ok() && both.1.is_ok());
    let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(bytes.get(), size as u64);
}
