//! A graph of [`crate::export::packed`] on a GPU, by ONNX Runtime.

use std::{sync::Arc, time::Duration};

use kembed_queue::Lengths;
use ort::{
    environment::Environment,
    ep::{ArbitrarilyConfigurableExecutionProvider, ArenaExtendStrategy, cuda::AttentionBackend},
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, RunOptions, Session},
};

use super::{
    driver::{Device, Regions, Streams},
    fault::Fault,
    pack::{ALIGNMENT, Packed},
    parts::{AREA, in_parts},
    pipeline::{Compute, Size, Worker},
};
use crate::{
    backend::{Backend, RunError, Took},
    batch::row::{Row, Wanted},
    export::{
        Exported,
        packed::{Form, VECTORS},
    },
};

/// A session, and what it is told at each run.
pub struct Network {
    binding: IoBinding,
    session: Session,
    options: RunOptions,
    memory: MemoryInfo<'static>,
    dimension: usize,
}

impl Network {
    /// Makes the session of a graph on a device, for its compute stream. All of it runs on the device, or it is not made.
    ///
    /// # Errors
    /// If the library has no code for GPUs, some node cannot run there, or there is not enough memory.
    pub fn on(
        device: &Device,
        streams: &Streams,
        environment: &Environment,
        graph: &Exported,
        dimension: usize,
    ) -> ort::Result<Self> {
        let provider = streams
            .compute()
            .provider()
            // What is asked for is what is taken: doubling would leave less for others.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_tf32(false)
            .with_attention_backend(attention())
            .with_arbitrary_config("use_ep_level_unified_stream", "1");
        let folder = graph.folder.to_string_lossy();
        let session = Session::builder(environment)?
            .with_intra_threads(1)?
            .with_memory_pattern(false)?
            .with_disable_cpu_fallback()?
            .with_execution_providers([provider.build().error_on_failure()])?
            .with_config_entry("session.model_external_initializers_file_folder_path", folder)?
            // Else tables of more than a gigabyte would be rounded anew for each batch.
            .with_config_entry("optimization.constant_folding_max_output_size_in_bytes", "0")?
            .commit_from_memory(&graph.onnx)?;
        let device = device.ordinal() as i32;
        let memory =
            MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default)?;
        Self::new(session, memory, dimension)
    }

    /// A session whose inputs and outputs lie in such memory, and which gives vectors of so many numbers.
    ///
    /// # Errors
    /// If ONNX Runtime fails.
    pub fn new(session: Session, memory: MemoryInfo<'static>, dimension: usize) -> ort::Result<Self> {
        let mut options = RunOptions::new()?;
        options.disable_device_sync()?;
        Ok(Self { binding: session.create_binding()?, session, options, memory, dimension })
    }
}

/// The kernels of attention that ONNX Runtime may take, of which it takes the first that can. Unless it is told, it makes all scores
/// of all rows at once where they are in 32 bits and of fewer than 256 tokens, for which it waits for the device in each
/// layer. TensorRT's are left out: only GPUs before 8.0 would use them, and the stand-ins of `tests/provider` do not see them started.
fn attention() -> AttentionBackend {
    AttentionBackend::FLASH_ATTENTION | AttentionBackend::EFFICIENT_ATTENTION | AttentionBackend::MATH
}

impl Compute for Network {
    type Batch = Arc<Packed>;

    fn enqueue(&mut self, batch: &Arc<Packed>, regions: &Regions<'_>) -> Result<(), Fault> {
        let Self { binding, session, options, memory, dimension } = self;
        let output = (VECTORS, [batch.rows, *dimension]);
        let ran = regions.run(session, binding, (options, memory), &batch.tensors, output);
        ran.map_err(|error| Fault::of_onnxruntime(error.message()))
    }
}

/// A network on a GPU, for one of the threads that give it batches.
pub struct OnGpu<C: Compute = Network> {
    worker: Worker<C>,
    form: Form,
    dimension: usize,
}

impl<C: Compute<Batch = Arc<Packed>>> OnGpu<C> {
    /// Gives batches to a worker of a device, whose network is told so much of them, and gives vectors of so many numbers.
    pub fn new(worker: Worker<C>, form: impl Into<Form>, dimension: usize) -> Self {
        Self { worker, form: form.into(), dimension }
    }

    /// Sets how long a batch may take from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.worker.set_patience(patience);
    }
}

/// What a slot must hold for batches of so many rows and tokens, of rows of up to `longest` tokens. `None` if it is not known
/// how to pool so.
pub fn slot_size(
    rows: usize,
    tokens: usize,
    longest: usize,
    form: impl Into<Form>,
    dimension: usize,
) -> Option<Size> {
    // Nothing takes more than one row of the longest, which makes all others be padded to it, and short ones.
    let longest = longest.min(tokens);
    let (others, left) = (rows.saturating_sub(1), tokens - longest);
    let short = |i| left.checked_div(others).unwrap_or_default() + usize::from(i < left % others.max(1));
    let lengths: Vec<_> = [longest].into_iter().chain((0..others).map(|i| short(i).max(1))).collect();
    let packed = Packed::new(&lengths, form)?;
    // Other batches may need more rows to fill them: an eighth of the tokens, in rows of one or of the longest. And their tensors may end
    // just behind where the next one could begin.
    let filled = 2 * (tokens / 8 + longest) * size_of::<i32>() + packed.tensors.len() * ALIGNMENT;
    Some(Size { input_bytes: packed.bytes + filled, output_floats: rows * dimension })
}

impl<C: Compute<Batch = Arc<Packed>>> Backend for OnGpu<C> {
    fn lengths(&self) -> Lengths {
        Lengths::Any
    }

    fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
        if batch.iter().any(|row| row.wanted != Wanted::One) {
            return Err(RunError::Failed("on a GPU a row has one vector".into()));
        }
        in_parts(batch, AREA, |part| self.run_part(part))
    }

    fn took(&mut self) -> Option<Took> {
        self.worker.took()
    }
}

impl<C: Compute<Batch = Arc<Packed>>> OnGpu<C> {
    fn run_part(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
        let lengths: Vec<_> = batch.iter().map(|row| row.ids.len()).collect();
        let no_way = || RunError::Failed("on a GPU there is no such pooling".into());
        let packed = Arc::new(Packed::new(&lengths, self.form).ok_or_else(no_way)?);
        let dimension = self.dimension;
        let size = Size { input_bytes: packed.bytes, output_floats: packed.rows * dimension };
        let fill = |memory: &mut [u8]| packed.write(batch, memory);
        let read = |numbers: &[f32]| numbers.chunks(dimension).map(<[f32]>::to_vec).collect();
        self.worker.run(packed.clone(), size, fill, read).map_err(RunError::from)
    }
}

impl From<Fault> for RunError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::OutOfMemory(what) => Self::OutOfMemory(what),
            Fault::Refused(what) => Self::Failed(what),
            Fault::Lost(why) => Self::Lost(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pooling::Pooling;

    proptest! {
        #[test]
        fn every_batch_within_the_limits_fits_its_slot(
            lengths in prop_oneof![
                proptest::collection::vec(1..600usize, 1..200),
                proptest::collection::vec(1..20usize, 1..12),
            ],
            (more_rows, more_tokens, more_longest) in prop_oneof![
                (0..40usize, 0..2000usize, 0..100usize),
                (0..3usize, 0..10usize, 0..3usize),
            ],
            same in proptest::option::of(1..40usize),
        ) {
            // Many of one length need other rows to fill them than a mixture does.
            let lengths: Vec<_> = lengths.iter().map(|&length| same.unwrap_or(length)).collect();
            let (rows, tokens) = (lengths.len() + more_rows, lengths.iter().sum::<usize>() + more_tokens);
            let longest = lengths.iter().max().copied().unwrap_or_default() + more_longest;
            for (pooling, more) in [(Pooling::Mean, false), (Pooling::Cls, true)] {
                let form = Form { pooling, types: more, places: more };
                let size = slot_size(rows, tokens, longest, form, 4).expect("it is known how");
                let packed = Packed::new(&lengths, form).expect("it is known how");
                prop_assert!(packed.bytes <= size.input_bytes, "{} in {}", packed.bytes, size.input_bytes);
                prop_assert!(packed.rows * 4 <= size.output_floats);
            }
        }
    }
}
