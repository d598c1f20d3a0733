//! The files of a model: the small ones are read, the large ones brought.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::blocking;
use crate::{
    model::{
        ModelError, Numbers, Recipe,
        dense::Dense,
        files::{self, Network},
        graph::Shipped,
        modules, parts,
        recipe::Texts,
    },
    pod::Pod,
    source::{Snapshot, SourceError, progress::Progress},
    start::StartError,
};

/// The small files of a model.
pub(super) struct Read {
    config: String,
    /// `tokenizer.json`
    pub(super) tokenizer: String,
    modules: Option<String>,
    steps: Vec<(String, String)>,
    sentence_bert: Option<String>,
    sentence_transformers: Option<String>,
    tokenizer_config: Option<String>,
}

impl Read {
    /// Reads them.
    pub(super) async fn from(model: &mut Snapshot, pod: &Pod) -> Result<Self, SourceError> {
        let progress = &pod.progress;
        let missing = |name: &str| SourceError::NotFound(format!("the model has no {name}"));
        let config = model.text(files::CONFIG, progress).await?.ok_or_else(|| missing(files::CONFIG))?;
        let modules = model.text(files::MODULES, progress).await?;
        let mut steps = Vec::new();
        for module in modules.as_deref().map(modules::parse).transpose()?.iter().flatten() {
            if let Some(file) = module.config_file() {
                steps.extend(model.text(&file, progress).await?.map(|text| (file, text)));
            }
        }
        Ok(Self {
            config,
            modules,
            steps,
            tokenizer: model
                .text(files::TOKENIZER, progress)
                .await?
                .ok_or_else(|| missing(files::TOKENIZER))?,
            sentence_bert: model.text(files::SENTENCE_BERT, progress).await?,
            sentence_transformers: model.text(files::SENTENCE_TRANSFORMERS, progress).await?,
            tokenizer_config: model.text(files::TOKENIZER_CONFIG, progress).await?,
        })
    }

    /// What a recipe is read from.
    pub(super) fn texts(&self) -> Texts<'_> {
        Texts {
            config: &self.config,
            modules: self.modules.as_deref(),
            steps: &self.steps,
            sentence_bert: self.sentence_bert.as_deref(),
            sentence_transformers: self.sentence_transformers.as_deref(),
            tokenizer_config: self.tokenizer_config.as_deref(),
        }
    }
}

/// The large files of a model.
pub(super) struct Paths {
    /// What they are of.
    pub(super) kind: Network,
    /// What its products are made of.
    pub(super) numbers: Numbers,
    /// All of them, as they are called in the model.
    names: Vec<String>,
    /// Of the weights, or of the graph and what it refers to.
    pub(super) paths: Vec<PathBuf>,
    /// Of the weights of dense layers.
    pub(super) dense: Vec<PathBuf>,
}

impl Paths {
    /// Brings them.
    pub(super) async fn fetch(
        model: &mut Snapshot,
        recipe: &Recipe,
        progress: &Progress,
    ) -> Result<Self, StartError> {
        let kind = model.network.clone();
        let first = kind.file().to_owned();
        let mut numbers = Numbers::from(recipe.precision);
        let mut names = match &kind {
            Network::Safetensors(index) if files::is_index(index) => {
                let lost = || ModelError::NoSuchFile(index.clone());
                let text = model.text(index, progress).await?.ok_or_else(lost)?;
                parts::of_index(index, &text)?.into_iter().collect()
            }
            Network::Safetensors(_) => vec![first],
            Network::Onnx(_) => {
                let path = model.file(&first, progress).await?;
                let name = first.clone();
                let shipped = blocking(move || Ok(shipped(&name, &path)?)).await?;
                numbers = shipped.numbers;
                [first].into_iter().chain(shipped.files).collect()
            }
        };
        let of_network = names.len();
        names.extend(recipe.dense.iter().map(Dense::file));
        let mut paths = Vec::with_capacity(names.len());
        for name in &names {
            if !model.has(name).await? {
                return Err(ModelError::NoSuchFile(name.clone()).into());
            }
            paths.push(model.file(name, progress).await?);
        }
        let dense = paths.split_off(of_network);
        Ok(Self { kind, numbers, names, paths, dense })
    }

    /// The SHA-256 of each of them.
    pub(super) async fn sha256(
        &self,
        model: &mut Snapshot,
        progress: &Progress,
    ) -> Result<Vec<String>, SourceError> {
        let mut hashes = Vec::with_capacity(self.names.len());
        for name in &self.names {
            hashes.push(model.sha256(name, progress).await?);
        }
        Ok(hashes)
    }
}

fn shipped(name: &str, path: &Path) -> Result<Shipped, ModelError> {
    let file = File::open(path).map_err(|source| ModelError::Read { file: name.to_owned(), source })?;
    Shipped::read(name, &mut BufReader::new(file))
}
