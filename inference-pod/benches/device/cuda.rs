//! What this program asks of CUDA by itself: events that have a time, and products by cuBLAS. The libraries are opened when
//! they are first needed.
#![allow(unsafe_code, reason = "they are C libraries")]

use std::{cell::RefCell, ffi::c_void};

use libloading::Library;

/// A moment of a stream, as the driver knows it.
pub type Event = usize;

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

/// Makes events, on threads that have a device.
pub struct Events {
    create: unsafe extern "C" fn(Place, u32) -> Code,
    record: unsafe extern "C" fn(Event, usize) -> Code,
    elapsed: unsafe extern "C" fn(*mut f32, Event, Event) -> Code,
    wait: unsafe extern "C" fn(Event) -> Code,
    free: RefCell<Vec<Event>>,
}

impl Events {
    /// `None` if the driver has no such functions.
    pub fn open() -> Option<Self> {
        let library = open(&DRIVER)?;
        // SAFETY: these are their signatures.
        unsafe {
            Some(Self {
                create: function(library, "cuEventCreate")?,
                record: function(library, "cuEventRecord")?,
                elapsed: function(library, "cuEventElapsedTime")?,
                wait: function(library, "cuEventSynchronize")?,
                free: RefCell::default(),
            })
        }
    }

    /// What the stream has done when all that was asked of it until now is done.
    pub fn record(&self, stream: usize) -> Option<Event> {
        let mut event = 0;
        let used = self.free.borrow_mut().pop();
        // SAFETY: it writes one handle. The stream is there as long as a network that runs on it.
        unsafe {
            if let Some(used) = used {
                event = used;
            } else if (self.create)(&mut event, 0) != 0 {
                return None;
            }
            ((self.record)(event, stream) == 0).then_some(event)
        }
    }

    /// Milliseconds, if both are over.
    pub fn between(&self, first: Event, second: Event) -> Option<f64> {
        let mut milliseconds = 0f32;
        // SAFETY: both were made here, and are never destroyed.
        let code = unsafe { (self.elapsed)(&mut milliseconds, first, second) };
        (code == 0).then(|| f64::from(milliseconds))
    }

    /// To be recorded anew.
    pub fn give_back(&self, events: [Event; 2]) {
        self.free.borrow_mut().extend(events);
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
    events: Events,
    stream: usize,
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
        let events = Events::open().ok_or("libcuda lacks functions")?;
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
            Ok(Self { events, stream, handle, gemm, memory, version })
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
        let begin = self.events.record(self.stream).ok_or("no event")?;
        self.repeat(times, shape, turned, sums)?;
        let end = self.events.record(self.stream).ok_or("no event")?;
        // SAFETY: it was made here.
        good("cuEventSynchronize", unsafe { (self.events.wait)(end) })?;
        let took = self.events.between(begin, end).ok_or("no time between two events")?;
        self.events.give_back([begin, end]);
        Ok(took / 1e3 / times as f64)
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
