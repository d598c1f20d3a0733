//! The time of a thread, for tests of what something costs.

use std::time::Duration;

/// For how long this thread has run on a CPU, whatever else the machine did. It is told to a few milliseconds.
pub fn on_cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a thread of Linux");
    let nanoseconds = told.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("it begins with that"))
}
