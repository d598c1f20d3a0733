//! Which model, from where, and how its vectors are made.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The model, and everything that decides what its vectors are.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Where the model is: `hf://org/name@revision` (a model hub), `s3://bucket/folder`, `gs://bucket/folder`,
    /// `az://container/folder` (object stores), `https://host/folder`, `pvc://claim/folder` (a PersistentVolumeClaim of
    /// this namespace) or `image://name:tag` (an image that holds the files at its root).
    /// Without a revision the hub's `main` is loaded; whichever revision is loaded first is recorded in status.space
    /// and used from then on.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.matches('^(hf|s3|gs|az|https|pvc|image)://.')")
            .message("uri must begin with hf://, s3://, gs://, az://, https://, pvc:// or image://, as in hf://sentence-transformers/all-MiniLM-L6-v2"),
        validation = Rule::new("!self.startsWith('hf://') || self.matches('^hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(@[A-Za-z0-9._/-]+)?$')")
            .message("a hub model is written hf://organisation/name or hf://organisation/name@revision"),
        validation = Rule::new("!self.startsWith('pvc://') || self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9._-]+)*/?$')")
            .message("a model on a volume is written pvc://claim-name/folder"),
        validation = Rule::new("!self.startsWith('pvc://') || !self.matches('/[.][.](/|$)')")
            .message("the folder in pvc://claim-name/folder cannot hold '..': name it from the root of the volume")
    )]
    pub uri: String,

    /// Which ONNX file of the model to run, as in `onnx/model.onnx`. Without it the weights in `model.safetensors` are
    /// used, or else `onnx/model.onnx` or `model.onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.endsWith('.onnx') && !self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')")
        .message("file names an ONNX file below the model's folder, as in onnx/model.onnx"))]
    pub file: Option<String>,

    /// The fingerprint that the vector space must have, as found in status.space.digest of a service that serves the
    /// same vectors. A pod that loads anything else stays unready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')")
        .message("digest is 'sha256:' and 64 hexadecimal digits: copy it from status.space.digest"))]
    pub digest: Option<String>,

    /// Credentials for the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,

    /// Where downloaded files are kept. Without it: an emptyDir of each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,

    /// Tokens of an input that count; what is longer is cut. Without it: the model's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 131072").message("maxTokens must be between 1 and 131072"))]
    pub max_tokens: Option<i32>,

    /// How one vector is made of a vector a token. Auto: as the model's own configuration says.
    #[serde(default)]
    pub pooling: Pooling,

    /// Whether vectors are scaled to length one. Auto: as the model's own configuration says.
    #[serde(default)]
    pub normalization: Normalization,

    /// Number format of the computation. Auto: Float32 on CPUs, Float16 on GPUs. Float16 is for GPUs alone, Int8 for CPUs
    /// alone, and BFloat16 is not supported yet.
    #[serde(default)]
    pub precision: Precision,

    /// Texts put before each input. Without it: as the model's own configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Prompts>,
}

/// Credentials for the model's source.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// A Secret of this namespace. Its keys are named like the environment variables that the source's own tools read,
    /// such as HF_TOKEN or AWS_ACCESS_KEY_ID. It is mounted into the pods; kembed itself never reads it.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// Where downloaded files are kept: exactly one of the members.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.emptyDir) ? 1 : 0) + (has(self.persistentVolumeClaim) ? 1 : 0) == 1")
    .message("cache needs exactly one of emptyDir and persistentVolumeClaim"))]
pub struct Cache {
    /// A directory that lives and dies with its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirCache>,

    /// A volume that pods share and that outlives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaimCache>,
}

/// A directory that lives and dies with its pod.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirCache {
    /// The most it may hold. A model whose files have more is refused; a pod whose volume takes more all the same is evicted,
    /// and so is the next one: leave a few MiB beside the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Quantity>,
}

/// A volume that pods share and that outlives them.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaimCache {
    /// A PersistentVolumeClaim of this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// How one vector is made of a vector a token.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// As the model's own configuration says.
    #[default]
    Auto,
    /// The mean over all tokens.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    LastToken,
}

/// Whether vectors are scaled to length one.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Normalization {
    /// As the model's own configuration says.
    #[default]
    Auto,
    /// Euclidean length one.
    L2,
    /// As they come.
    None,
}

/// Number format of the computation.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Float32 on CPUs, Float16 on GPUs.
    #[default]
    Auto,
    /// 32 bits.
    Float32,
    /// 16 bits, 5 of them exponent.
    Float16,
    /// 16 bits, 8 of them exponent.
    BFloat16,
    /// 8-bit integers.
    Int8,
}

/// Texts put before each input.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prompts {
    /// Before an input that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub query: Option<String>,

    /// Before an input that is searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub document: Option<String>,
}
