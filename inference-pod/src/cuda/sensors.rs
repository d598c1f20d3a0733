//! What GPUs say of themselves, by NVIDIA's management library: memory, use, power, and what slows them down. It is read by a thread
//! of its own, for it may take its time; nothing that serves waits for it.

use std::{collections::HashSet, io, sync::atomic::AtomicU64, thread, time::Duration};

use nvml_wrapper::{Nvml, bitmasks::device::ThrottleReasons, device::Device, error::NvmlError};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// The library, as it is called where the driver is.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// Between two readings. Each takes milliseconds at most.
const PERIOD: Duration = Duration::from_secs(5);

/// A device that was taken into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its place among those that the process sees, from 0.
    pub ordinal: u32,
    /// What it is known by everywhere.
    pub uuid: [u8; 16],
}

/// What a device says. What it did not say, or does not know, is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Bytes of its memory that are in use, by whomever, and that there are.
    pub memory: Option<(u64, u64)>,
    /// In which part of the last while, up to a second, something ran.
    pub busy: Option<f64>,
    /// Watts.
    pub power: Option<f64>,
    /// What keeps its clocks down, as [`SLOWED`] numbers it.
    pub slowed: Option<u64>,
}

/// What keeps clocks down, and should not.
const SLOWED: [(&str, ThrottleReasons); 5] = [
    ("power_cap", ThrottleReasons::SW_POWER_CAP),
    ("hardware", ThrottleReasons::HW_SLOWDOWN),
    ("heat", ThrottleReasons::SW_THERMAL_SLOWDOWN.union(ThrottleReasons::HW_THERMAL_SLOWDOWN)),
    ("power_brake", ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN),
    ("other_device", ThrottleReasons::SYNC_BOOST),
];

/// The library, open.
pub struct Sensors {
    nvml: Nvml,
    /// What was told already of what a device does not say.
    told: HashSet<(u32, &'static str)>,
}

impl Sensors {
    /// Opens the library, by its name or its path.
    ///
    /// # Errors
    /// If there is none, or it does not start.
    pub fn open(library: &str) -> Result<Self, NvmlError> {
        Ok(Self { nvml: Nvml::builder().lib_path(library.as_ref()).init()?, told: HashSet::new() })
    }

    /// Asks a device. What it does not say is told in the log, once.
    pub fn read(&mut self, watched: Watched) -> Reading {
        let Self { nvml, told } = self;
        let mut note = |what, error: NvmlError| {
            if told.insert((watched.ordinal, what)) {
                tracing::warn!(device = watched.ordinal, what, %error, "a device does not say it");
            }
        };
        let device = match device(nvml, watched.uuid) {
            Ok(device) => device,
            Err(error) => {
                note("which one it is", error);
                return Reading::default();
            }
        };
        let memory = device.memory_info().map(|memory| (memory.used, memory.total));
        let busy = device.utilization_rates().map(|rates| f64::from(rates.gpu) / 100.);
        let power = device.power_usage().map(|milliwatts| f64::from(milliwatts) / 1000.);
        let slowed = device.current_throttle_reasons().map(|reasons| reasons.bits());
        Reading {
            memory: memory.map_err(|error| note("how much of its memory is in use", error)).ok(),
            busy: busy.map_err(|error| note("how busy it is", error)).ok(),
            power: power.map_err(|error| note("how much power it takes", error)).ok(),
            slowed: slowed.map_err(|error| note("what slows it down", error)).ok(),
        }
    }
}

/// A whole device, or the part of one that was given.
fn device(nvml: &Nvml, uuid: [u8; 16]) -> Result<Device<'_>, NvmlError> {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    nvml.device_by_uuid(format!("GPU-{uuid}")).or_else(|_| nvml.device_by_uuid(format!("MIG-{uuid}")))
}

/// Reads devices from now on until the process ends. Where there is no such library, or no thread, that is told in the log, and
/// nothing is shown.
pub fn watch(devices: Vec<Watched>, shown: Shown) {
    let read = move || {
        let mut sensors = match Sensors::open(LIBRARY) {
            Ok(sensors) => sensors,
            Err(error) => {
                tracing::info!(%error, "{LIBRARY} does not work: there are no metrics of GPUs' memory, use and power");
                return;
            }
        };
        loop {
            for &device in &devices {
                shown.show(device.ordinal, sensors.read(device));
            }
            thread::sleep(PERIOD);
        }
    };
    let started: io::Result<_> = thread::Builder::new().name("sensors".into()).spawn(read);
    if let Err(error) = started {
        tracing::warn!(%error, "failed to start the thread that reads the sensors of GPUs");
    }
}

type Number = Gauge<f64, AtomicU64>;

/// The last reading, as metrics.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    memory_used: Family<OfDevice, Number>,
    memory: Family<OfDevice, Number>,
    busy: Family<OfDevice, Number>,
    power: Family<OfDevice, Number>,
    slowed: Family<Slowed, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDevice {
    device: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Slowed {
    device: u32,
    by: &'static str,
}

impl Shown {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let Self { memory_used, memory, busy, power, slowed } = self.clone();
        registry.register(
            "kembed_device_memory_used_bytes",
            "Memory of the device that is in use",
            memory_used,
        );
        registry.register("kembed_device_memory_bytes", "Memory of the device", memory);
        registry.register("kembed_device_busy_ratio", "Part of the last while in which something ran", busy);
        registry.register("kembed_device_power_watts", "Power that the device takes", power);
        registry.register("kembed_device_slowed", "Whether its clocks are kept down, by what", slowed);
    }

    /// Shows what a device says, and no more what it does not say now.
    pub fn show(&self, device: u32, reading: Reading) {
        let Reading { memory, busy, power, slowed } = reading;
        let numbers = [
            (&self.memory_used, memory.map(|(used, _)| used as f64)),
            (&self.memory, memory.map(|(_, all)| all as f64)),
            (&self.busy, busy),
            (&self.power, power),
        ];
        for (family, number) in numbers {
            match number {
                Some(number) => drop(family.get_or_create(&OfDevice { device }).set(number)),
                None => drop(family.remove(&OfDevice { device })),
            }
        }
        for (by, reason) in SLOWED {
            let label = Slowed { device, by };
            match slowed.map(ThrottleReasons::from_bits_truncate) {
                Some(reasons) => {
                    self.slowed.get_or_create(&label).set(reasons.intersects(reason).into());
                }
                None => drop(self.slowed.remove(&label)),
            }
        }
    }
}
