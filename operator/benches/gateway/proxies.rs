//! Others that pass requests on: what any way through a process costs. Those that are not installed are left out.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    fleet::{Running, until},
    process::{cpu, free_address},
};

/// A plain reverse proxy before one pod, with as many threads as a gateway has, and with connections that are kept.
pub struct Proxy {
    /// Its name.
    pub name: &'static str,
    /// Where requests come in.
    pub address: SocketAddr,
    process: Running,
    _config: TempDir,
}

/// Which proxies there are: how each is configured and started.
const KINDS: [(&str, Configure, &[&str]); 2] =
    [("nginx", nginx, &["-c"]), ("haproxy", haproxy, &["-db", "-q", "-f"])];

type Configure = fn(&Path, SocketAddr, SocketAddr) -> String;

impl Proxy {
    /// Starts all that are installed, and tells of those that are not.
    pub fn start_all(pod: SocketAddr) -> Vec<Self> {
        let found = KINDS.into_iter().filter_map(|(name, configure, flags)| {
            let Some(program) = find(name) else {
                eprintln!("there is no {name} here to compare with");
                return None;
            };
            Some(Self::start(name, &program, configure, flags, pod))
        });
        found.collect()
    }

    fn start(
        name: &'static str,
        program: &Path,
        configure: Configure,
        flags: &[&str],
        pod: SocketAddr,
    ) -> Self {
        let (config, address) = (TempDir::new().expect("a directory for files"), free_address());
        let file = config.path().join("config");
        fs::write(&file, configure(config.path(), address, pod)).expect("the file can be written");
        let process = Running::start(Command::new(program).args(flags).arg(&file));
        until(&format!("{name} listens"), || std::net::TcpStream::connect(address).is_ok());
        Self { name, address, process, _config: config }
    }

    /// Seconds of CPU that its processes have used.
    pub fn cpu(&self) -> f64 {
        let own = self.process.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        cpu(&own.to_string()) + children.split_whitespace().map(cpu).sum::<f64>()
    }
}

/// Also where distributions put what only administrators start.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn nginx(directory: &Path, listen: SocketAddr, pod: SocketAddr) -> String {
    let (directory, threads) = (directory.display(), threads());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {directory}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nuser root;\nworker_processes {threads};\npid {directory}/pid;\nerror_log {directory}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n{temporary}  access_log off;\n  keepalive_requests 1000000000;\n\
           upstream pod {{ server {pod}; keepalive 256; keepalive_requests 1000000000; }}\n\
           server {{\n    listen {listen};\n\
             location / {{ proxy_pass http://pod; proxy_http_version 1.1; proxy_set_header Connection ''; \
         proxy_set_header Host $host; }}\n  }}\n}}\n"
    )
}

fn haproxy(_: &Path, listen: SocketAddr, pod: SocketAddr) -> String {
    let threads = threads();
    format!(
        "global\n  nbthread {threads}\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n\
         listen it\n  bind {listen}\n  server pod {pod} maxconn 4096\n"
    )
}
