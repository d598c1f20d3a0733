//! kembed's programs in the test cluster, as the machine sees them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

/// Ticks of the clock that Linux counts CPU time by, a second.
const TICKS: f64 = 100.;

/// A process of one of kembed's programs.
#[derive(Clone, Debug)]
pub struct Process {
    /// Program and subcommand, as `operator controller`.
    pub program: String,
    folder: PathBuf,
}

impl Process {
    /// All that run now.
    ///
    /// # Errors
    /// If processes cannot be listed.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        // The test cluster has a cgroup of this name.
        let cluster =
            format!("/kembed-cluster-{}/", env::var("CLUSTER_NAME").unwrap_or_else(|_| "kembed".to_owned()));
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc").context("failed to list processes")? {
            let folder = entry.context("failed to list processes")?.path();
            let ours = read(&folder, "cgroup").contains(&cluster);
            if let Some(program) = program(&read(&folder, "cmdline")).filter(|_| ours) {
                all.push(Self { program, folder });
            }
        }
        Ok(all)
    }

    /// A field of `smaps_rollup`, such as `Rss`, in MiB; 0 of a process that has ended.
    pub fn memory(&self, field: &str) -> f64 {
        of(&read(&self.folder, "smaps_rollup"), field)
    }

    /// CPU time that it has used until now; nothing of a process that has ended.
    pub fn cpu(&self) -> Duration {
        Duration::from_secs_f64(ticks(&read(&self.folder, "stat")) / TICKS)
    }
}

/// What has just ended has no files any more; a process of another user has none for us.
fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_default()
}

/// Program and subcommand, if it is one of kembed's.
fn program(cmdline: &str) -> Option<String> {
    let mut words = cmdline.split('\0');
    let name = words.next()?.rsplit('/').next()?;
    ["operator", "inference-pod"]
        .contains(&name)
        .then(|| format!("{name} {}", words.next().unwrap_or_default()))
}

/// A field of `smaps_rollup` in MiB; 0 where it is absent.
fn of(rollup: &str, field: &str) -> f64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib =
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// The 14th and the 15th field of `stat`, which begin after a name that may hold anything.
fn ticks(stat: &str) -> f64 {
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_first_two_words() {
        assert_eq!(program("/usr/bin/operator\0controller\0--x\0").as_deref(), Some("operator controller"));
        assert_eq!(program("/usr/bin/bash\0operator\0"), None);
    }

    #[test]
    fn fields_are_read_as_linux_writes_them() {
        assert_eq!(of("Rss:               2048 kB\nPss:  1 kB\n", "Rss"), 2.);
        assert_eq!(ticks("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20"), 200.);
        assert_eq!(ticks(""), 0.);
    }
}
