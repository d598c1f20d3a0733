//! MinIO, an S3 server.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use inference_pod::source::Variables;
use object_store::{ObjectStoreExt, aws::AmazonS3Builder};

use crate::client::variables;

const KEY: &str = "kembed-test";
const SECRET: &str = "kembed-test-secret";
/// It takes a second or two, where the machine has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server with one bucket, `models`.
pub struct Minio {
    server: Child,
    pub address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Minio {
    fn drop(&mut self) {
        // It is a server: it has not ended by itself, and what it stored is of no more use.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Where the program is; builds it, unless that was done before.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/minio");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("the script runs");
        assert!(output.status.success(), "scripts/minio failed");
        String::from_utf8(output.stdout).expect("a path").trim().into()
    })
}

/// Below the ports that Linux gives to who asks for any: between this look and its start the server lost such a one to a
/// stand-in of another test, which then got its requests.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run of these tests begins elsewhere.
    let first = u16::try_from(std::process::id() % 10_000).expect("it is below 10,000");
    let ports = (0..10_000).map(|_| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    let mut addresses = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("one of 10,000 ports is free")
}

impl Minio {
    pub async fn start() -> Self {
        // The object_store crate's own client, which the tests write with, takes this provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let start = Instant::now();
        let mut minio = Self::try_start();
        while tokio::net::TcpStream::connect(&minio.address).await.is_err() || !minio.writes().await {
            if let Some(status) = minio.server.try_wait().expect("it can be asked") {
                assert!(start.elapsed() < PATIENCE, "the server ended with {status}");
                // Somebody else took the port.
                minio = Self::try_start();
            }
            assert!(start.elapsed() < PATIENCE, "the server does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        minio
    }

    fn try_start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // A folder of the drive is a bucket.
        std::fs::create_dir(folder.path().join("models")).expect("it can be made");
        let address = free_address().to_string();
        let server = Command::new(program())
            .args(["server", "--quiet", "--address", &address])
            .arg(folder.path())
            .env_clear()
            .envs([("MINIO_ROOT_USER", KEY), ("MINIO_ROOT_PASSWORD", SECRET), ("MINIO_BROWSER", "off")])
            .env("HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self { server, address, _folder: folder }
    }

    async fn writes(&self) -> bool {
        self.store().put(&"health".into(), "yes".into()).await.is_ok()
    }

    fn store(&self) -> object_store::aws::AmazonS3 {
        let builder = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.address))
            .with_allow_http(true)
            .with_bucket_name("models")
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET);
        builder.build().expect("a good client")
    }

    /// Puts files below a prefix.
    pub async fn put(&self, prefix: &str, files: &[(&str, Vec<u8>)]) {
        let store = self.store();
        for (name, bytes) in files {
            let path = format!("{prefix}/{name}").into();
            store.put(&path, bytes.clone().into()).await.expect("it is stored");
        }
    }

    pub async fn delete(&self, path: &str) {
        self.store().delete(&path.into()).await.expect("it is deleted");
    }

    /// What its users know.
    pub fn variables(&self) -> Variables {
        self.variables_at(&self.address, SECRET)
    }

    pub fn variables_at(&self, address: &str, secret: &str) -> Variables {
        variables(&[
            ("AWS_ENDPOINT_URL", &format!("http://{address}")),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1"),
        ])
    }
}
