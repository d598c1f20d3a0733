//! What the programs of kembed tell each other: ports, paths, headers, and the JSON that crosses between them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::device::Device;

/// Port on which an inference pod answers everything: embeddings, health, `/info` and metrics.
pub const POD_PORT: u16 = 8080;

/// Path of [`Info`].
pub const INFO_PATH: &str = "/info";

/// Path that answers 200 while the process can make progress. It never waits for work.
pub const LIVE_PATH: &str = "/health/live";

/// Path that answers 200 once the pod may be given requests. It never waits for work.
pub const READY_PATH: &str = "/health/ready";

/// Response header: the digest of the vector space that the vectors in the answer belong to. On a request to a gateway:
/// the only space whose vectors are wanted.
pub const SPACE_HEADER: &str = "x-kembed-space";

/// Response header of a gateway: the revision of the model, where its source has such (a commit on a model hub).
pub const REVISION_HEADER: &str = "x-kembed-revision";

/// Response header that the OpenAI clients obey: `true` or `false`.
pub const SHOULD_RETRY_HEADER: &str = "x-should-retry";

/// Response header of a pod that is not ready, or ends, and so has done nothing with the request: another may take it, or the
/// same one later.
pub const NOT_READY_HEADER: &str = "x-kembed-not-ready";

/// Request header: a [`Lane`]. Without it a request is interactive.
pub const LANE_HEADER: &str = "x-kembed-lane";

/// Request header: milliseconds from when the request comes until nobody wants its answer any more.
pub const DEADLINE_HEADER: &str = "x-kembed-deadline-ms";

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody does: it is done when there is time, but never not at all.
    Bulk,
}

impl Lane {
    /// Reads the header's value.
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "interactive" => Some(Self::Interactive),
            "bulk" => Some(Self::Bulk),
            _ => None,
        }
    }

    /// The word as it stands in the header and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }

    /// The one that this is not.
    pub fn other(self) -> Self {
        match self {
            Self::Interactive => Self::Bulk,
            Self::Bulk => Self::Interactive,
        }
    }
}

/// What makes vectors comparable, or the scores of a model that classifies, as computed by a pod from the files it really
/// loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    /// `sha256:` and 64 hexadecimal digits over weights, tokenizer, pooling, normalisation, prompts, length limit
    /// and precision. Two pods with the same digest answer the same vectors, or the same scores.
    pub digest: String,
    /// The immutable revision that was loaded, where the source has one (a commit on a model hub).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Numbers in a vector, or labels of a model that classifies.
    pub dimension: u32,
    /// Tokens of an input that count; what is longer is cut or refused.
    pub max_tokens: u32,
}

/// The space that a service has recorded, as the controller hands it to later pods in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedSpace {
    /// As in [`Space::digest`].
    pub digest: String,
    /// As in [`Space::revision`]: what to load, whatever the model's URI says by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// The answer to `GET /info`. The names of the first fields are those of text-embeddings-inference, whose clients
/// read them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The model as it was asked for: a URI or a directory.
    pub model_id: String,
    /// As [`Space::revision`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha: Option<String>,
    /// As [`Space::max_tokens`].
    pub max_input_length: u32,
    /// Version of the program.
    pub version: String,
    /// The vector space that this pod serves.
    pub space: Space,
    /// Tokens a second that this pod computes while it has enough to do: as it was seen to when it was warmed up, until
    /// requests tell better. Not told by pods of releases that did not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<u64>,
    /// What the pod computes on, unless that is the CPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
}

/// Why an inference pod could not start or go on. Each is a documented `reason` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    /// The source has no such model, revision or file.
    ModelNotFound,
    /// The source demands credentials and none were given.
    CredentialsMissing,
    /// The source refused the credentials that were given.
    CredentialsRefused,
    /// The source did not answer, or failed again and again.
    SourceUnreachable,
    /// This program cannot read from that kind of source.
    SourceUnsupported,
    /// The model was loaded but is of a kind that this program cannot run; the message says what is missing.
    ModelUnsupported,
    /// A file of the model is damaged, incomplete or contradicts another.
    ModelInvalid,
    /// The cache has no room for the model.
    CacheFull,
    /// An accelerator was asked for and none can be used.
    AcceleratorUnavailable,
    /// The accelerator failed or hangs.
    AcceleratorLost,
    /// The accelerator computes other vectors than the CPU.
    AcceleratorInaccurate,
    /// Anything else; the message says what.
    StartFailed,
}

impl FailureReason {
    /// The word as it stands in conditions, metrics and termination messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelNotFound => "ModelNotFound",
            Self::CredentialsMissing => "CredentialsMissing",
            Self::CredentialsRefused => "CredentialsRefused",
            Self::SourceUnreachable => "SourceUnreachable",
            Self::SourceUnsupported => "SourceUnsupported",
            Self::ModelUnsupported => "ModelUnsupported",
            Self::ModelInvalid => "ModelInvalid",
            Self::CacheFull => "CacheFull",
            Self::AcceleratorUnavailable => "AcceleratorUnavailable",
            Self::AcceleratorLost => "AcceleratorLost",
            Self::AcceleratorInaccurate => "AcceleratorInaccurate",
            Self::StartFailed => "StartFailed",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A pod's last word: what it writes to its termination message before it exits non-zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The bounded part.
    pub reason: FailureReason,
    /// The part for a person: what was being done, what went wrong, what to do. Holds no secret and no input.
    pub message: String,
}

impl Failure {
    /// Bytes that Kubernetes keeps of a termination message.
    const LIMIT: usize = 4096;

    /// As one line of JSON that fits a termination message: a message that is too long is cut.
    pub fn to_termination_message(&self) -> String {
        // Escaping can make six bytes of one, as in `\u0000`; the rest of the line takes under 100.
        let room = (Self::LIMIT - 100) / 6;
        let end = (0..=room.min(self.message.len())).rev().find(|&i| self.message.is_char_boundary(i));
        let cut = Self { reason: self.reason, message: self.message[..end.unwrap_or(0)].to_owned() };
        serde_json::to_string(&cut).expect("two strings always serialise")
    }

    /// Reads what [`Failure::to_termination_message`] wrote; `None` if it is anything else.
    pub fn from_termination_message(text: &str) -> Option<Self> {
        serde_json::from_str(text.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_termination_message_fits_and_comes_back(message in any::<String>(), times in 1usize..200) {
            let message = message.repeat(times);
            let text = Failure { reason: FailureReason::ModelInvalid, message: message.clone() }.to_termination_message();
            prop_assert!(text.len() <= Failure::LIMIT);
            let read = Failure::from_termination_message(&text).expect("our own line");
            prop_assert_eq!(read.reason, FailureReason::ModelInvalid);
            prop_assert!(message.starts_with(&read.message));
        }
    }

    #[test]
    fn the_word_of_a_reason_is_what_is_written() {
        let json = serde_json::to_string(&FailureReason::CredentialsRefused).expect("a unit variant");
        assert_eq!(json, format!("{:?}", FailureReason::CredentialsRefused.as_str()));
    }

    #[test]
    fn other_words_are_no_failure() {
        assert_eq!(Failure::from_termination_message("Killed"), None);
        assert_eq!(Failure::from_termination_message(""), None);
    }
}
