//! The command line, and what becomes of it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use kembed_runtime::logging::LogArgs;

use crate::{
    duration,
    model::{Overrides, Precision},
    pod::Identity,
    pooling, quantity,
    source::{Access, Location, Retry, Variables},
    start::{AcceleratorError, StartError},
};

/// Serves one embedding model over HTTP: OpenAI's /v1/embeddings, health, metrics
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    /// How to log
    #[command(flatten)]
    pub logs: LogArgs,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Subcommand)]
pub enum Command {
    /// Load a model and serve it until SIGTERM
    #[command(after_help = EXAMPLES)]
    Serve(Box<ServeArgs>),
}

const EXAMPLES: &str = "Examples:
  inference-pod serve --model ./all-MiniLM-L6-v2
  inference-pod serve --model hf://sentence-transformers/all-MiniLM-L6-v2 --cache-dir ~/.cache/kembed
  curl -s localhost:8080/v1/embeddings -H 'content-type: application/json' -d '{\"input\": \"Hello\"}'";

/// The flags of `serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// The model: hf://organisation/name[@revision], s3://bucket/folder, gs://bucket/folder, az://container/folder,
    /// https://host/folder/, or a folder
    #[arg(long, env = "KEMBED_MODEL", value_name = "URI_OR_DIR")]
    pub model: String,

    /// The file of the model that holds the network [default: model.safetensors, else onnx/model.onnx, else model.onnx]
    #[arg(long, env = "KEMBED_FILE", value_name = "PATH")]
    pub file: Option<String>,

    /// The model's name in /v1/models and in answers [default: the model]
    #[arg(long, env = "KEMBED_NAME", value_name = "ID")]
    pub name: Option<String>,

    /// Where to listen
    #[arg(long, env = "KEMBED_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Where fetched models are kept
    #[arg(long, env = "KEMBED_CACHE_DIR", value_name = "DIR", default_value = "/var/cache/kembed")]
    pub cache_dir: PathBuf,

    /// What they may take there, as in 2Gi: a model that has more is refused before it is fetched [default: what there is room for]
    #[arg(long, env = "KEMBED_CACHE_SIZE_LIMIT", value_name = "SIZE", value_parser = quantity::bytes)]
    pub cache_size_limit: Option<u64>,

    /// Tokens of an input that count; the rest is cut [default: the model's own limit]
    #[arg(long, env = "KEMBED_MAX_TOKENS", value_name = "N")]
    pub max_tokens: Option<usize>,

    /// How the vectors of an input's tokens become one; auto is the model's own way
    #[arg(long, env = "KEMBED_POOLING", default_value = "auto")]
    pub pooling: PoolingArg,

    /// Whether vectors are brought to length one; auto is the model's own way
    #[arg(long, env = "KEMBED_NORMALIZATION", default_value = "auto")]
    pub normalization: NormalizationArg,

    /// The numbers that the network's products are computed in; auto is float32, on a GPU float16
    #[arg(long, env = "KEMBED_PRECISION", default_value = "auto")]
    pub precision: PrecisionArg,

    /// What stands in front of inputs of type "query" [default: the model's own prompt]
    #[arg(long, env = "KEMBED_QUERY_PROMPT", value_name = "TEXT")]
    pub query_prompt: Option<String>,

    /// What stands in front of inputs of type "document" [default: the model's own prompt]
    #[arg(long, env = "KEMBED_DOCUMENT_PROMPT", value_name = "TEXT")]
    pub document_prompt: Option<String>,

    /// The digest that the vector space must have; with another the pod stays unready
    #[arg(long, env = "KEMBED_DIGEST", value_name = "sha256:...")]
    pub digest: Option<String>,

    /// A JSON file that says which space the service recorded; it may appear later
    #[arg(long, env = "KEMBED_RECORDED_SPACE", value_name = "FILE")]
    pub recorded_space: Option<PathBuf>,

    /// The accelerator that must be used, as Kubernetes names it, for example nvidia.com/gpu
    #[arg(long, env = "KEMBED_ACCELERATOR", value_name = "RESOURCE")]
    pub accelerator: Option<String>,

    /// A folder of files named like the environment variables that they stand for: HF_TOKEN, AWS_ACCESS_KEY_ID, ...
    #[arg(long, env = "KEMBED_CREDENTIALS_DIR", value_name = "DIR")]
    pub credentials_dir: Option<PathBuf>,

    /// How long a request may take, from its first byte to the last of its answer
    #[arg(long, env = "KEMBED_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub request_timeout: Duration,

    /// How long what is in hand may take to finish after SIGTERM; 3 s less than the time after which it is killed, or
    /// shorter
    #[arg(long, env = "KEMBED_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "25s", value_parser = duration::parse)]
    pub shutdown_grace: Duration,

    /// Where to write why the pod failed
    #[arg(long, env = "KEMBED_TERMINATION_MESSAGE", value_name = "FILE")]
    pub termination_message: Option<PathBuf>,

    /// The library of ONNX Runtime
    #[arg(
        long,
        env = "ORT_DYLIB_PATH",
        value_name = "FILE",
        default_value = "/usr/lib/kembed/libonnxruntime.so"
    )]
    pub onnxruntime: PathBuf,

    /// The model hub that hf:// means
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL", default_value = "https://huggingface.co")]
    pub hf_endpoint: String,

    /// The token for the model hub [default: the file HF_TOKEN of --credentials-dir]
    #[arg(long, env = "HF_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub hf_token: Option<String>,
}

/// `--pooling`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolingArg {
    /// As the model says
    Auto,
    /// Their mean
    Mean,
    /// The first token's
    Cls,
    /// The last token's
    LastToken,
}

/// `--normalization`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NormalizationArg {
    /// As the model says
    Auto,
    /// To Euclidean length one
    L2,
    /// Not at all
    None,
}

/// `--precision`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// 32-bit floats, on a GPU 16-bit ones
    Auto,
    /// 32-bit floats
    Float32,
    /// 16-bit floats; on a GPU alone
    Float16,
    /// Not supported: on GPUs ONNX Runtime has no attention for it
    #[value(name = "bfloat16")]
    BFloat16,
    /// 8-bit integers; on a CPU alone
    Int8,
}

/// What the pod needs to know, with nothing left to check.
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Who the pod is.
    pub identity: Identity,
    /// How the model is loaded.
    pub load: LoadConfig,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long what is in hand may take to finish when the pod is told to stop.
    pub shutdown_grace: Duration,
}

/// How a model is loaded.
pub struct LoadConfig {
    /// Where it is.
    pub location: Location,
    /// Which file holds the network.
    pub file: Option<String>,
    /// How to fetch it.
    pub access: Access,
    /// What to do otherwise than the model says.
    pub overrides: Overrides,
    /// The library that runs it.
    pub onnxruntime: PathBuf,
    /// What it must run on, if not on the CPU.
    pub accelerator: Option<Accelerator>,
}

/// NVIDIA's GPUs, or parts of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// As Kubernetes names them: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`.
    pub resource: String,
}

impl Accelerator {
    fn named(resource: String) -> Result<Self, StartError> {
        if resource.starts_with("nvidia.com/") {
            return Ok(Self { resource });
        }
        Err(StartError::Accelerator { resource, why: AcceleratorError::Unknown })
    }
}

impl ServeArgs {
    /// Checks the flags against each other and against what this build can do.
    ///
    /// # Errors
    /// If something is asked for that cannot be.
    pub fn into_config(self) -> Result<Config, StartError> {
        let accelerator = self.accelerator.map(Accelerator::named).transpose()?;
        let from_file = || {
            let token = std::fs::read_to_string(self.credentials_dir.as_ref()?.join("HF_TOKEN")).ok()?;
            Some(token.trim().to_owned())
        };
        let access = Access {
            cache: self.cache_dir,
            limit: self.cache_size_limit,
            hub: self.hf_endpoint,
            hub_token: self.hf_token.or_else(from_file).filter(|token| !token.is_empty()),
            variables: Variables::read(self.credentials_dir.as_deref()),
            retry: Retry::default(),
        };
        let overrides = Overrides {
            pooling: self.pooling.into(),
            normalize: self.normalization.into(),
            max_tokens: self.max_tokens,
            query_prompt: self.query_prompt,
            document_prompt: self.document_prompt,
            precision: self.precision.on(accelerator.is_some())?,
        };
        let location = Location::parse(&self.model)?;
        Ok(Config {
            listen: self.listen,
            identity: Identity {
                name: self.name.unwrap_or_else(|| self.model.clone()),
                model: self.model,
                pinned: self.digest,
                recorded: self.recorded_space,
            },
            load: LoadConfig {
                location,
                file: self.file,
                access,
                overrides,
                onnxruntime: self.onnxruntime,
                accelerator,
            },
            request_timeout: self.request_timeout,
            shutdown_grace: self.shutdown_grace,
        })
    }
}

impl From<PoolingArg> for Option<pooling::Pooling> {
    fn from(arg: PoolingArg) -> Self {
        match arg {
            PoolingArg::Auto => None,
            PoolingArg::Mean => Some(pooling::Pooling::Mean),
            PoolingArg::Cls => Some(pooling::Pooling::Cls),
            PoolingArg::LastToken => Some(pooling::Pooling::LastToken),
        }
    }
}

impl From<NormalizationArg> for Option<bool> {
    fn from(arg: NormalizationArg) -> Self {
        match arg {
            NormalizationArg::Auto => None,
            NormalizationArg::L2 => Some(true),
            NormalizationArg::None => Some(false),
        }
    }
}

impl PrecisionArg {
    /// What it means on a GPU, or on a CPU.
    ///
    /// # Errors
    /// If networks are not computed in such numbers there.
    pub fn on(self, gpu: bool) -> Result<Precision, StartError> {
        match (self, gpu) {
            (Self::Auto, false) | (Self::Float32, _) => Ok(Precision::Float32),
            (Self::Auto | Self::Float16, true) => Ok(Precision::Float16),
            (Self::Int8, false) => Ok(Precision::Int8),
            (Self::Float16, false) => Err(StartError::Precision("float16")),
            (Self::Int8, true) => Err(StartError::Precision("int8")),
            (Self::BFloat16, false) => Err(StartError::Precision("bfloat16")),
            (Self::BFloat16, true) => Err(StartError::NoBFloat16),
        }
    }
}

#[cfg(test)]
mod tests {
    use kembed_queue::wire::FailureReason;

    use super::*;

    fn config(flags: &[&str]) -> Result<Config, StartError> {
        let cli = Cli::try_parse_from(["inference-pod", "serve"].iter().chain(flags))
            .unwrap_or_else(|e| panic!("{e}"));
        let Command::Serve(args) = cli.command;
        args.into_config()
    }

    #[test]
    fn flags_become_a_config() {
        let config = config(&["--model", "hf://a/b@c", "--pooling", "last-token", "--normalization", "none"]);
        let config = config.expect("a good config");
        assert_eq!(config.identity.name, "hf://a/b@c");
        assert_eq!(config.load.overrides.pooling, Some(pooling::Pooling::LastToken));
        assert_eq!(config.load.overrides.normalize, Some(false));
        assert_eq!(config.load.overrides.precision, Precision::Float32);
        assert!(matches!(config.load.location, Location::Hub { revision, .. } if revision == "c"));
    }

    #[test]
    fn the_controllers_words_for_precisions_are_known() {
        for (word, precision) in
            [("auto", Precision::Float32), ("float32", Precision::Float32), ("int8", Precision::Int8)]
        {
            let config = config(&["--model", "a", "--precision", word]).expect("a good config");
            assert_eq!(config.load.overrides.precision, precision);
        }
    }

    #[test]
    fn parts_of_gpus_are_gpus() {
        let config =
            config(&["--model", "a", "--accelerator", "nvidia.com/mig-1g.10gb"]).expect("a good config");
        assert_eq!(config.load.accelerator, Some(Accelerator { resource: "nvidia.com/mig-1g.10gb".into() }));
    }

    #[test]
    fn a_gpu_computes_in_its_own_numbers_unless_told_otherwise() {
        for (word, precision) in [("auto", Precision::Float16), ("float32", Precision::Float32)] {
            let flags = ["--model", "a", "--accelerator", "nvidia.com/gpu", "--precision", word];
            assert_eq!(config(&flags).expect("a good config").load.overrides.precision, precision);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        for (flags, reason) in [
            (&["--model", "a", "--accelerator", "amd.com/gpu"][..], FailureReason::AcceleratorUnavailable),
            (&["--model", "a", "--precision", "float16"], FailureReason::ModelUnsupported),
            (&["--model", "a", "--precision", "bfloat16"], FailureReason::ModelUnsupported),
            (
                &["--model", "a", "--precision", "int8", "--accelerator", "nvidia.com/gpu"],
                FailureReason::ModelUnsupported,
            ),
            (&["--model", "ftp://host/folder"], FailureReason::SourceUnsupported),
        ] {
            let error = config(flags).err().expect("it cannot be");
            assert_eq!(error.failure().reason, reason);
        }
        let flags = ["--model", "a", "--precision", "bfloat16", "--accelerator", "nvidia.com/gpu"];
        let error = config(&flags).err().expect("it cannot be");
        assert_eq!(error.failure().reason, FailureReason::ModelUnsupported);
        assert!(error.to_string().contains("attention"), "{error}");
    }

    #[test]
    fn the_token_is_read_from_the_mounted_secret() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("HF_TOKEN"), "secret\n").expect("it can be written");
        let folder = folder.path().to_str().expect("a plain path");
        let config = config(&["--model", "hf://a/b", "--credentials-dir", folder]).expect("a good config");
        assert_eq!(config.load.access.hub_token.as_deref(), Some("secret"));
    }

    #[test]
    fn the_help_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
