//! Gateways under test, as `operator gateway` runs them: a process each.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use operator::gateway::ownership;
use tempfile::TempDir;

use crate::{
    client::{Client, block_on, ready},
    process::{cpu, free_address, memory},
    world::{GATEWAYS, NAMESPACE, World},
};

/// For a gateway to do what it does within a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// For a program to end that was told to.
const GOODBYE: Duration = Duration::from_secs(5);

/// Something that runs until this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts a program. Its log is ours.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the program starts"))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    /// Asks it to end, as a node does, and kills it if it does not: nginx takes its workers along, and a program that keeps a
    /// profile of itself writes it at its end.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.id().to_string()).status();
        let deadline = Instant::now() + GOODBYE;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway.
pub struct Gateway {
    process: Running,
    name: String,
    /// Where requests come in.
    pub address: SocketAddr,
    health: SocketAddr,
}

/// Gateways before the same pods. The one that owns [`crate::SERVICE`] comes first.
pub struct Fleet {
    /// All of them.
    pub gateways: Vec<Gateway>,
    _config: TempDir,
}

impl Fleet {
    /// So many gateways in this world, with these flags besides, when all are ready and know each other.
    pub fn start(program: &Path, world: &World, count: usize, flags: &[&str]) -> Self {
        let config = TempDir::new().expect("a directory for files");
        let file = config.path().join("kubeconfig");
        fs::write(&file, kubeconfig(world.address)).expect("the file can be written");
        let start = |i: usize| {
            let name = format!("gateway-{i}");
            let [address, health, internal] = [(); 3].map(|()| free_address());
            let mut command = Command::new(program);
            command.args(["--log-filter", "off", "gateway", "--peers", GATEWAYS, "--namespace", NAMESPACE]);
            command.args(["--pod-name", &name, "--listen", &address.to_string()]).args(flags);
            command.args(["--health-listen", &health.to_string()]);
            command.args(["--drain-delay", "0s", "--drain-timeout", "1s"]);
            command.args(["--internal-listen", &internal.to_string()]).env("KUBECONFIG", &file);
            world.put_gateway(&name, internal);
            Gateway { process: Running::start(&mut command), name, address, health }
        };
        let mut gateways: Vec<_> = (0..count).map(start).collect();
        for gateway in &gateways {
            until("the gateway is ready", || ready(gateway.health));
            until("it knows the others", || gateway.metric("kembed_gateway_peers") == (count - 1) as f64);
        }
        let service = crate::SERVICE.parse().expect("<namespace>/<name>");
        let names: Vec<_> = gateways.iter().map(|gateway| gateway.name.clone()).collect();
        let ranked = ownership::ranked(&service, names.iter().map(String::as_str));
        gateways.sort_by_key(|gateway| ranked.iter().position(|name| *name == gateway.name));
        Self { gateways, _config: config }
    }

    /// Seconds of CPU that all have used.
    pub fn cpu(&self) -> f64 {
        self.gateways.iter().map(Gateway::cpu).sum()
    }

    /// Waits until the owner of the service knows so many of its pods, or all gateways know so many services.
    pub fn await_known(&self, what: &str, count: usize) {
        let name = format!("kembed_gateway_{what}");
        for gateway in &self.gateways {
            until(&format!("{what} are known"), || gateway.metric(&name) == count as f64);
        }
    }
}

impl Gateway {
    /// Seconds of CPU that it has used.
    pub fn cpu(&self) -> f64 {
        cpu(&self.process.id().to_string())
    }

    /// MiB in memory: now, and at most.
    pub fn memory(&self) -> (f64, f64) {
        memory(self.process.id())
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, text) = block_on(async {
            let mut client = Client::open(self.health).await.expect("it listens");
            client.ask(Method::GET, "/metrics", bytes::Bytes::new()).await
        });
        assert_eq!(status, StatusCode::OK);
        let text = String::from_utf8_lossy(&text);
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        values.sum()
    }
}

/// Waits for something that nobody tells of.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it did not come about that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kubeconfig(server: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
         clusters: [{{name: it, cluster: {{server: 'http://{server}'}}}}]\n\
         users: [{{name: it, user: {{}}}}]\n\
         contexts: [{{name: it, context: {{cluster: it, user: it, namespace: {NAMESPACE}}}}}]\n"
    )
}
