//! The driver of NVIDIA GPUs: the one file that calls CUDA, and the one that is `unsafe` for it.
//!
//! What is given out is safe whatever is done with it. Memory that the device may be reading or writing belongs to a
//! [`Flying`], which shows it to nobody; only when the device has said that it is done is there an [`Idle`] again. Nothing
//! waits for the device but [`Flying::land`], and [`Idle::launch`] when it failed.
//!
//! Calls go through `cudarc`, which opens `libcuda` when it is first needed. It panics where there is none, so that a
//! [`Driver`], without which nothing can be had here, is proof that there is one.
#![allow(unsafe_code, reason = "CUDA is a C library, and orders its work by events and not by lifetimes")]

use std::{
    ffi::{CStr, CString, c_void},
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull,
    slice,
    sync::{Arc, OnceLock},
};

use cudarc::driver::{result, sys};
use ort::{
    AsPointer, ep,
    memory::MemoryInfo,
    session::{IoBinding, RunOptions, Session},
    value::{DynValueRefMut, Shape, TensorRefMut},
};

use super::{
    fault::Fault,
    pack::{Element, Tensor},
};

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed with {} ({})", name(*.result), *.result as u32)]
pub struct CallError {
    call: &'static str,
    result: sys::CUresult,
}

impl CallError {
    /// The error, as CUDA numbers it.
    pub fn code(self) -> u32 {
        self.result as u32
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Self::of_driver(error.code(), error.to_string())
    }
}

/// CUDA's own word for an error.
fn name(result: sys::CUresult) -> String {
    let mut name = std::ptr::null();
    // SAFETY: the library is there, for one of its calls failed. The name is a constant of the library, which is never
    // closed.
    let name = unsafe {
        let found = sys::cuGetErrorName(result, &mut name) == sys::CUresult::CUDA_SUCCESS && !name.is_null();
        found.then(|| CStr::from_ptr(name))
    };
    name.map_or_else(|| "an unknown error".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn call<T>(call: &'static str, result: Result<T, result::DriverError>) -> Result<T, CallError> {
    result.map_err(|error| CallError { call, result: error.0 })
}

/// The library is there.
#[derive(Clone, Copy, Debug)]
pub struct Driver(());

impl Driver {
    /// Opens the library and starts it. `None` if there is no such library.
    ///
    /// # Errors
    /// If it does not start.
    pub fn load() -> Option<Result<Self, CallError>> {
        // SAFETY: opening it runs its initialisers, which is what it is opened for.
        unsafe { sys::is_culib_present() }.then(|| call("cuInit", result::init()).map(|()| Self(())))
    }

    /// The newest CUDA that it can run: 1000 times the major version and 10 times the minor one.
    ///
    /// # Errors
    /// If the library does not say.
    pub fn version(self) -> Result<u32, CallError> {
        let mut version = 0;
        // SAFETY: it writes one number.
        call("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
        Ok(version.unsigned_abs())
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// If the library does not say.
    pub fn count(self) -> Result<u32, CallError> {
        call("cuDeviceGetCount", result::device::get_count()).map(i32::unsigned_abs)
    }

    /// What a device is. This makes no use of it.
    ///
    /// # Errors
    /// If there is no such device, or it does not say.
    pub fn about(self, ordinal: u32) -> Result<About, CallError> {
        let device = call("cuDeviceGet", result::device::get(ordinal as i32))?;
        // SAFETY: the device is one that the library gave.
        let attribute = |attribute| unsafe {
            call("cuDeviceGetAttribute", result::device::get_attribute(device, attribute))
        };
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        Ok(About {
            ordinal,
            name: call("cuDeviceGetName", result::device::get_name(device))?,
            capability: (attribute(MAJOR)?.unsigned_abs(), attribute(MINOR)?.unsigned_abs()),
            // SAFETY: as above.
            memory: call("cuDeviceTotalMem", unsafe { result::device::total_mem(device) })? as u64,
        })
    }

    /// Takes a device into use, by its primary context: the one that ONNX Runtime uses too.
    ///
    /// # Errors
    /// If there is no such device, or it cannot be used.
    pub fn open(self, ordinal: u32) -> Result<Arc<Device>, CallError> {
        let device = call("cuDeviceGet", result::device::get(ordinal as i32))?;
        // SAFETY: the device is one that the library gave. It is released once, when this is dropped.
        let context = call("cuDevicePrimaryCtxRetain", unsafe { result::primary_ctx::retain(device) })?;
        let device = Device { ordinal, device, context, lost: OnceLock::new() };
        device.enter()?;
        // Whoever does wait sleeps, and leaves the core to others.
        let sleeping = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC;
        call("cuCtxSetFlags", result::ctx::set_flags(sleeping))?;
        Ok(Arc::new(device))
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its place among those that the process sees, from 0.
    pub ordinal: u32,
    /// As its maker calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory: u64,
}

/// A device that is in use.
pub struct Device {
    ordinal: u32,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// Why nothing that it says can be trusted any more.
    lost: OnceLock<String>,
}

// SAFETY: a context may be used by any number of threads at once, each of which enters it.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Its place among those that the process sees, from 0.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Gives it up. From now on it is asked nothing, not even to free memory: a device that hangs would never answer.
    pub fn lose(&self, why: &str) {
        if self.lost.set(why.to_owned()).is_ok() {
            tracing::error!(device = self.ordinal, why, "a device is lost");
        }
    }

    /// Why it was given up.
    pub fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Bytes of memory that are free, and bytes that there are.
    ///
    /// # Errors
    /// If the device does not say.
    pub fn memory(&self) -> Result<(u64, u64), CallError> {
        self.enter()?;
        call("cuMemGetInfo", result::mem_get_info()).map(|(free, total)| (free as u64, total as u64))
    }

    /// Makes it the device that this thread's calls are about.
    fn enter(&self) -> Result<(), CallError> {
        // SAFETY: the context is retained until this is dropped.
        call("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.context) })
    }

    /// Frees something, unless the device is lost: then that is left to the end of the process.
    fn free(&self, name: &'static str, free: impl FnOnce() -> Result<(), result::DriverError>) {
        if self.lost().is_some() {
            return;
        }
        if let Err(error) = self.enter().and_then(|()| call(name, free())) {
            self.lose(&error.to_string());
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("ordinal", &self.ordinal).field("lost", &self.lost).finish()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: it was retained once. All that was made in it holds this, and so is gone.
        self.free("cuDevicePrimaryCtxRelease", || unsafe { result::primary_ctx::release(self.device) });
    }
}

/// Work that a device does in order.
pub struct Stream {
    handle: sys::CUstream,
    device: Arc<Device>,
}

// SAFETY: a stream may be used by several threads at once.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    fn new(device: &Arc<Device>) -> Result<Self, CallError> {
        device.enter()?;
        let handle = call("cuStreamCreate", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        Ok(Self { handle, device: device.clone() })
    }

    /// As CUDA's libraries take it.
    pub fn address(&self) -> usize {
        self.handle as usize
    }

    /// ONNX Runtime's provider for this device, which asks for its work on this stream. It waits for nothing by itself where
    /// inputs and outputs lie on the device and a run is told not to.
    pub fn provider(&self) -> ep::CUDA {
        let provider = ep::CUDA::default().with_device_id(self.device.ordinal as i32);
        // SAFETY: a network is dropped before its stream: `pipeline::Launcher` sees to that.
        unsafe { provider.with_compute_stream(self.handle.cast()) }
    }

    fn wait_for(&self, event: &Event) -> Result<(), CallError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are there as long as what holds them.
        call("cuStreamWaitEvent", unsafe { result::stream::wait_event(self.handle, event.handle, flags) })
    }

    fn drain(&self) -> Result<(), CallError> {
        // SAFETY: the stream is there.
        call("cuStreamSynchronize", unsafe { result::stream::synchronize(self.handle) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once. What was asked of it is still done.
        self.device.free("cuStreamDestroy", || unsafe { result::stream::destroy(self.handle) });
    }
}

/// A moment in a stream.
struct Event {
    handle: sys::CUevent,
    device: Arc<Device>,
}

// SAFETY: an event may be used by any thread.
unsafe impl Send for Event {}

impl Event {
    /// Who waits for it sleeps.
    fn new(device: &Arc<Device>) -> Result<Self, CallError> {
        use sys::CUevent_flags::{CU_EVENT_BLOCKING_SYNC as BLOCKING, CU_EVENT_DISABLE_TIMING as UNTIMED};
        device.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: it writes one handle.
        let made = unsafe { sys::cuEventCreate(&mut handle, BLOCKING as u32 | UNTIMED as u32) };
        call("cuEventCreate", made.result())?;
        Ok(Self { handle, device: device.clone() })
    }

    fn record(&self, stream: &Stream) -> Result<(), CallError> {
        // SAFETY: both are there.
        call("cuEventRecord", unsafe { result::event::record(self.handle, stream.handle) })
    }

    fn wait(&self) -> Result<(), CallError> {
        // SAFETY: the event is there.
        call("cuEventSynchronize", unsafe { result::event::synchronize(self.handle) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once.
        self.device.free("cuEventDestroy", || unsafe { result::event::destroy(self.handle) });
    }
}

/// Memory of the device.
struct Memory {
    address: sys::CUdeviceptr,
    device: Arc<Device>,
}

impl Memory {
    fn new(device: &Arc<Device>, bytes: usize) -> Result<Self, CallError> {
        device.enter()?;
        // SAFETY: what it holds is never read before it was written by the device.
        let address = call("cuMemAlloc", unsafe { result::malloc_sync(bytes) })?;
        Ok(Self { address, device: device.clone() })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is freed once, and the device does nothing with it: `Slot` sees to that.
        self.device.free("cuMemFree", || unsafe { result::free_sync(self.address) });
    }
}

/// Memory of ours that the device copies from or to by itself.
struct Pinned {
    place: NonNull<u8>,
    bytes: usize,
    device: Arc<Device>,
}

// SAFETY: it is memory like any other, and belongs to whoever holds this.
unsafe impl Send for Pinned {}

/// What pinned memory is for.
#[derive(Clone, Copy)]
enum Use {
    /// We write it and the device reads it. It is not cached, so that reading it would take us very long.
    In,
    /// The device writes it and we read it.
    Out,
}

impl Pinned {
    fn new(device: &Arc<Device>, bytes: usize, what_for: Use) -> Result<Self, CallError> {
        device.enter()?;
        let flags = match what_for {
            Use::In => sys::CU_MEMHOSTALLOC_WRITECOMBINED,
            Use::Out => 0,
        };
        // SAFETY: it is filled below, before anybody sees it.
        let place = call("cuMemHostAlloc", unsafe { result::malloc_host(bytes, flags) })?;
        let none = CallError { call: "cuMemHostAlloc", result: sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY };
        let place = NonNull::new(place.cast::<u8>()).ok_or(none)?;
        // SAFETY: there are so many bytes.
        unsafe { place.write_bytes(0, bytes) };
        Ok(Self { place, bytes, device: device.clone() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: as for `Memory`.
        self.device
            .free("cuMemFreeHost", || unsafe { result::free_host(self.place.as_ptr().cast::<c_void>()) });
    }
}

/// The three streams of a device. Copies to it and from it have one each, so that they run beside what is computed.
pub struct Streams {
    copy_in: Stream,
    compute: Stream,
    copy_out: Stream,
}

impl Streams {
    /// Makes them.
    ///
    /// # Errors
    /// If the device does not.
    pub fn new(device: &Arc<Device>) -> Result<Self, CallError> {
        Ok(Self {
            copy_in: Stream::new(device)?,
            compute: Stream::new(device)?,
            copy_out: Stream::new(device)?,
        })
    }

    /// The one that networks run on.
    pub fn compute(&self) -> &Stream {
        &self.compute
    }

    /// Waits until nothing runs.
    fn drain(&self) -> Result<(), CallError> {
        [&self.copy_in, &self.compute, &self.copy_out].into_iter().try_for_each(Stream::drain)
    }
}

/// Memory for one batch, on the device and here, and the moments that order what is done with it.
struct Slot {
    input: Pinned,
    device_input: Memory,
    device_output: Memory,
    output: Pinned,
    copied: Event,
    computed: Event,
    landed: Event,
}

/// Memory for one batch that the device does nothing with.
pub struct Idle(Box<Slot>);

/// Memory for one batch that belongs to the device for now. If it is dropped it is never freed, for nobody knows when it could
/// be.
pub struct Flying(ManuallyDrop<Box<Slot>>);

/// Where a network finds what it is given, and leaves what it makes: on the device, in memory that is its own until what it
/// asks for on the compute stream is done.
#[derive(Debug)]
pub struct Regions<'s> {
    input: u64,
    input_bytes: usize,
    output: u64,
    output_floats: usize,
    slot: PhantomData<&'s Slot>,
}

impl Regions<'_> {
    /// The address of the first byte that is copied in, and how many are.
    pub fn input(&self) -> (u64, usize) {
        (self.input, self.input_bytes)
    }

    /// The address of the first number that is copied out, and how many are.
    pub fn output(&self) -> (u64, usize) {
        (self.output, self.output_floats)
    }

    /// Lets a session run on tensors in these regions, which lie in `memory`, as ONNX Runtime calls the device's. It makes one
    /// output, `[rows, columns]`.
    ///
    /// # Errors
    /// If it refuses, or a tensor lies outside.
    pub fn run(
        &self,
        session: &mut Session,
        binding: &mut IoBinding,
        (options, memory): (&RunOptions, &MemoryInfo<'static>),
        inputs: &[Tensor],
        (output, shape): (&str, [usize; 2]),
    ) -> ort::Result<()> {
        for tensor in inputs {
            let name = CString::new(tensor.name).map_err(|e| ort::Error::new(e.to_string()))?;
            let value = self.tensor(tensor, memory)?;
            // SAFETY: binding and value are there. `ort` would copy the value first, for it does not know that its memory
            // stays; the binding is cleared below, before anybody else can use it.
            unsafe {
                let status = (ort::api().BindInput)(binding.ptr().cast_mut(), name.as_ptr(), value.ptr());
                ort::Error::result_from_status(status)?;
            }
        }
        let numbers: usize = shape.iter().product();
        if numbers > self.output_floats {
            return Err(outside(output));
        }
        let shape = Shape::new(shape.map(|n| n as i64));
        // SAFETY: there are so many floats there. What is asked of the device is done before the slot is anybody else's.
        let value = unsafe { TensorRefMut::<f32>::from_raw(memory.clone(), self.output as *mut _, shape) }?;
        binding.bind_output(output, value)?;
        let ran = session.run_binding_with_options(binding, options).map(drop);
        binding.clear();
        ran
    }

    fn tensor(&self, tensor: &Tensor, memory: &MemoryInfo<'static>) -> ort::Result<DynValueRefMut<'_>> {
        let bytes = tensor.shape.iter().product::<usize>() * size_of::<i32>();
        if tensor.offset + bytes > self.input_bytes {
            return Err(outside(tensor.name));
        }
        let place = (self.input + tensor.offset as u64) as *mut _;
        let shape = Shape::new(tensor.shape.iter().map(|&n| n as i64));
        // SAFETY: there are so many bytes there, and any four of them are an integer or a float.
        Ok(match tensor.element {
            Element::Int32 => {
                unsafe { TensorRefMut::<i32>::from_raw(memory.clone(), place, shape) }?.into_dyn()
            }
            // SAFETY: as above.
            Element::Float32 => {
                unsafe { TensorRefMut::<f32>::from_raw(memory.clone(), place, shape) }?.into_dyn()
            }
        })
    }
}

fn outside(tensor: &str) -> ort::Error {
    ort::Error::new(format!("{tensor} lies outside of what the slot holds"))
}

/// A batch that did not take off.
pub struct Grounded {
    /// Its memory, if the device is still to be trusted.
    pub slot: Option<Idle>,
    /// Why.
    pub fault: Fault,
}

impl Idle {
    /// Takes memory for batches of so many bytes, which give so many 32-bit floats.
    ///
    /// # Errors
    /// If there is not so much.
    pub fn new(device: &Arc<Device>, input_bytes: usize, output_floats: usize) -> Result<Self, CallError> {
        let output_bytes = output_floats * size_of::<f32>();
        Ok(Self(Box::new(Slot {
            input: Pinned::new(device, input_bytes, Use::In)?,
            device_input: Memory::new(device, input_bytes)?,
            device_output: Memory::new(device, output_bytes)?,
            output: Pinned::new(device, output_bytes, Use::Out)?,
            copied: Event::new(device)?,
            computed: Event::new(device)?,
            landed: Event::new(device)?,
        })))
    }

    /// To write what the device shall have, from front to back. It is not cached, so that reading it takes very long.
    pub fn input(&mut self) -> &mut [u8] {
        let Pinned { place, bytes, .. } = &self.0.input;
        // SAFETY: it is ours alone while the slot is idle, was written once, and there are so many bytes.
        unsafe { slice::from_raw_parts_mut(place.as_ptr(), *bytes) }
    }

    /// What the device made of the last batch, in as many numbers as were asked for then; beyond that, of earlier ones.
    pub fn output(&self) -> &[f32] {
        let Pinned { place, bytes, .. } = &self.0.output;
        // SAFETY: as above. Pinned memory begins at a page, and any four bytes are a float.
        unsafe { slice::from_raw_parts(place.as_ptr().cast::<f32>(), bytes / size_of::<f32>()) }
    }

    /// Asks the device to copy the first bytes of the input, to do what `compute` asks it to on the compute stream, and
    /// to copy out what that gives. Waits for none of it.
    ///
    /// # Errors
    /// If one of these was refused. Then it was waited until the device does nothing more.
    pub fn launch(
        self,
        streams: &Streams,
        (input_bytes, output_floats): (usize, usize),
        compute: impl FnOnce(&Regions<'_>) -> Result<(), Fault>,
    ) -> Result<Flying, Grounded> {
        let (room, floats) = (self.0.input.bytes, self.0.output.bytes / size_of::<f32>());
        if input_bytes > room || output_floats > floats {
            let fault = format!(
                "a batch of {input_bytes} bytes and {output_floats} numbers for a slot of {room} and {floats}"
            );
            return Err(Grounded { slot: Some(self), fault: Fault::Refused(fault) });
        }
        let flying = Flying(ManuallyDrop::new(self.0));
        let slot: &Slot = &flying.0;
        match slot.order(streams, (input_bytes, output_floats), compute) {
            Ok(()) => Ok(flying),
            Err(fault) => Err(flying.ground(streams, fault)),
        }
    }
}

impl Slot {
    fn order(
        &self,
        streams: &Streams,
        (input_bytes, output_floats): (usize, usize),
        compute: impl FnOnce(&Regions<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.input.device.enter()?;
        let Streams { copy_in, compute: computing, copy_out } = streams;
        let (to, from) = (&self.device_input, &self.input);
        // SAFETY: both places have so many bytes, and belong to the device until it is done: the caller holds a `Flying`.
        let copied = unsafe {
            let bytes = slice::from_raw_parts(from.place.as_ptr(), input_bytes);
            result::memcpy_htod_async(to.address, bytes, copy_in.handle)
        };
        call("cuMemcpyHtoDAsync", copied)?;
        self.copied.record(copy_in)?;
        computing.wait_for(&self.copied)?;
        compute(&Regions {
            input: to.address,
            input_bytes,
            output: self.device_output.address,
            output_floats,
            slot: PhantomData,
        })?;
        self.computed.record(computing)?;
        copy_out.wait_for(&self.computed)?;
        let (to, from) = (&self.output, &self.device_output);
        // SAFETY: as above.
        let copied = unsafe {
            let bytes = slice::from_raw_parts_mut(to.place.as_ptr(), output_floats * size_of::<f32>());
            result::memcpy_dtoh_async(bytes, from.address, copy_out.handle)
        };
        call("cuMemcpyDtoHAsync", copied)?;
        Ok(self.landed.record(copy_out)?)
    }
}

impl Flying {
    /// Waits until what the device made is here.
    ///
    /// # Errors
    /// If it failed, whatever the reason: then nobody knows what it did, and it is lost. The memory is not freed.
    pub fn land(mut self) -> Result<Idle, Fault> {
        let device = &self.0.input.device;
        if let Err(error) = device.enter().and_then(|()| self.0.landed.wait()) {
            device.lose(&error.to_string());
            return Err(Fault::Lost(error.to_string()));
        }
        // SAFETY: it is taken once, for `self` is forgotten.
        let slot = unsafe { ManuallyDrop::take(&mut self.0) };
        Ok(Idle(slot))
    }

    /// Waits until the device does nothing more, with this or with anything else.
    fn ground(mut self, streams: &Streams, fault: Fault) -> Grounded {
        let drained = if fault.is_loss() { None } else { Some(streams.drain()) };
        let fault = match drained {
            Some(Ok(())) => {
                // SAFETY: it is taken once, for `self` is forgotten.
                let slot = unsafe { ManuallyDrop::take(&mut self.0) };
                return Grounded { slot: Some(Idle(slot)), fault };
            }
            Some(Err(error)) => Fault::Lost(format!("{error}, after: {fault}")),
            None => fault,
        };
        self.0.input.device.lose(&fault.to_string());
        Grounded { slot: None, fault }
    }
}

/// Ends the process at once, without asking the driver to clean up: a device that hangs would keep it from ending.
pub fn leave(code: i32) -> ! {
    unsafe extern "C" {
        fn _exit(code: i32) -> !;
    }
    // SAFETY: it does nothing but end the process.
    unsafe { _exit(code) }
}
