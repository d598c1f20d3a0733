//! From GPUs to backends: each is taken into use, has to compute known vectors, is measured and warmed up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kembed_queue::device::{Device as Reported, Verification};

use super::{
    budget::Search,
    driver::{About, CallError, Device, Streams},
    fault::Fault,
    network::{OnGpu, slot_size},
    pack::Packed,
    pipeline::{Compute, PipelineError, Settings, start},
    probe::Found,
    warm::{Largest, USUAL, warm},
};
use crate::{
    backend::{Backend, RunError},
    batch::row::Row,
    export::packed::Form,
    model::Precision,
};

/// Batches that a device has in hand: one is computed, one is ready behind it, and one is answered and filled anew.
const SLOTS: usize = 3;

/// The first batches may take seconds, for libraries load what they need then.
const PATIENCE: Duration = Duration::from_secs(60);

/// Later ones take milliseconds. A device that takes so long hangs; clients wait for 30 seconds unless told otherwise.
const SERVING: Duration = Duration::from_secs(15);

/// Rows of a batch.
pub const ROWS: usize = 1024;

/// Where the search for the size of batches begins and ends, in tokens.
const SIZES: (u64, u64) = (1024, 65_536);

/// How long all devices may be warmed up, one after the other. What was not seen by then is seen when clients ask for it.
const WARMING: Duration = Duration::from_secs(60);

/// How alike the vectors of a GPU must be to those of a CPU in 32-bit floats, for each of the numbers that it computes in: the
/// least cosine of any two. It does not guard the last digits: it is what a wrong kernel, a wrong weight or broken memory does not
/// reach, and rounding does not come near to.
pub fn tolerance(precision: Precision) -> f64 {
    match precision {
        // Sums are added in another order, and NVIDIA's products may round what they multiply to 11 bits (TF32).
        Precision::Float32 => 0.9999,
        // Eleven bits of each number.
        Precision::Float16 | Precision::Int8 => 0.999,
    }
}

/// A row, and the vector that a CPU computes of it.
pub struct Known {
    /// What is run.
    pub row: Row,
    /// As pooled, or a number for each label, by the same weights in 32-bit floats.
    pub vector: Vec<f32>,
}

/// What a network is.
pub struct Plan<'a> {
    /// What it is told of each batch.
    pub form: Form,
    /// Whether it gives numbers of labels.
    pub classifies: bool,
    /// Tokens of a longest input.
    pub longest: usize,
    /// What it must compute. There is at least one.
    pub known: &'a [Known],
    /// What it computes in.
    pub precision: Precision,
}

/// GPUs that are ready.
pub struct Prepared<C: Compute> {
    /// For each a few, which may be run at the same time.
    pub backends: Vec<OnGpu<C>>,
    /// Tokens of a batch: what the smallest of them can take.
    pub tokens: u64,
    /// Tokens of such batches that all of them compute in a second, together.
    pub rate: f64,
    /// What they are, and how alike their vectors are to those of the CPU.
    pub devices: Vec<Reported>,
}

/// A GPU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot be taken into use.
    #[error("the GPU cannot be used: {0}")]
    Open(#[from] CallError),
    /// The network cannot be made on it.
    #[error("the network cannot be put on the GPU: {0}")]
    Make(Fault),
    /// Memory for batches is not to be had.
    #[error(transparent)]
    Start(#[from] PipelineError),
    /// It fails.
    #[error("the GPU failed when it was tried: {0}")]
    Run(RunError),
    /// It computes other vectors than a CPU.
    #[error(
        "{name} computes wrong vectors: the cosine with those of the CPU is {cosine}, and at least {alike} is right"
    )]
    Wrong {
        /// Which one, as its maker calls it.
        name: String,
        /// How alike they are; not a number if the vectors are none.
        cosine: f64,
        /// How alike they must be.
        alike: f64,
    },
    /// It has no room for a batch of one longest input.
    #[error("{0} has not enough memory for one input of the longest")]
    NoRoom(String),
    /// The network pools in a way that it cannot.
    #[error("on a GPU there is no such pooling")]
    Pooling,
}

/// Takes devices into use. `make` puts the network on each.
///
/// # Errors
/// If one of them cannot be used, or computes wrong vectors.
pub fn prepare<C: Compute<Batch = Arc<Packed>>>(
    found: &Found,
    plan: &Plan<'_>,
    mut make: impl FnMut(&Arc<Device>, &Streams) -> Result<C, Fault>,
) -> Result<Prepared<C>, PrepareError> {
    let mut all = Prepared { backends: Vec::new(), tokens: SIZES.1, rate: 0., devices: Vec::new() };
    for about in &found.devices {
        let device = found.driver.open(about.ordinal)?;
        let streams = Streams::new(&device)?;
        let network = make(&device, &streams).map_err(PrepareError::Make)?;
        let dimension = plan.known.first().map_or(0, |known| known.vector.len());
        let most = (SIZES.1 as usize).max(plan.longest);
        let size = slot_size(ROWS, most, plan.longest, plan.form, dimension).ok_or(PrepareError::Pooling)?;
        let workers = start(&device, streams, network, Settings { slots: SLOTS, size, patience: PATIENCE })?;
        let backends = workers.into_iter().map(|worker| OnGpu::new(worker, plan.form, dimension));
        let mut backends: Vec<_> = backends.collect();
        let Some(first) = backends.first_mut() else { continue };
        let verification = verify(first, plan, &about.name)?;
        let (tokens, rate) = measure(first, plan, &about.name)?;
        let largest = Largest { tokens: tokens as usize, rows: ROWS, longest: plan.longest };
        let patience = WARMING / found.devices.len() as u32;
        let tokens = warm(first, largest, patience).map_err(PrepareError::Run)?;
        let tokens = tokens.ok_or_else(|| PrepareError::NoRoom(about.name.clone()))? as u64;
        let cosine = verification.least_cosine;
        tracing::info!(device = about.ordinal, name = about.name, cosine, tokens, rate, "a GPU is ready");
        backends.iter_mut().for_each(|backend| backend.set_patience(SERVING));
        all.backends.extend(backends);
        all.tokens = all.tokens.min(tokens);
        all.rate += rate;
        all.devices.push(reported(about, found, plan.precision, verification));
    }
    Ok(all)
}

/// What `/info` tells of a device.
fn reported(about: &About, found: &Found, precision: Precision, verification: Verification) -> Reported {
    let (major, minor) = about.capability;
    Reported {
        name: about.name.clone(),
        compute_capability: format!("{major}.{minor}"),
        memory_bytes: about.memory,
        driver_version: found.release.clone(),
        cuda_version: found.cuda.clone(),
        precision: precision.name().to_owned(),
        verification,
    }
}

/// Runs what is known, alone and with the rest.
fn verify(backend: &mut dyn Backend, plan: &Plan<'_>, name: &str) -> Result<Verification, PrepareError> {
    let rows: Vec<_> = plan.known.iter().map(|known| &known.row).collect();
    let (mut least, alike) = (1f64, tolerance(plan.precision));
    let alone = (0..rows.len()).map(|i| i..i + 1);
    for part in alone.chain(std::iter::once(0..rows.len())) {
        let vectors = backend.run(&rows[part.clone()]).map_err(PrepareError::Run)?;
        for (vector, known) in vectors.iter().zip(&plan.known[part]) {
            let cosine = match plan.classifies {
                true => cosine_of_scores(vector, &known.vector),
                false => cosine(vector, &known.vector),
            };
            // A cosine that is no number is not alike either.
            if cosine.is_nan() || cosine < alike {
                return Err(PrepareError::Wrong { name: name.to_owned(), cosine, alike });
            }
            least = least.min(cosine);
        }
    }
    Ok(Verification::of(rows.len() as u32, least, alike))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// As [`cosine`], of numbers of labels. A single one has no direction but its sign, and those near zero none that means anything. So
/// in front of both stands one more, as large as those that are right together, and at least one: a tenth of that more or less is
/// further away than a vector in float16 may be.
fn cosine_of_scores(scores: &[f32], right: &[f32]) -> f64 {
    let length = right.iter().map(|x| x * x).sum::<f32>().sqrt().max(1.);
    let with = |scores: &[f32]| [&[length], scores].concat();
    cosine(&with(scores), &with(right))
}

/// Finds the size of batches, and how many tokens a second that makes: of one batch after the other, so that with others beside it
/// there will be a little more. Each size is run twice, for the first time it is also given its memory.
fn measure(backend: &mut dyn Backend, plan: &Plan<'_>, name: &str) -> Result<(u64, f64), PrepareError> {
    let length = plan.longest.clamp(1, USUAL);
    let mut search = Search::new(plan.longest as u64, SIZES.0, SIZES.1.min((ROWS * length) as u64));
    while let Some(tokens) = search.next() {
        let rows = (tokens as usize).div_ceil(length);
        let rows: Vec<_> = (0..rows).map(|i| Row::new(vec![i as u32 % 8; length])).collect();
        let rows: Vec<_> = rows.iter().collect();
        let mut run = || {
            let start = Instant::now();
            backend.run(&rows).map(|_| start.elapsed())
        };
        match run().and_then(|_| run()) {
            Ok(took) => search.ran(took),
            Err(RunError::OutOfMemory(_)) => search.found_no_memory(),
            Err(error) => return Err(PrepareError::Run(error)),
        }
    }
    search.found().ok_or_else(|| PrepareError::NoRoom(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_alike_by_their_size_too() {
        let alike = |a: &[f32], b: &[f32]| cosine_of_scores(a, b) >= tolerance(Precision::Float16);
        for (right, near, far) in [
            (&[0.][..], &[0.03][..], &[0.1][..]),
            (&[-11.2], &[-11.1], &[-9.5]),
            (&[0.5], &[0.52], &[-0.5]),
            (&[8., -3.], &[8.01, -3.02], &[-3., 8.]),
        ] {
            assert!(alike(right, right) && alike(near, right) && !alike(far, right), "{right:?}");
        }
        assert!(!alike(&[f32::NAN], &[1.]));
    }

    #[test]
    fn the_documentation_states_every_tolerance() {
        let text = include_str!("../../../docs/inference-pod.md");
        for precision in [Precision::Float32, Precision::Float16] {
            let line = format!("| `{}` | {} |", precision.name(), tolerance(precision));
            assert!(text.contains(&line), "docs/inference-pod.md lacks {line}");
        }
    }
}
