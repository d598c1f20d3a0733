//! What an error of a device means for the work that is in hand: nothing here is done about it.
//!
//! Errors come as numbers from the driver, and as text from ONNX Runtime, which passes on those of the CUDA runtime (the same
//! numbers since CUDA 10.1), of cuBLAS and of its own arena.

/// What became of the device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It had not enough memory for this batch. Nothing of it ran, and a smaller one may.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// It refused this batch. Others may run.
    #[error("{0}")]
    Refused(String),
    /// Nothing that it says from now on can be trusted: its context is broken, it fell off the bus, or it hangs.
    #[error("the device is lost: {0}")]
    Lost(String),
}

impl Fault {
    /// What an error of a call of the driver means.
    pub fn of_driver(code: u32, text: String) -> Self {
        match meaning(code) {
            Meaning::OutOfMemory => Self::OutOfMemory(text),
            // Our calls are the same for every batch. One that fails for another reason than memory says that we no
            // longer know what the device does.
            Meaning::Refused | Meaning::Lost => Self::Lost(text),
        }
    }

    /// What an error of ONNX Runtime means.
    pub fn of_onnxruntime(message: &str) -> Self {
        let text = message.to_owned();
        let meaning = NUMBERED
            .iter()
            .find_map(|&(before, library)| number_after(message, before).map(library))
            .unwrap_or(Meaning::Refused);
        match meaning {
            _ if NO_MEMORY.iter().any(|phrase| message.contains(phrase)) => Self::OutOfMemory(text),
            Meaning::OutOfMemory => Self::OutOfMemory(text),
            Meaning::Refused => Self::Refused(text),
            Meaning::Lost => Self::Lost(text),
        }
    }

    /// Whether nothing more may be run on the device.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    OutOfMemory,
    Refused,
    Lost,
}

/// What ONNX Runtime's arena says when it cannot grow, or may not.
const NO_MEMORY: [&str; 2] =
    ["Failed to allocate memory for requested buffer", "is smaller than requested bytes of"];

/// What stands before the number of an error, and what such numbers mean.
const NUMBERED: [Numbered; 3] =
    [("CUDA failure ", meaning), ("CUDA error ", meaning), ("CUBLAS failure ", meaning_of_cublas)];

type Numbered = (&'static str, fn(u32) -> Meaning);

/// Errors of CUDA that leave a context as it was: the call was refused, and that is all. All others break it, or we do not
/// know them, and what we do not know we do not trust.
const HARMLESS: [u32; 6] = [
    1,   // an argument is wrong
    98,  // of the runtime: no such kernel
    209, // no kernel for this kind of device
    600, // not ready yet
    701, // a kernel asks for more than the device has
    801, // not supported
];

fn meaning(code: u32) -> Meaning {
    match code {
        2 => Meaning::OutOfMemory,
        code if HARMLESS.contains(&code) => Meaning::Refused,
        _ => Meaning::Lost,
    }
}

fn meaning_of_cublas(code: u32) -> Meaning {
    match code {
        3 => Meaning::OutOfMemory,  // ALLOC_FAILED
        7 | 15 => Meaning::Refused, // INVALID_VALUE, NOT_SUPPORTED
        _ => Meaning::Lost,
    }
}

fn number_after(text: &str, before: &str) -> Option<u32> {
    let (_, after) = text.split_once(before)?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_onnxruntime_says_is_understood() {
        for (message, is_memory, is_loss) in [
            (
                "Non-zero status code returned while running FusedMatMul node. Name:'a' Status Message: bfc_arena.cc:376 void* \
                 onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 8388608000",
                true,
                false,
            ),
            ("Available memory of 1024 is smaller than requested bytes of 4096", true, false),
            (
                "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=x.cc ; line=4 ; expr=cudaMalloc()",
                true,
                false,
            ),
            ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", true, false),
            ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", false, true),
            ("CUDA error 719: unspecified launch failure", false, true),
            ("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0", false, true),
            ("CUDA failure 701: too many resources requested for launch", false, false),
            ("Got invalid dimensions for input: input_ids", false, false),
            ("CUDA failure: no number", false, false),
        ] {
            let fault = Fault::of_onnxruntime(message);
            assert_eq!(matches!(fault, Fault::OutOfMemory(_)), is_memory, "{message}");
            assert_eq!(fault.is_loss(), is_loss, "{message}");
        }
    }

    #[test]
    fn a_failed_call_of_the_driver_is_memory_or_a_loss() {
        assert!(matches!(Fault::of_driver(2, String::new()), Fault::OutOfMemory(_)));
        for code in [1, 100, 201, 214, 400, 700, 715, 719, 999, 123_456] {
            assert!(Fault::of_driver(code, String::new()).is_loss(), "{code}");
        }
    }

    proptest! {
        #[test]
        fn any_text_means_something(text in ".{0,200}") {
            Fault::of_onnxruntime(&text);
        }

        #[test]
        fn an_unknown_number_is_never_trusted(code in 900u32..100_000) {
            let message = format!("CUDA failure {code}: x");
            prop_assert!(Fault::of_onnxruntime(&message).is_loss());
        }
    }
}
