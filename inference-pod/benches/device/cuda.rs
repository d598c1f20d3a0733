//! What this program asks of CUDA by itself: how long products by cuBLAS take. The libraries are opened when
//! they are first needed.
#![allow(unsafe_code, reason = "they are C libraries")]

use std::ffi::c_void;

use libloading::Library;

/// A moment of a stream, as the driver knows it.
type Event = usize;

type Place = *mut usize;
/// What functions give; 0 is good.
type Code = i32;

const DRIVER: [&str; 2] = ["libcuda.so", "libcuda.so.1"];
const CUBLAS: [&str; 2] = ["libcublas.so.13", "libcublas.so"];

/// Opens the first of these that is there. It is never closed: what it started would go on without its code.
fn open(names: &[&str]) -> Option<&'static Library> {
    // SAFETY: its initialisers are what it is opened for.
    let library = names.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
    Some(Box::leak(Box::new(library)))
}

/// # Safety
/// `T` must be the signature of the function.
unsafe fn function<T: Copy>(library: &'static Library, name: &str) -> Option<T> {
    // SAFETY: the caller says so.
    unsafe { library.get::<T>(name) }.ok().map(|symbol| *symbol)
}

/// Two events, to time what a stream does between them. For threads that have a device.
struct Stopwatch {
    stream: usize,
    events: [Event; 2],
    record: unsafe extern "C" fn(Event, usize) -> Code,
    elapsed: unsafe extern "C" fn(*mut f32, Event, Event) -> Code,
    wait: unsafe extern "C" fn(Event) -> Code,
}

impl Stopwatch {
    fn new(library: &'static Library, stream: usize) -> Result<Self, String> {
        let lacking = "libcuda lacks functions";
        let mut events = [0; 2];
        // SAFETY: these are their signatures. The first writes one handle.
        unsafe {
            type Create = unsafe extern "C" fn(Place, u32) -> Code;
            let create: Create = function(library, "cuEventCreate").ok_or(lacking)?;
            for event in &mut events {
                good("cuEventCreate", create(event, 0))?;
            }
            Ok(Self {
                stream,
                events,
                record: function(library, "cuEventRecord").ok_or(lacking)?,
                elapsed: function(library, "cuEventElapsedTime").ok_or(lacking)?,
                wait: function(library, "cuEventSynchronize").ok_or(lacking)?,
            })
        }
    }

    /// Seconds that the stream takes for what `ask` asks of it. Waits until it is done.
    fn time(&self, ask: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
        let [begin, end] = self.events;
        let mut milliseconds = 0f32;
        // SAFETY: both events were made here and are never destroyed. The stream is there as long as a network that runs on it.
        unsafe {
            good("cuEventRecord", (self.record)(begin, self.stream))?;
            ask()?;
            good("cuEventRecord", (self.record)(end, self.stream))?;
            good("cuEventSynchronize", (self.wait)(end))?;
            good("cuEventElapsedTime", (self.elapsed)(&mut milliseconds, begin, end))?;
        }
        Ok(f64::from(milliseconds) / 1e3)
    }
}

type GemmEx = unsafe extern "C" fn(
    usize,
    Code,
    Code,
    i32,
    i32,
    i32,
    *const c_void,
    u64,
    i32,
    i32,
    u64,
    i32,
    i32,
    *const c_void,
    u64,
    i32,
    i32,
    i32,
    i32,
) -> Code;

/// As cuBLAS numbers them.
const FLOAT16: i32 = 2;
const DEFAULT_ALGORITHM: i32 = -1;
/// Whether the first factor lies the other way round, as weights do.
const TURNED: [Code; 2] = [0, 1];

/// What sums are kept in, and a one and a zero of that kind.
enum Sums {
    Float16([u16; 2]),
    Float32([f32; 2]),
}

const SUMS: [Sums; 2] = [Sums::Float16([0x3c00, 0]), Sums::Float32([1., 0.])];

impl Sums {
    fn arguments(&self) -> (i32, [*const c_void; 2]) {
        match self {
            Self::Float16(numbers) => (64, numbers.each_ref().map(|n| std::ptr::from_ref(n).cast())),
            Self::Float32(numbers) => (68, numbers.each_ref().map(|n| std::ptr::from_ref(n).cast())),
        }
    }
}

/// Products of matrices of 16-bit floats by cuBLAS, on a stream of the device that this thread has.
pub struct Products {
    stopwatch: Stopwatch,
    handle: usize,
    gemm: GemmEx,
    /// Of the largest matrix each: two factors and the product.
    memory: [u64; 3],
    pub version: i32,
}

impl Products {
    /// With room for matrices of so many numbers.
    ///
    /// # Errors
    /// What is not there, or does not work.
    pub fn open(stream: usize, numbers: usize) -> Result<Self, String> {
        let (driver, cublas) =
            (open(&DRIVER).ok_or("no libcuda")?, open(&CUBLAS).ok_or("no libcublas.so.13")?);
        let stopwatch = Stopwatch::new(driver, stream)?;
        let (mut handle, mut version, mut memory) = (0, 0, [0; 3]);
        // Numbers from 0.5 to 1 of either sign: with zeros a device takes less power, and is faster than it ever is.
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0x3800 | (seed >> 20) as u16 & 0x3ff | (seed >> 16) as u16 & 0x8000
        };
        let random: Vec<u16> = (0..numbers).map(|_| next()).collect();
        let bytes = size_of_val(random.as_slice());
        // SAFETY: these are their signatures. Each is given what it takes: places for what it writes, and memory of that size.
        unsafe {
            type Allocate = unsafe extern "C" fn(*mut u64, usize) -> Code;
            type Copy = unsafe extern "C" fn(u64, *const u16, usize) -> Code;
            let lacking = "a library lacks functions";
            let allocate: Allocate = function(driver, "cuMemAlloc_v2").ok_or(lacking)?;
            let copy: Copy = function(driver, "cuMemcpyHtoD_v2").ok_or(lacking)?;
            type Create = unsafe extern "C" fn(Place) -> Code;
            let create: Create = function(cublas, "cublasCreate_v2").ok_or(lacking)?;
            type Set = unsafe extern "C" fn(usize, usize) -> Code;
            let set: Set = function(cublas, "cublasSetStream_v2").ok_or(lacking)?;
            type Version = unsafe extern "C" fn(usize, *mut i32) -> Code;
            let ask: Version = function(cublas, "cublasGetVersion_v2").ok_or(lacking)?;
            for place in &mut memory {
                good("cuMemAlloc", allocate(place, bytes))?;
                good("cuMemcpyHtoD", copy(*place, random.as_ptr(), bytes))?;
            }
            good("cublasCreate", create(&mut handle))?;
            good("cublasSetStream", set(handle, stream))?;
            good("cublasGetVersion", ask(handle, &mut version))?;
            let gemm = function(cublas, "cublasGemmEx").ok_or(lacking)?;
            Ok(Self { stopwatch, handle, gemm, memory, version })
        }
    }

    /// Seconds of the fastest way to make a product of so many rows and columns, with so many numbers between.
    ///
    /// # Errors
    /// If none works.
    pub fn seconds(&self, shape: [usize; 3]) -> Result<f64, String> {
        let ways = TURNED.into_iter().flat_map(|turned| SUMS.iter().map(move |sums| (turned, sums)));
        let times: Vec<_> = ways.map(|(turned, sums)| self.time(shape, turned, sums)).collect();
        let best = times.iter().filter_map(|time| time.as_ref().ok()).copied().min_by(f64::total_cmp);
        best.ok_or_else(|| times.into_iter().find_map(Result::err).unwrap_or_default())
    }

    fn time(&self, shape: [usize; 3], turned: Code, sums: &Sums) -> Result<f64, String> {
        // About a twentieth of a second, at 500 tera-operations a second.
        let operations = 2. * shape.iter().map(|&n| n as f64).product::<f64>();
        let times = (0.05 * 5e14 / operations).clamp(10., 2000.) as usize;
        self.repeat(times / 10 + 3, shape, turned, sums)?;
        let took = self.stopwatch.time(|| self.repeat(times, shape, turned, sums))?;
        Ok(took / times as f64)
    }

    /// cuBLAS has columns where others have rows: to it, the product is the other way round.
    fn repeat(&self, times: usize, [n, m, k]: [usize; 3], turned: Code, sums: &Sums) -> Result<(), String> {
        let (kind, [one, zero]) = sums.arguments();
        let [a, b, c] = self.memory;
        let [m, n, k] = [m, n, k].map(|size| size as i32);
        let column = if turned == 0 { m } else { k };
        for _ in 0..times {
            // SAFETY: the matrices are as large as the largest, and columns lie one after the other.
            let code = unsafe {
                (self.gemm)(
                    self.handle,
                    turned,
                    0,
                    m,
                    n,
                    k,
                    one,
                    a,
                    FLOAT16,
                    column,
                    b,
                    FLOAT16,
                    k,
                    zero,
                    c,
                    FLOAT16,
                    m,
                    kind,
                    DEFAULT_ALGORITHM,
                )
            };
            good("cublasGemmEx", code)?;
        }
        Ok(())
    }
}

fn good(call: &str, code: Code) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{call} failed with {code}")) }
}
