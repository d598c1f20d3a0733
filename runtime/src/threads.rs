//! Which threads go first where there are more of them than cores.

use rustix::process::nice;

/// By how much a thread that computes gives way: it weighs a third of another then (335 to 1,024 in Linux's table). Linux
/// divides what a container may use of a busy machine by the weights of what runs on each core. With 10, which weighs a
/// tenth, health checks are answered sooner still, but of eight cores beside as busy a container a pod would lose a seventh
/// of its share; with 19, half.
const NICENESS: i32 = 5;

/// Lets this thread give way to the others of the process: it computes for milliseconds, they answer in microseconds. On
/// Linux every thread has a niceness of its own, and may always raise it. Where it cannot, health checks wait longer.
pub fn give_way() {
    if let Err(error) = nice(NICENESS) {
        tracing::debug!(%error, "a thread that computes cannot give way");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    fn niceness() -> i32 {
        getpriority_process(None).expect("a thread may ask for its own")
    }

    #[test]
    fn a_thread_gives_way_by_itself() {
        let before = niceness();
        let thread = std::thread::spawn(|| {
            give_way();
            niceness()
        });
        assert_eq!(thread.join().expect("no panic"), (before + NICENESS).min(19));
        assert_eq!(niceness(), before, "the others stay");
    }
}
