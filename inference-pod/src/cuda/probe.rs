//! Which GPUs a pod can use, found out before anything else is asked of them.

use super::driver::{About, CallError, Driver};

/// Where Linux tells which driver of NVIDIA's it runs, in containers too.
const RELEASE: &str = "/proc/driver/nvidia/version";

/// The CUDA that ONNX Runtime's libraries for GPUs are made of, as drivers number it.
const CUDA: u32 = 13_000;

/// The oldest compute capability that this CUDA has code for.
const CAPABILITY: (u32, u32) = (7, 5);

/// GPUs that can be used.
pub struct Found {
    /// Their driver.
    pub driver: Driver,
    /// At least one.
    pub devices: Vec<About>,
    /// The newest CUDA that the driver can run, as people write it.
    pub cuda: String,
    /// The driver's release, where the system tells it.
    pub release: Option<String>,
}

/// Why none can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// There is no driver.
    #[error(
        "libcuda.so.1 is not found: the node has no driver for NVIDIA's GPUs, or the container was started without it"
    )]
    NoDriver,
    /// The driver fails.
    #[error("the driver of the GPU does not work: {0}")]
    Driver(#[from] CallError),
    /// The driver is too old.
    #[error("the node's driver is made for CUDA {}, and {} or newer is needed", version(*.0), version(CUDA))]
    OldDriver(u32),
    /// There is a driver, and no device.
    #[error("the driver sees no GPU: none was given to the container")]
    NoDevice,
    /// All devices are too old.
    #[error("{} has compute capability {}.{}, and {}.{} or newer is needed", .0.name, .0.capability.0, .0.capability.1, CAPABILITY.0, CAPABILITY.1)]
    OldDevice(About),
}

/// As people write it.
fn version(number: u32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// The driver and the devices that can be used.
///
/// # Errors
/// If there is none.
pub fn probe() -> Result<Found, ProbeError> {
    let driver = Driver::load().ok_or(ProbeError::NoDriver)??;
    let cuda = driver.version()?;
    // An old library lacks functions, and asking it for more than this could end the process.
    new_enough(cuda)?;
    let devices = (0..driver.count()?).map(|ordinal| driver.about(ordinal)).collect::<Result<_, _>>()?;
    let release = std::fs::read_to_string(RELEASE).ok().and_then(|text| release(&text));
    Ok(Found { driver, devices: usable(devices)?, cuda: version(cuda), release })
}

/// The driver's release in what the system tells of it: the first number with a dot.
fn release(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_release = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_release).map(ToOwned::to_owned)
}

fn new_enough(version: u32) -> Result<(), ProbeError> {
    if version < CUDA { Err(ProbeError::OldDriver(version)) } else { Ok(()) }
}

fn usable(devices: Vec<About>) -> Result<Vec<About>, ProbeError> {
    let (new, old): (Vec<_>, Vec<_>) = devices.into_iter().partition(|about| about.capability >= CAPABILITY);
    match (new.is_empty(), old.into_iter().next()) {
        (false, _) => Ok(new),
        (true, Some(old)) => Err(ProbeError::OldDevice(old)),
        (true, None) => Err(ProbeError::NoDevice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: u32, capability: (u32, u32)) -> About {
        About { ordinal, name: "X".into(), capability, memory: 1 }
    }

    #[test]
    fn devices_that_are_too_old_are_left_out() {
        let (old, new) = (device(0, (7, 0)), device(1, (9, 0)));
        assert_eq!(usable(vec![old.clone(), new.clone()]), Ok(vec![new]));
        assert_eq!(usable(vec![old.clone()]), Err(ProbeError::OldDevice(old)));
        assert_eq!(usable(Vec::new()), Err(ProbeError::NoDevice));
    }

    #[test]
    fn the_drivers_release_is_read_from_what_the_system_tells() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:16:05 UTC 2025\n\
            GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1)\n";
        let open =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.51.03  Release Build  (dvs@a)\n";
        assert_eq!(release(closed).as_deref(), Some("580.65.06"));
        assert_eq!(release(open).as_deref(), Some("575.51.03"));
        assert_eq!((release(""), release("GCC version: 12.3.0")), (None, None));
    }

    #[test]
    fn an_old_driver_is_told_in_the_words_of_its_makers() {
        let error = new_enough(12_040).expect_err("it is old");
        assert_eq!(error.to_string(), "the node's driver is made for CUDA 12.4, and 13.0 or newer is needed");
        assert_eq!(new_enough(13_010), Ok(()));
    }
}
