//! What Linux tells of processes.

use std::{fs, net::SocketAddr};

/// Ticks of a second in `/proc`, on every Linux.
const TICKS: f64 = 100.;

/// Seconds of CPU that a process has used: `self`, or a number.
pub fn cpu(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(')').expect("the name ends");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS
}

/// Memory of a process that is its own or mapped, in MiB: now, and at most.
pub fn memory(process: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let of = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel writes it");
        let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kib / 1024.
    };
    (of("VmRSS"), of("VmHWM"))
}

/// An address that is free now.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}
