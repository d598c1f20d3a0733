//! One device at work: a thread that asks it for batches, and one that waits until they are done.
//!
//! A batch goes from its [`Worker`] to the first thread, from there to the second, and back. Its memory, a slot, goes with it,
//! so that nobody can touch it on the way, nor use it for another batch. There are as many workers as slots: while the device
//! computes one batch, the next one is copied in and the last one is answered.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    driver::{Device, Flying, Grounded, Idle, Mark, Regions, Sample, Streams},
    fault::Fault,
};
use crate::backend::Took;

/// Of how many batches one is timed by the device. It takes a dozen calls, each about a microsecond.
pub const SAMPLED: u64 = 16;

/// What runs on the device.
pub trait Compute: Send + 'static {
    /// What it must know of a batch beside what was copied to the device.
    type Batch: Send + 'static;

    /// Asks the device to make a batch's output of its input, on the stream that this was made for. Waits for nothing, and
    /// asks for nothing that touches other memory of the slot.
    ///
    /// # Errors
    /// If that is refused.
    fn enqueue(&mut self, batch: &Self::Batch, regions: &Regions<'_>) -> Result<(), Fault>;
}

/// How much a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes that are copied in.
    pub input_bytes: usize,
    /// 32-bit floats that are copied out.
    pub output_floats: usize,
}

/// How a device is used.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Batches in hand at a time.
    pub slots: usize,
    /// Of the largest batch.
    pub size: Size,
    /// How long a batch may take, those before it included. A device that takes longer hangs.
    pub patience: Duration,
}

/// A device could not be taken into use.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// It has no room, or is broken.
    #[error("failed to prepare the device: {0}")]
    Device(Fault),
    /// The system gives no threads.
    #[error("failed to start a thread for the device")]
    Thread(#[source] io::Error),
}

/// A batch on its way.
struct Job<B> {
    slot: Idle,
    batch: B,
    size: Size,
    answer: Answer,
}

type Answer = SyncSender<Result<(Idle, Option<Took>), Grounded>>;

/// Runs one batch at a time.
pub struct Worker<C: Compute> {
    /// Gone once the device is lost.
    slot: Option<Idle>,
    took: Option<Took>,
    // Before the threads, which end when there is no worker left that could give them anything.
    jobs: SyncSender<Job<C::Batch>>,
    patience: Duration,
    device: Arc<Device>,
    _threads: Arc<Threads>,
}

/// Takes a device into use. The network must have been made for the compute stream.
///
/// # Errors
/// If the device has no room for the slots, or the system gives no threads.
pub fn start<C: Compute>(
    device: &Arc<Device>,
    streams: Streams,
    compute: C,
    settings: Settings,
) -> Result<Vec<Worker<C>>, PipelineError> {
    let Settings { slots, size, patience } = settings;
    let slot = |_| Idle::new(device, size.input_bytes, size.output_floats);
    let slots: Vec<_> =
        (0..slots).map(slot).collect::<Result<_, _>>().map_err(|e| PipelineError::Device(e.into()))?;
    let (jobs, waiting) = sync_channel(slots.len());
    let (flights, flying) = sync_channel(slots.len());
    let landed = Arc::new(AtomicU64::new(0));
    let launcher = Launcher {
        compute,
        streams,
        device: device.clone(),
        flights,
        launched: 0,
        landed: landed.clone(),
        mark: None,
    };
    let land = spawn(format!("land-{}", device.ordinal()), {
        let device = device.clone();
        move || land(&device, flying, &landed)
    })?;
    let launch = spawn(format!("launch-{}", device.ordinal()), move || launcher.run(waiting))?;
    let threads = Arc::new(Threads { device: device.clone(), handles: vec![launch, land] });
    let worker = |slot| Worker {
        slot: Some(slot),
        took: None,
        jobs: jobs.clone(),
        patience,
        device: device.clone(),
        _threads: threads.clone(),
    };
    Ok(slots.into_iter().map(worker).collect())
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PipelineError> {
    thread::Builder::new().name(name).spawn(run).map_err(PipelineError::Thread)
}

impl<C: Compute> Worker<C> {
    /// Runs a batch: `fill` writes what is copied in, and `read` is shown what comes back.
    ///
    /// # Errors
    /// If the device did not do it. After a loss nothing is run any more.
    pub fn run<T>(
        &mut self,
        batch: C::Batch,
        size: Size,
        fill: impl FnOnce(&mut [u8]),
        read: impl FnOnce(&[f32]) -> T,
    ) -> Result<T, Fault> {
        let Some(mut slot) = self.slot.take() else { return Err(lost(&self.device)) };
        if size.input_bytes > slot.input().len() || size.output_floats > slot.output().len() {
            self.slot = Some(slot);
            return Err(Fault::Refused(format!("a batch of {size:?} is larger than its slot")));
        }
        fill(&mut slot.input()[..size.input_bytes]);
        let (answer, answers) = sync_channel(1);
        if self.jobs.send(Job { slot, batch, size, answer }).is_err() {
            return Err(self.lose("the thread that launches has ended"));
        }
        match answers.recv_timeout(self.patience) {
            Ok(Ok((slot, took))) if self.device.lost().is_none() => {
                self.took = took;
                let output = read(&slot.output()[..size.output_floats]);
                self.slot = Some(slot);
                Ok(output)
            }
            Ok(Ok(_)) => Err(lost(&self.device)),
            Ok(Err(Grounded { slot, fault })) => {
                self.slot = slot;
                Err(fault)
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(self.lose(&format!("it did not finish a batch in {:?}", self.patience)))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.lose("a thread of the device has ended")),
        }
    }

    /// Sets how long a batch may take from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How long the device took for the last batch, if that was measured, and was not asked for before.
    pub fn took(&mut self) -> Option<Took> {
        self.took.take()
    }

    fn lose(&self, why: &str) -> Fault {
        self.device.lose(why);
        lost(&self.device)
    }
}

fn lost(device: &Device) -> Fault {
    Fault::Lost(device.lost().unwrap_or("its memory is gone").to_owned())
}

/// What the first thread has.
struct Launcher<C> {
    // Before the streams, for it uses one of them.
    compute: C,
    streams: Streams,
    device: Arc<Device>,
    flights: SyncSender<(Flying, Answer)>,
    /// Batches that took off.
    launched: u64,
    /// Batches that are done.
    landed: Arc<AtomicU64>,
    /// The end of the batch before one that is timed.
    mark: Option<Mark>,
}

impl<C: Compute> Launcher<C> {
    fn run(mut self, jobs: Receiver<Job<C::Batch>>) {
        for Job { slot, batch, size, answer } in jobs {
            match self.launch(slot, &batch, size) {
                Ok(flying) => {
                    self.launched += 1;
                    self.mark();
                    // The other thread ends after this one, unless it panicked: then the answer goes with the flight.
                    drop(self.flights.send((flying, answer)));
                }
                // A worker that gave up waiting is no longer there.
                Err(grounded) => drop(answer.send(Err(grounded))),
            }
        }
    }

    fn launch(&mut self, slot: Idle, batch: &C::Batch, size: Size) -> Result<Flying, Grounded> {
        let sample = self.sample();
        let grounded = match self.attempt(slot, batch, size, sample) {
            Ok(flying) => return Ok(flying),
            Err(grounded) => grounded,
        };
        match grounded {
            // By now nothing else runs, and what other batches had taken of the memory is free again.
            Grounded { slot: Some(slot), fault: Fault::OutOfMemory(_) } => {
                self.attempt(slot, batch, size, None)
            }
            grounded => Err(grounded),
        }
    }

    /// What is wanted to be known of the next batch. How long the device was idle before it, that tells only if it came while
    /// another was still there.
    fn sample(&mut self) -> Option<Sample> {
        let mark = self.mark.take();
        let comes_at_once = self.launched > self.landed.load(Ordering::Acquire);
        self.launched.is_multiple_of(SAMPLED).then(|| Sample { since: mark.filter(|_| comes_at_once) })
    }

    /// Marks the end of a batch before one that will be timed.
    fn mark(&mut self) {
        if !(self.launched).is_multiple_of(SAMPLED) {
            return;
        }
        match self.streams.mark().map_err(Fault::from) {
            Ok(mark) => self.mark = Some(mark),
            Err(fault) if fault.is_loss() => self.device.lose(&fault.to_string()),
            Err(fault) => tracing::debug!(%fault, "one batch's times are not taken"),
        }
    }

    fn attempt(
        &mut self,
        slot: Idle,
        batch: &C::Batch,
        size: Size,
        sample: Option<Sample>,
    ) -> Result<Flying, Grounded> {
        if self.device.lost().is_some() {
            return Err(Grounded { slot: None, fault: lost(&self.device) });
        }
        let compute = &mut self.compute;
        let sizes = (size.input_bytes, size.output_floats);
        slot.launch(&self.streams, sizes, sample, |regions| compute.enqueue(batch, regions))
    }
}

/// The second thread. Batches are done in the order in which they were launched.
fn land(device: &Device, flights: Receiver<(Flying, Answer)>, count: &AtomicU64) {
    for (flying, answer) in flights {
        let landed = match device.lost() {
            // What was done after the device was lost is not looked at.
            Some(_) => Err(lost(device)),
            None => flying.land(),
        };
        count.fetch_add(1, Ordering::Release);
        // A worker that gave up waiting is no longer there.
        let _ = answer.send(landed.map_err(|fault| Grounded { slot: None, fault }));
    }
}

/// The two threads of a device, which are waited for when the last worker goes, unless the device is lost: who waits for a
/// device that hangs never ends.
struct Threads {
    device: Arc<Device>,
    handles: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        if self.device.lost().is_some() {
            return;
        }
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!(device = self.device.ordinal(), "a thread of the device panicked");
            }
        }
    }
}
