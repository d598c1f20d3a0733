//! How far it is, on a terminal.

use std::{
    io::{IsTerminal, Write},
    sync::Mutex,
};

/// Characters of the bar.
const WIDTH: usize = 30;

/// A line that is written over; nothing where nobody looks at it.
pub(super) struct Progress {
    name: String,
    is_seen: bool,
    done: Mutex<usize>,
}

impl Progress {
    /// Of the play of a trace.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), is_seen: std::io::stderr().is_terminal(), done: Mutex::new(0) }
    }

    /// One more of all is done.
    pub(super) fn step(&self, all: usize) {
        let mut done = self.done.lock().expect("nobody panics while holding it");
        *done += 1;
        if self.is_seen {
            // A bar that cannot be drawn is no reason to stop.
            let _ = write!(std::io::stderr(), "\r{}", bar(&self.name, *done, all));
        }
    }

    /// It is over: the line is cleared.
    pub(super) fn end(&self) {
        if self.is_seen {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

fn bar(name: &str, done: usize, all: usize) -> String {
    let full = done * WIDTH / all.max(1);
    format!("{name} [{}{}] {done} of {all}", "#".repeat(full), "-".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills() {
        assert_eq!(bar("step", 1, 3), format!("step [{}{}] 1 of 3", "#".repeat(10), "-".repeat(20)));
        assert_eq!(bar("step", 3, 3), format!("step [{}] 3 of 3", "#".repeat(30)));
    }
}
