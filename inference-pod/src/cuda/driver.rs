//! The driver of NVIDIA GPUs: the one file that calls CUDA, and the one that is `unsafe` for it.
//!
//! What is given out is safe whatever is done with it. Memory that the device may be reading or writing belongs to a
//! [`Flying`], which shows it to nobody; only when the device has said that it is done is there an [`Idle`] again. Nothing
//! waits for the device but [`Flying::land`], and [`Idle::launch`] when it failed.
//!
//! `cudarc` opens `libcuda` when it is first needed, and has its types. It is called by [`Calls`], without which nothing can be
//! had here: they are proof that there is one.
#![allow(unsafe_code, reason = "CUDA is a C library, and orders its work by events and not by lifetimes")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull,
    slice,
    sync::{Arc, OnceLock},
    time::Duration,
};

use cudarc::driver::sys;
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
use crate::backend::Took;

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError {
    call: &'static str,
    code: u32,
    /// CUDA's own word for it, if it is one that this driver knows.
    name: Option<&'static str>,
}

impl CallError {
    /// The error, as CUDA numbers it.
    pub fn code(self) -> u32 {
        self.code
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, code, name } = self;
        match name {
            Some(name) => write!(f, "{call} failed with {name} ({code})"),
            None => write!(f, "{call} failed with unknown CUDA error {code}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Self::of_driver(error.code, error.to_string())
    }
}

/// What a library that lacks a call would have said if it had it.
const NOT_FOUND: u32 = 500;
const OUT_OF_MEMORY: u32 = 2;

macro_rules! calls {
    ($($name:ident ($($kind:ty),*);)*) => {
        /// What is called here, as the driver's header has it, but for what it returns. That is an enum in `cudarc`, and a newer
        /// driver has errors that are not in it: what is no value of an enum must never become one. Here it is a number.
        #[derive(Debug)]
        #[allow(non_snake_case, reason = "they are called so")]
        struct Calls {
            $($name: unsafe extern "C" fn($($kind),*) -> c_uint,)*
        }

        impl Calls {
            fn find() -> Result<Self, CallError> {
                Ok(Self {
                    // SAFETY: these are their signatures. The caller has seen that there is a library, which is never closed.
                    $($name: *unsafe { sys::culib().get(stringify!($name)) }.map_err(|_| {
                        CallError { call: stringify!($name), code: NOT_FOUND, name: Some("no such call in the driver") }
                    })?,)*
                })
            }
        }
    };
}

calls! {
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
    cuGetErrorName(c_uint, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut sys::CUdevice, c_int);
    cuDeviceGetAttribute(*mut c_int, c_int, sys::CUdevice);
    cuDeviceGetName(*mut c_char, c_int, sys::CUdevice);
    cuDeviceGetUuid_v2(*mut [u8; 16], sys::CUdevice);
    cuDeviceTotalMem_v2(*mut usize, sys::CUdevice);
    cuDevicePrimaryCtxRetain(*mut sys::CUcontext, sys::CUdevice);
    cuDevicePrimaryCtxRelease_v2(sys::CUdevice);
    cuCtxSetCurrent(sys::CUcontext);
    cuCtxSetFlags(c_uint);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuStreamCreate(*mut sys::CUstream, c_uint);
    cuStreamDestroy_v2(sys::CUstream);
    cuStreamWaitEvent(sys::CUstream, sys::CUevent, c_uint);
    cuStreamSynchronize(sys::CUstream);
    cuEventCreate(*mut sys::CUevent, c_uint);
    cuEventDestroy_v2(sys::CUevent);
    cuEventRecord(sys::CUevent, sys::CUstream);
    cuEventSynchronize(sys::CUevent);
    cuEventElapsedTime(*mut f32, sys::CUevent, sys::CUevent);
    cuMemAlloc_v2(*mut sys::CUdeviceptr, usize);
    cuMemFree_v2(sys::CUdeviceptr);
    cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    cuMemFreeHost(*mut c_void);
    cuMemcpyHtoDAsync_v2(sys::CUdeviceptr, *const c_void, usize, sys::CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, sys::CUdeviceptr, usize, sys::CUstream);
}

impl Calls {
    /// What became of a call.
    fn check(&self, call: &'static str, code: c_uint) -> Result<(), CallError> {
        if code == 0 { Ok(()) } else { Err(CallError { call, code, name: self.name(code) }) }
    }

    fn name(&self, code: c_uint) -> Option<&'static str> {
        let mut name = std::ptr::null();
        // SAFETY: it writes one pointer: to a constant of the library, which is never closed, or none.
        let name = unsafe {
            let found = (self.cuGetErrorName)(code, &mut name) == 0 && !name.is_null();
            found.then(|| CStr::from_ptr(name))
        };
        name?.to_str().ok()
    }
}

/// The library is there.
#[derive(Clone, Copy, Debug)]
pub struct Driver(&'static Calls);

impl Driver {
    /// Opens the library and starts it. `None` if there is no such library.
    ///
    /// # Errors
    /// If it does not start.
    pub fn load() -> Option<Result<Self, CallError>> {
        static CALLS: OnceLock<Calls> = OnceLock::new();
        // SAFETY: opening it runs its initialisers, which is what it is opened for.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        let start = || {
            let calls = match CALLS.get() {
                Some(calls) => calls,
                None => CALLS.get_or_init({
                    let found = Calls::find()?;
                    || found
                }),
            };
            // SAFETY: it takes one number.
            calls.check("cuInit", unsafe { (calls.cuInit)(0) })?;
            Ok(Self(calls))
        };
        Some(start())
    }

    /// The newest CUDA that it can run: 1000 times the major version and 10 times the minor one.
    ///
    /// # Errors
    /// If the library does not say.
    pub fn version(self) -> Result<u32, CallError> {
        let mut version = 0;
        // SAFETY: it writes one number.
        self.0.check("cuDriverGetVersion", unsafe { (self.0.cuDriverGetVersion)(&mut version) })?;
        Ok(version.unsigned_abs())
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// If the library does not say.
    pub fn count(self) -> Result<u32, CallError> {
        let mut count = 0;
        // SAFETY: it writes one number.
        self.0.check("cuDeviceGetCount", unsafe { (self.0.cuDeviceGetCount)(&mut count) })?;
        Ok(count.unsigned_abs())
    }

    /// What a device is. This makes no use of it.
    ///
    /// # Errors
    /// If there is no such device, or it does not say.
    pub fn about(self, ordinal: u32) -> Result<About, CallError> {
        let device = self.device(ordinal)?;
        let (major, minor) = (
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        );
        let attribute = |attribute: sys::CUdevice_attribute| {
            let mut value = 0;
            // SAFETY: it writes one number. The device is one that the library gave.
            let got = unsafe { (self.0.cuDeviceGetAttribute)(&mut value, attribute as c_int, device) };
            self.0.check("cuDeviceGetAttribute", got).map(|()| value.unsigned_abs())
        };
        let mut memory = 0;
        // SAFETY: as above.
        let got = unsafe { (self.0.cuDeviceTotalMem_v2)(&mut memory, device) };
        self.0.check("cuDeviceTotalMem", got)?;
        Ok(About {
            ordinal,
            name: self.name(device)?,
            capability: (attribute(major)?, attribute(minor)?),
            memory: memory as u64,
        })
    }

    fn name(self, device: sys::CUdevice) -> Result<String, CallError> {
        let mut name = [0u8; 128];
        // SAFETY: it writes no more than so many bytes.
        let got = unsafe { (self.0.cuDeviceGetName)(name.as_mut_ptr().cast(), name.len() as c_int, device) };
        self.0.check("cuDeviceGetName", got)?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    /// What a device, or the part of one that the process was given, is known by everywhere.
    ///
    /// # Errors
    /// If there is no such device, or it does not say.
    pub fn uuid(self, ordinal: u32) -> Result<[u8; 16], CallError> {
        let (device, mut uuid) = (self.device(ordinal)?, [0; 16]);
        // SAFETY: it writes so many bytes. The device is one that the library gave.
        self.0.check("cuDeviceGetUuid", unsafe { (self.0.cuDeviceGetUuid_v2)(&mut uuid, device) })?;
        Ok(uuid)
    }

    fn device(self, ordinal: u32) -> Result<sys::CUdevice, CallError> {
        let mut device = 0;
        // SAFETY: it writes one number.
        let got = unsafe { (self.0.cuDeviceGet)(&mut device, ordinal as c_int) };
        self.0.check("cuDeviceGet", got).map(|()| device)
    }

    /// Takes a device into use, by its primary context: the one that ONNX Runtime uses too.
    ///
    /// # Errors
    /// If there is no such device, or it cannot be used.
    pub fn open(self, ordinal: u32) -> Result<Arc<Device>, CallError> {
        let (calls, device, mut context) = (self.0, self.device(ordinal)?, std::ptr::null_mut());
        // SAFETY: the device is one that the library gave. It is released once, when this is dropped.
        let retained = unsafe { (calls.cuDevicePrimaryCtxRetain)(&mut context, device) };
        calls.check("cuDevicePrimaryCtxRetain", retained)?;
        let device = Device { ordinal, device, context, calls, lost: OnceLock::new() };
        device.enter()?;
        // Whoever does wait sleeps, and leaves the core to others.
        let sleeping = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as c_uint;
        // SAFETY: it takes one number.
        calls.check("cuCtxSetFlags", unsafe { (calls.cuCtxSetFlags)(sleeping) })?;
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
    calls: &'static Calls,
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
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two numbers.
        let got = unsafe { (self.calls.cuMemGetInfo_v2)(&mut free, &mut total) };
        self.calls.check("cuMemGetInfo", got).map(|()| (free as u64, total as u64))
    }

    /// Makes it the device that this thread's calls are about.
    fn enter(&self) -> Result<(), CallError> {
        // SAFETY: the context is retained until this is dropped.
        self.calls.check("cuCtxSetCurrent", unsafe { (self.calls.cuCtxSetCurrent)(self.context) })
    }

    /// Frees something, unless the device is lost: then that is left to the end of the process.
    fn free(&self, name: &'static str, free: impl FnOnce(&Calls) -> c_uint) {
        if self.lost().is_some() {
            return;
        }
        if let Err(error) = self.enter().and_then(|()| self.calls.check(name, free(self.calls))) {
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
        self.free("cuDevicePrimaryCtxRelease", |calls| unsafe {
            (calls.cuDevicePrimaryCtxRelease_v2)(self.device)
        });
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
        let (apart, mut handle) =
            (sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint, std::ptr::null_mut());
        // SAFETY: it writes one handle.
        let made = unsafe { (device.calls.cuStreamCreate)(&mut handle, apart) };
        device.calls.check("cuStreamCreate", made)?;
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
        let calls = self.device.calls;
        // SAFETY: both are there as long as what holds them.
        calls.check("cuStreamWaitEvent", unsafe { (calls.cuStreamWaitEvent)(self.handle, event.handle, 0) })
    }

    fn drain(&self) -> Result<(), CallError> {
        let calls = self.device.calls;
        // SAFETY: the stream is there.
        calls.check("cuStreamSynchronize", unsafe { (calls.cuStreamSynchronize)(self.handle) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once. What was asked of it is still done.
        self.device.free("cuStreamDestroy", |calls| unsafe { (calls.cuStreamDestroy_v2)(self.handle) });
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
        Self::with(device, BLOCKING as c_uint | UNTIMED as c_uint)
    }

    /// It knows when it was, and nobody waits for it.
    fn timed(device: &Arc<Device>) -> Result<Self, CallError> {
        Self::with(device, sys::CUevent_flags::CU_EVENT_DEFAULT as c_uint)
    }

    fn with(device: &Arc<Device>, flags: c_uint) -> Result<Self, CallError> {
        device.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: it writes one handle.
        let made = unsafe { (device.calls.cuEventCreate)(&mut handle, flags) };
        device.calls.check("cuEventCreate", made)?;
        Ok(Self { handle, device: device.clone() })
    }

    fn record(&self, stream: &Stream) -> Result<(), CallError> {
        let calls = self.device.calls;
        // SAFETY: both are there.
        calls.check("cuEventRecord", unsafe { (calls.cuEventRecord)(self.handle, stream.handle) })
    }

    fn wait(&self) -> Result<(), CallError> {
        let calls = self.device.calls;
        // SAFETY: the event is there.
        calls.check("cuEventSynchronize", unsafe { (calls.cuEventSynchronize)(self.handle) })
    }

    /// How long after another one it was, by the device's clock. Both must be over.
    fn since(&self, before: &Self) -> Result<Duration, CallError> {
        let (calls, mut milliseconds) = (self.device.calls, 0.);
        // SAFETY: it writes one number. Both are there.
        let got = unsafe { (calls.cuEventElapsedTime)(&mut milliseconds, before.handle, self.handle) };
        calls.check("cuEventElapsedTime", got)?;
        Ok(Duration::try_from_secs_f64(f64::from(milliseconds) / 1000.).unwrap_or_default())
    }
}

/// A moment between two runs of the network.
pub struct Mark(Event);

/// Asks for the times of a batch, and for how long the network had nothing to do before, since a mark.
#[derive(Default)]
pub struct Sample {
    /// That mark.
    pub since: Option<Mark>,
}

/// The moments around each step of a batch.
struct Stopwatch {
    before: Option<Mark>,
    copy_in: [Event; 2],
    compute: [Event; 2],
    copy_out: [Event; 2],
}

impl Stopwatch {
    fn new(device: &Arc<Device>, Sample { since }: Sample) -> Result<Self, CallError> {
        let pair = || Ok([Event::timed(device)?, Event::timed(device)?]);
        Ok(Self { before: since, copy_in: pair()?, compute: pair()?, copy_out: pair()? })
    }

    /// What it measured, once all of it is over.
    fn took(&self) -> Result<Took, CallError> {
        let step = |[start, end]: &[Event; 2]| end.since(start);
        let [start, _] = &self.compute;
        Ok(Took {
            device: start.device.ordinal,
            copy_in: step(&self.copy_in)?,
            compute: step(&self.compute)?,
            copy_out: step(&self.copy_out)?,
            idle: self.before.as_ref().map(|Mark(end)| start.since(end)).transpose()?,
        })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once.
        self.device.free("cuEventDestroy", |calls| unsafe { (calls.cuEventDestroy_v2)(self.handle) });
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
        let mut address = 0;
        // SAFETY: it writes one address. What lies there is never read before it was written by the device.
        let made = unsafe { (device.calls.cuMemAlloc_v2)(&mut address, bytes) };
        device.calls.check("cuMemAlloc", made)?;
        Ok(Self { address, device: device.clone() })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is freed once, and the device does nothing with it: `Slot` sees to that.
        self.device.free("cuMemFree", |calls| unsafe { (calls.cuMemFree_v2)(self.address) });
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
        let (calls, mut place) = (device.calls, std::ptr::null_mut());
        // SAFETY: it writes one address. What lies there is filled below, before anybody sees it.
        let made = unsafe { (calls.cuMemHostAlloc)(&mut place, bytes, flags) };
        calls.check("cuMemHostAlloc", made)?;
        let place = NonNull::new(place.cast::<u8>());
        let none =
            || CallError { call: "cuMemHostAlloc", code: OUT_OF_MEMORY, name: calls.name(OUT_OF_MEMORY) };
        let place = place.ok_or_else(none)?;
        // SAFETY: there are so many bytes.
        unsafe { place.write_bytes(0, bytes) };
        Ok(Self { place, bytes, device: device.clone() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: as for `Memory`.
        self.device
            .free("cuMemFreeHost", |calls| unsafe { (calls.cuMemFreeHost)(self.place.as_ptr().cast()) });
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

    /// Marks what comes after all that the network was asked for so far.
    ///
    /// # Errors
    /// If the device does not.
    pub fn mark(&self) -> Result<Mark, CallError> {
        let mark = Event::timed(&self.compute.device)?;
        mark.record(&self.compute)?;
        Ok(Mark(mark))
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
pub struct Flying {
    slot: ManuallyDrop<Box<Slot>>,
    watch: Option<Stopwatch>,
}

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
    /// to copy out what that gives, and for how long that takes if a sample is wanted. Waits for none of it.
    ///
    /// # Errors
    /// If one of these was refused. Then it was waited until the device does nothing more.
    pub fn launch(
        self,
        streams: &Streams,
        (input_bytes, output_floats): (usize, usize),
        sample: Option<Sample>,
        compute: impl FnOnce(&Regions<'_>) -> Result<(), Fault>,
    ) -> Result<Flying, Grounded> {
        let (room, floats) = (self.0.input.bytes, self.0.output.bytes / size_of::<f32>());
        if input_bytes > room || output_floats > floats {
            let fault = format!(
                "a batch of {input_bytes} bytes and {output_floats} numbers for a slot of {room} and {floats}"
            );
            return Err(Grounded { slot: Some(self), fault: Fault::Refused(fault) });
        }
        let mut flying = Flying { slot: ManuallyDrop::new(self.0), watch: None };
        let device = &flying.slot.input.device;
        match sample.map(|sample| Stopwatch::new(device, sample)).transpose() {
            Ok(watch) => flying.watch = watch,
            Err(error) => return Err(flying.ground(streams, error.into())),
        }
        let sizes = (input_bytes, output_floats);
        match flying.slot.order(streams, sizes, flying.watch.as_ref(), compute) {
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
        watch: Option<&Stopwatch>,
        compute: impl FnOnce(&Regions<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let note = |step: fn(&Stopwatch) -> &[Event; 2], end: usize, stream: &Stream| {
            watch.map_or(Ok(()), |watch| step(watch)[end].record(stream))
        };
        self.input.device.enter()?;
        let Streams { copy_in, compute: computing, copy_out } = streams;
        let (to, from) = (&self.device_input, &self.input);
        let (calls, place) = (self.input.device.calls, from.place.as_ptr().cast());
        note(|watch| &watch.copy_in, 0, copy_in)?;
        // SAFETY: both places have so many bytes, and belong to the device until it is done: the caller holds a `Flying`.
        let copied = unsafe { (calls.cuMemcpyHtoDAsync_v2)(to.address, place, input_bytes, copy_in.handle) };
        calls.check("cuMemcpyHtoDAsync", copied)?;
        note(|watch| &watch.copy_in, 1, copy_in)?;
        self.copied.record(copy_in)?;
        computing.wait_for(&self.copied)?;
        note(|watch| &watch.compute, 0, computing)?;
        compute(&Regions {
            input: to.address,
            input_bytes,
            output: self.device_output.address,
            output_floats,
            slot: PhantomData,
        })?;
        note(|watch| &watch.compute, 1, computing)?;
        self.computed.record(computing)?;
        copy_out.wait_for(&self.computed)?;
        note(|watch| &watch.copy_out, 0, copy_out)?;
        let (to, from, bytes) = (&self.output, &self.device_output, output_floats * size_of::<f32>());
        let place = to.place.as_ptr().cast();
        // SAFETY: as above.
        let copied = unsafe { (calls.cuMemcpyDtoHAsync_v2)(place, from.address, bytes, copy_out.handle) };
        calls.check("cuMemcpyDtoHAsync", copied)?;
        note(|watch| &watch.copy_out, 1, copy_out)?;
        Ok(self.landed.record(copy_out)?)
    }
}

impl Flying {
    /// Waits until what the device made is here, and tells how long it took if that was wanted.
    ///
    /// # Errors
    /// If it failed, whatever the reason: then nobody knows what it did, and it is lost. The memory is not freed.
    pub fn land(mut self) -> Result<(Idle, Option<Took>), Fault> {
        let device = &self.slot.input.device;
        let landed = device.enter().and_then(|()| {
            self.slot.landed.wait()?;
            self.watch.as_ref().map(Stopwatch::took).transpose()
        });
        match landed {
            Ok(took) => {
                // SAFETY: it is taken once, for nothing of `self` is used after this.
                let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
                Ok((Idle(slot), took))
            }
            Err(error) => {
                device.lose(&error.to_string());
                Err(Fault::Lost(error.to_string()))
            }
        }
    }

    /// Waits until the device does nothing more, with this or with anything else.
    fn ground(mut self, streams: &Streams, fault: Fault) -> Grounded {
        let drained = if fault.is_loss() { None } else { Some(streams.drain()) };
        let fault = match drained {
            Some(Ok(())) => {
                // SAFETY: as above.
                let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
                return Grounded { slot: Some(Idle(slot)), fault };
            }
            Some(Err(error)) => Fault::Lost(format!("{error}, after: {fault}")),
            None => fault,
        };
        self.slot.input.device.lose(&fault.to_string());
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
