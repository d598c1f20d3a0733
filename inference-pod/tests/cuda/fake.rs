//! The stand-in for libcuda, built with the system's C compiler and opened before anything asks for the real one.
#![allow(unsafe_code, reason = "it is a C library")]

use std::{
    ffi::CString,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use inference_pod::cuda::{
    driver::{Device, Driver, Regions, Streams},
    fault::Fault,
    pipeline::Compute,
};
use libloading::{Library, Symbol};

/// Builds the stand-in once, and gives its path.
pub fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    // By this name the loader knows it again when `cudarc` asks for the first of the names that it tries.
    BUILT.get_or_init(|| build("fake.c", "libcuda.so")).clone()
}

/// Builds a library of that name from one of these files, and gives its path.
pub fn build(source: &str, name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let (made, place) = (folder.join(format!("{name}.{}", std::process::id())), folder.join(name));
    let status = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-fPIC", "-shared", "-pthread"])
        .args([&format!("-Wl,-soname,{name}"), "-o"])
        .arg(&made)
        .arg(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda")).join(source))
        .status()
        .expect("there is a C compiler, without which Rust does not link");
    assert!(status.success(), "the stand-in compiles");
    // Other tests may be building it too.
    std::fs::rename(&made, &place).expect("it can be moved");
    place
}

/// The stand-in, for one test at a time.
pub struct Fake {
    library: &'static Library,
    _alone: MutexGuard<'static, ()>,
}

type Kernel = unsafe extern "C" fn(usize, u64, usize, u64, usize) -> i32;

impl Fake {
    /// As if the machine had just started, with random delays of up to so many microseconds.
    pub fn begin(seed: u64, delay_us: u64) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: it is ours, and has no initialisers.
        let library = LIBRARY.get_or_init(|| unsafe { Library::new(library()) }.expect("it can be opened"));
        let fake = Self { library, _alone: alone };
        // SAFETY: that is its signature.
        unsafe { fake.symbol::<unsafe extern "C" fn(u64, u64)>("fake_begin")(seed, delay_us) };
        fake
    }

    /// # Safety
    /// `T` must be what the function is.
    pub unsafe fn symbol<T>(&self, name: &str) -> Symbol<'static, T> {
        // SAFETY: the caller says so.
        unsafe { self.library.get(name) }.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn driver(&self) -> Driver {
        Driver::load().expect("the stand-in is there").expect("it starts")
    }

    pub fn open(&self) -> (Arc<Device>, Streams) {
        let device = self.driver().open(0).expect("there is a device");
        let streams = Streams::new(&device).expect("it gives streams");
        (device, streams)
    }

    /// The network that the stand-in has.
    pub fn network(&self, streams: &Streams) -> Twice {
        // SAFETY: that is its signature.
        let kernel = *unsafe { self.symbol::<Kernel>("fake_kernel") };
        Twice { kernel, stream: streams.compute().address() }
    }

    /// Lets a call fail after so many that do not. A sticky error breaks the device.
    pub fn fail(&self, call: &str, after: usize, code: i32, sticky: bool) {
        let call = CString::new(call).expect("a name");
        // SAFETY: that is its signature, and the name lives until it returns.
        unsafe {
            let fail =
                self.symbol::<unsafe extern "C" fn(*const std::ffi::c_char, i64, i32, i32)>("fake_fail");
            fail(call.as_ptr(), after as i64, code, sticky.into());
        }
    }

    /// Forgets what should fail and has not yet: how many calls.
    pub fn fail_no_more(&self) -> u64 {
        self.count("fake_fail_no_more")
    }

    /// Networks whose input is larger find no memory.
    pub fn largest(&self, bytes: usize) {
        // SAFETY: that is its signature.
        unsafe { self.symbol::<unsafe extern "C" fn(usize)>("fake_largest")(bytes) };
    }

    /// How long copies and kernels take by the devices' own clock, in milliseconds. How long they take here is another matter.
    pub fn takes(&self, copying: f64, computing: f64) {
        // SAFETY: that is its signature.
        unsafe { self.symbol::<unsafe extern "C" fn(f64, f64)>("fake_takes")(copying, computing) };
    }

    /// Kernels of the first device do not end while it hangs.
    pub fn hang(&self, hangs: bool) {
        // SAFETY: that is its signature.
        unsafe { self.symbol::<unsafe extern "C" fn(i32, i32)>("fake_hang")(0, hangs.into()) };
    }

    /// Batches that were computed.
    pub fn kernels(&self) -> u64 {
        self.count("fake_kernels")
    }

    /// Copies to devices that are over.
    pub fn copies_in(&self) -> u64 {
        self.count("fake_copies_in")
    }

    /// Calls that wait for the device, but for those that wait for events.
    pub fn synchronising(&self) -> u64 {
        self.count("fake_synchronising")
    }

    /// Waits for events.
    pub fn waits(&self) -> u64 {
        self.count("fake_waits")
    }

    /// What was made and not destroyed.
    pub fn alive(&self) -> u64 {
        self.count("fake_alive")
    }

    /// How often something was touched that might have been in use.
    pub fn violations(&self) -> u64 {
        self.count("fake_violations")
    }

    fn count(&self, name: &str) -> u64 {
        // SAFETY: that is their signature.
        unsafe { self.symbol::<unsafe extern "C" fn() -> u64>(name)() }
    }
}

/// Gives twice each word of its input, plus one.
pub struct Twice {
    kernel: Kernel,
    stream: usize,
}

impl Compute for Twice {
    type Batch = ();

    fn enqueue(&mut self, (): &(), regions: &Regions<'_>) -> Result<(), Fault> {
        let ((input, input_bytes), (output, output_floats)) = (regions.input(), regions.output());
        // SAFETY: the stream lives longer than this, and the stand-in checks what it does with the memory.
        let code = unsafe { (self.kernel)(self.stream, input, input_bytes, output, output_floats) };
        match code {
            0 => Ok(()),
            // As ONNX Runtime puts it.
            code => Err(Fault::of_onnxruntime(&format!("CUDA failure {code}: of a test ; GPU=0"))),
        }
    }
}

/// What [`Twice`] gives.
pub fn twice(words: &[u32], floats: usize) -> Vec<f32> {
    (0..floats).map(|i| 2. * (words[i % words.len()] % 65536) as f32 + 1.).collect()
}
