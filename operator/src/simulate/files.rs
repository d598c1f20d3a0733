//! What is read and written.

use std::{fs, path::Path};

use anyhow::Context;
use kembed_scaling::simulate::{Trace, TraceError};

use crate::simulate::{
    args::{SimulateArgs, Source},
    service::Service,
};

/// The longest CSV that is read, in bytes. A line has at least four.
const CSV_LIMIT: u64 = 4 << 30;

/// The traffic that is asked for, with its names.
pub(super) fn traces(args: &SimulateArgs) -> anyhow::Result<Vec<(String, Trace)>> {
    args.trace
        .iter()
        .map(|source| {
            let (name, trace) = trace(source, args.seed)?;
            let scaled =
                scaled(trace, args).with_context(|| format!("failed to scale the trace {name:?}"))?;
            Ok((name, scaled))
        })
        .collect()
}

fn trace(source: &Source, seed: u64) -> anyhow::Result<(String, Trace)> {
    let path = match source {
        Source::Kind(kind) => return Ok((kind.name().to_owned(), kind.generate(seed))),
        Source::File(path) => path,
    };
    let read = || -> anyhow::Result<Trace> {
        let length = fs::metadata(path)?.len();
        anyhow::ensure!(length <= CSV_LIMIT, "it has {length} bytes; {CSV_LIMIT} are the most");
        Ok(Trace::parse(&fs::read_to_string(path)?)?)
    };
    let trace = read().with_context(|| {
        let kinds = kembed_scaling::simulate::Kind::ALL.map(|kind| kind.name()).join(", ");
        format!("failed to read the trace {path:?} (what is no file is one of {kinds})")
    })?;
    let name = path.file_stem().map_or_else(|| "trace".into(), |stem| stem.to_string_lossy().into_owned());
    Ok((name, trace))
}

fn scaled(trace: Trace, args: &SimulateArgs) -> Result<Trace, TraceError> {
    // Whole traces are copied only where something changes.
    let trace = if args.rate == 1. { trace } else { trace.with_rate(args.rate, args.seed)? };
    if args.length == 1. { Ok(trace) } else { trace.with_length(args.length) }
}

/// The service that is asked for.
pub(super) fn service(path: &Path) -> anyhow::Result<Service> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read the service {path:?}"))?;
    Service::parse(&text).with_context(|| format!("failed to use the service {path:?}"))
}

/// Writes a picture of a trace into a folder, which is made if it is not there.
pub(super) fn write_picture(folder: &Path, name: &str, svg: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("failed to make the folder {folder:?}"))?;
    let path = folder.join(format!("{name}.svg"));
    fs::write(&path, svg).with_context(|| format!("failed to write {path:?}"))
}
