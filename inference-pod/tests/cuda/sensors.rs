//! What GPUs say of themselves, by a stand-in for the library that they say it by.
#![allow(unsafe_code, reason = "it is a C library")]

use std::{
    ffi::{CString, c_char},
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use inference_pod::cuda::sensors::{Reading, Sensors, Shown, Watched};
use libloading::Library;
use prometheus_client::{encoding::text::encode, registry::Registry};

use super::fake::build;

const WATCHED: Watched = Watched { ordinal: 3, uuid: [0xab; 16] };
const UUID: &str = "abababab-abab-abab-abab-abababababab";
const POWER_CAP_AND_HEAT: u64 = 0x04 | 0x20;

const ALL: Reading = Reading {
    memory: Some((4 << 30, 80 << 30)),
    busy: Some(0.75),
    power: Some(350.5),
    slowed: Some(POWER_CAP_AND_HEAT),
};

/// The stand-in, for one test at a time.
struct Fake {
    path: PathBuf,
    library: &'static Library,
    _alone: MutexGuard<'static, ()>,
}

impl Fake {
    /// With one device of that name.
    fn begin(uuid: &str) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static BUILT: OnceLock<(PathBuf, Library)> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, library) = BUILT.get_or_init(|| {
            let path = build("nvml.c", "libnvidia-ml.so.1");
            // SAFETY: it is ours, and has no initialisers.
            let library = unsafe { Library::new(&path) }.expect("it can be opened");
            (path, library)
        });
        let uuid = CString::new(uuid).expect("a name");
        // SAFETY: that is its signature, and the name lives until it returns.
        unsafe {
            let device = library.get::<unsafe extern "C" fn(*const c_char, u64)>("fake_device");
            device.expect("it is there")(uuid.as_ptr(), POWER_CAP_AND_HEAT);
        }
        Self { path: path.clone(), library, _alone: alone }
    }

    /// Lets a call fail from now on.
    fn fail(&self, call: &str, code: i32) {
        let call = CString::new(call).expect("a name");
        // SAFETY: that is its signature, and the name lives until it returns.
        unsafe {
            let fail = self.library.get::<unsafe extern "C" fn(*const c_char, i32)>("fake_fail");
            fail.expect("it is there")(call.as_ptr(), code);
        }
    }

    fn open(&self) -> Sensors {
        Sensors::open(self.path.to_str().expect("a plain path")).expect("it opens")
    }
}

#[test]
fn a_device_says_all_by_its_name() {
    for name in ["GPU", "MIG"] {
        let fake = Fake::begin(&format!("{name}-{UUID}"));
        assert_eq!(fake.open().read(WATCHED), ALL, "{name}");
    }
}

/// Those codes are: not supported, no permission, lost, unknown, and one that nobody has heard of.
#[test]
fn what_a_device_does_not_say_is_not_there_and_the_rest_is() {
    let fake = Fake::begin(&format!("GPU-{UUID}"));
    let mut sensors = fake.open();
    for code in [3, 4, 15, 999, 12_345] {
        for (call, expected) in [
            ("nvmlDeviceGetHandleByUUID", Reading::default()),
            ("nvmlDeviceGetMemoryInfo_v2", Reading { memory: None, ..ALL }),
            ("nvmlDeviceGetUtilizationRates", Reading { busy: None, ..ALL }),
            ("nvmlDeviceGetPowerUsage", Reading { power: None, ..ALL }),
            ("nvmlDeviceGetCurrentClocksThrottleReasons", Reading { slowed: None, ..ALL }),
            ("no call of ours", ALL),
        ] {
            fake.fail(call, code);
            assert_eq!(sensors.read(WATCHED), expected, "{call} {code}");
        }
    }
}

#[test]
fn a_library_that_is_not_there_or_does_not_start_is_told() {
    assert!(Sensors::open("/no/such/libnvidia-ml.so.1").is_err());
    let fake = Fake::begin(&format!("GPU-{UUID}"));
    for code in [9, 12_345] {
        fake.fail("nvmlInit_v2", code);
        assert!(Sensors::open(fake.path.to_str().expect("a plain path")).is_err(), "{code}");
    }
    // It is only asked for how it counts.
    fake.fail("nvmlSystemGetDriverVersion", 999);
    assert_eq!(fake.open().read(WATCHED), ALL);
}

#[test]
fn metrics_show_what_was_said_last_and_nothing_else() {
    let (shown, mut registry) = (Shown::default(), Registry::default());
    shown.register(&mut registry);
    let text = || {
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes all");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(text().is_empty(), "nothing was read yet");
    shown.show(3, ALL);
    let lines = text();
    for line in [
        "kembed_device_memory_used_bytes{device=\"3\"} 4294967296.0",
        "kembed_device_memory_bytes{device=\"3\"} 85899345920.0",
        "kembed_device_busy_ratio{device=\"3\"} 0.75",
        "kembed_device_power_watts{device=\"3\"} 350.5",
        "kembed_device_slowed{device=\"3\",by=\"power_cap\"} 1",
        "kembed_device_slowed{device=\"3\",by=\"heat\"} 1",
        "kembed_device_slowed{device=\"3\",by=\"power_brake\"} 0",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line}: {lines:#?}");
    }
    shown.show(3, Reading { power: Some(1.), ..Reading::default() });
    assert_eq!(text(), ["kembed_device_power_watts{device=\"3\"} 1.0"]);
}
