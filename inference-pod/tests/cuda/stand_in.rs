//! The stand-in notices what it is there to notice: else the other tests could not fail.
#![allow(unsafe_code, reason = "it is asked for what the pipeline never asks for")]

use std::{ffi::c_void, ptr::null_mut};

use super::fake::Fake;

type Out = *mut *mut c_void;

/// Two streams, memory of the device and pinned memory.
struct Raw {
    fake: Fake,
    streams: [*mut c_void; 2],
    memory: *mut c_void,
    pinned: *mut c_void,
    _device: std::sync::Arc<inference_pod::cuda::driver::Device>,
}

impl Raw {
    fn new() -> Self {
        let fake = Fake::begin(1, 0);
        let device = fake.driver().open(0).expect("there is a device");
        let mut raw =
            Self { fake, streams: [null_mut(); 2], memory: null_mut(), pinned: null_mut(), _device: device };
        // SAFETY: these are their signatures.
        unsafe {
            let stream = raw.fake.symbol::<unsafe extern "C" fn(Out, u32) -> i32>("cuStreamCreate");
            let memory = raw.fake.symbol::<unsafe extern "C" fn(Out, usize) -> i32>("cuMemAlloc_v2");
            let pinned = raw.fake.symbol::<unsafe extern "C" fn(Out, usize, u32) -> i32>("cuMemHostAlloc");
            assert!(raw.streams.iter_mut().all(|place| stream(place, 0) == 0));
            assert_eq!((memory(&mut raw.memory, 64), pinned(&mut raw.pinned, 64, 0)), (0, 0));
        }
        raw
    }

    fn copy_in(&self, stream: usize) {
        type Copy = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, *mut c_void) -> i32;
        // SAFETY: this is its signature.
        let copy = unsafe { self.fake.symbol::<Copy>("cuMemcpyHtoDAsync_v2") };
        // SAFETY: both have so many bytes.
        assert_eq!(unsafe { copy(self.memory, self.pinned, 64, self.streams[stream]) }, 0);
    }

    fn wait(&self, stream: usize) {
        // SAFETY: this is its signature.
        let wait =
            unsafe { self.fake.symbol::<unsafe extern "C" fn(*mut c_void) -> i32>("cuStreamSynchronize") };
        // SAFETY: the stream is there.
        assert_eq!(unsafe { wait(self.streams[stream]) }, 0);
    }

    fn free(&self) {
        // SAFETY: this is its signature.
        let free = unsafe { self.fake.symbol::<unsafe extern "C" fn(*mut c_void) -> i32>("cuMemFree_v2") };
        // SAFETY: the stand-in does not free what is in use.
        unsafe { free(self.memory) };
    }

    fn touch(&self) {
        // SAFETY: there is such a byte, and the stand-in lets through who touches it.
        unsafe { self.pinned.cast::<u8>().write_volatile(1) };
    }
}

#[test]
fn two_streams_that_do_not_wait_for_each_other_are_noticed() {
    let raw = Raw::new();
    raw.copy_in(0);
    raw.copy_in(0);
    assert_eq!(raw.fake.violations(), 0, "one stream has an order");
    raw.copy_in(1);
    assert_eq!(raw.fake.violations(), 1);
}

#[test]
fn who_touches_pinned_memory_too_early_is_noticed() {
    let raw = Raw::new();
    raw.touch();
    raw.copy_in(0);
    raw.wait(0);
    raw.touch();
    assert_eq!(raw.fake.violations(), 0, "it was waited for");
    raw.copy_in(0);
    raw.touch();
    assert_eq!(raw.fake.violations(), 1);
}

#[test]
fn who_frees_memory_too_early_is_noticed() {
    let raw = Raw::new();
    raw.copy_in(0);
    raw.free();
    assert_eq!(raw.fake.violations(), 1);
}
