//! Models whose files are laid out in unusual ways, or are not all there.

mod support;

use std::{fs, path::Path};

use inference_pod::{
    export::export,
    limits::Limits,
    load::load,
    model::{Overrides, Recipe, recipe::Texts, weights::Weights},
    pod::{Pod, Serving},
};
use kembed_runtime::errors::chain;
use tempfile::TempDir;

/// A copy of one of the small models.
fn copy(model: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy_into(&support::model(model), folder.path());
    folder
}

fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let (entry, to) = (entry.expect("it can be read"), to.to_owned());
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_into(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("it can be copied")),
        }
    }
}

/// Loads it. An error is all of its chain.
async fn serving(folder: &Path, file: Option<&str>) -> Result<Serving, String> {
    let config = support::from_folder(folder, file, Overrides::default());
    let loaded = load(config, 1, &Pod::new(support::identity(), Limits::new(1))).await;
    loaded.map(|(serving, _)| serving).map_err(|e| chain(&e))
}

async fn digest(folder: &Path, file: Option<&str>) -> String {
    serving(folder, file).await.expect("it loads").space.digest
}

/// Changes one number of the weights in a file.
fn touch(path: &Path) {
    let mut bytes = fs::read(path).expect("it can be read");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(path, bytes).expect("it can be written");
}

/// Else nobody would know what a pod can do before somebody has asked it for something.
#[tokio::test]
async fn how_fast_it_is_is_known_once_it_is_warm() {
    let serving = serving(copy("bert").path(), None).await.expect("it loads");
    assert!(serving.engine.load().rate > 0);
}

#[tokio::test]
async fn a_shipped_graph_may_keep_its_weights_in_another_file() {
    let folder = copy("bert");
    let at = |name: &str| folder.path().join(name);
    let config = fs::read_to_string(at("config.json")).expect("it can be read");
    let recipe = Recipe::read(Texts { config: &config, ..Texts::default() }, &Overrides::default());
    let weights = Weights::open(&[at("model.safetensors")]).expect("good weights");
    let exported = export(&recipe.expect("a good file"), &weights).expect("it can be exported");
    support::write(folder.path(), &[("onnx/model_quantized.onnx", exported.onnx)]);
    let file = Some("onnx/model_quantized.onnx");

    let error = serving(folder.path(), file).await.err().expect("a part is missing");
    assert!(error.contains("no file onnx/model.safetensors"), "{error}");
    fs::rename(at("model.safetensors"), at("onnx/model.safetensors")).expect("it can be moved");
    let first = digest(folder.path(), file).await;
    touch(&at("onnx/model.safetensors"));
    assert_ne!(digest(folder.path(), file).await, first);
}

#[tokio::test]
async fn each_part_of_split_weights_counts() {
    let folder = copy("sharded");
    let last = folder.path().join("model-00003-of-00003.safetensors");
    let first = digest(folder.path(), None).await;
    assert_eq!(digest(folder.path(), Some("model.safetensors.index.json")).await, first);
    touch(&last);
    assert_ne!(digest(folder.path(), None).await, first);
    fs::remove_file(&last).expect("it can be removed");
    let error = serving(folder.path(), None).await.err().expect("a part is missing");
    assert!(error.contains("no file model-00003-of-00003.safetensors"), "{error}");
}

#[tokio::test]
async fn dense_layers_count() {
    let folder = copy("dense");
    let first = digest(folder.path(), None).await;
    let weights = folder.path().join("2_Dense/model.safetensors");
    touch(&weights);
    assert_ne!(digest(folder.path(), None).await, first);
    fs::remove_file(&weights).expect("it can be removed");
    let error = serving(folder.path(), None).await.err().expect("weights are missing");
    assert!(error.contains("no file 2_Dense/model.safetensors"), "{error}");
}

#[tokio::test]
async fn a_dense_layer_that_does_not_fit_is_refused() {
    let folder = copy("dense");
    fs::remove_dir_all(folder.path().join("2_Dense")).expect("it can be removed");
    let path = folder.path().join("modules.json");
    let steps = fs::read_to_string(&path).expect("it can be read").replace("2_Dense", "3_Dense");
    fs::write(path, steps).expect("it can be written");
    let error = serving(folder.path(), None).await.err().expect("it takes 24 numbers");
    assert!(error.contains("gives 16"), "{error}");
}
