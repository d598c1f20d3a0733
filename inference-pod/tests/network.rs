//! Graphs of small random weights, run by the real library.

mod support;

use std::{path::Path, sync::Barrier, thread};

use inference_pod::{
    backend::{
        Backend,
        onnx::{Graph, Onnx, Output, load_library},
    },
    batch::row::Row,
    export::export,
    model::{ModelError, Overrides, Recipe, recipe::Texts, weights::Weights},
    pooling::Pooling,
};
use support::{CONFIG, onnxruntime, safetensors, tensors};

fn network(config: &str, weights: &[u8], pooling: Pooling) -> Result<Onnx, ModelError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A link, as in the cache of the hub's own tools.
    let (blobs, path) = (folder.path().join("blobs"), folder.path().join("snapshot/model.safetensors"));
    support::write(&blobs, &[("1234", weights.to_vec())]);
    std::fs::create_dir(folder.path().join("snapshot")).expect("it can be made");
    std::os::unix::fs::symlink("../blobs/1234", &path).expect("it can be linked");
    let recipe = Recipe::read(Texts { config, ..Texts::default() }, &Overrides::default())?;
    let exported = export(&recipe, &Weights::open(&[path])?)?;
    let environment = load_library(&onnxruntime()).expect("the library loads");
    // The folder goes away here: the session keeps what it has mapped.
    Onnx::new(&environment, Graph::Made(exported), Output::Pooled(pooling), 0)
}

fn run(network: &mut Onnx, rows: &[&[u32]]) -> Vec<Vec<f32>> {
    let rows: Vec<_> = rows.iter().map(|ids| Row::new(ids.to_vec())).collect();
    network.run(&rows.iter().collect::<Vec<_>>()).expect("it runs")
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
    assert!(worst < 1e-5, "{a:?} and {b:?}");
}

#[test]
fn a_vector_does_not_depend_on_other_rows() {
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::LastToken] {
        let mut network = network(CONFIG, &safetensors(&tensors(0)), pooling).expect("a good model");
        let (one, other): (&[u32], &[u32]) = (&[1, 4, 2], &[1, 5, 2]);
        let together = run(&mut network, &[one, other]);
        assert_close(&together[0], &run(&mut network, &[one])[0]);
        assert_close(&together[1], &run(&mut network, &[other])[0]);
        assert_ne!(together[0], together[1]);
    }
}

/// They share a table of operators in ONNX Runtime that it fills without a lock.
#[test]
fn networks_can_be_made_at_once() {
    let begin = Barrier::new(8);
    let make = || {
        begin.wait();
        network(CONFIG, &safetensors(&tensors(0)), Pooling::Mean).expect("a good model");
    };
    thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(make))));
}

#[test]
fn a_graph_without_a_mask_refuses_padding() {
    let mut network = network(CONFIG, &safetensors(&tensors(0)), Pooling::Mean).expect("a good model");
    let rows = [vec![1, 4, 2], vec![1, 2]].map(Row::new);
    let error = network.run(&rows.iter().collect::<Vec<_>>()).expect_err("it would be seen as tokens");
    assert!(error.to_string().contains("no mask"), "{error}");
}

#[test]
fn roberta_is_bert_with_its_positions_in_other_rows() {
    // Both begin with the same position, RoBERTa in the row behind that of its padding token. What stands before it is
    // so large that it would show.
    let rows: [&[u32]; 2] = [&[1, 4, 6, 7, 2], &[1, 5, 6, 7, 2]];
    let bert =
        run(&mut network(CONFIG, &safetensors(&tensors(0)), Pooling::Mean).expect("a good model"), &rows);
    let config = CONFIG
        .replace("\"bert\"", "\"xlm-roberta\"")
        .replace("\"max_position_embeddings\": 16", "\"max_position_embeddings\": 18")
        .replace("\"pad_token_id\": 0", "\"pad_token_id\": 1");
    let renamed = tensors(2).into_iter().map(|(name, tensor)| (format!("roberta.{name}"), tensor)).collect();
    let roberta =
        run(&mut network(&config, &safetensors(&renamed), Pooling::Mean).expect("a good model"), &rows);
    for (bert, roberta) in bert.iter().zip(&roberta) {
        assert_close(bert, roberta);
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let refused = |config: &str, weights: &[u8]| {
        network(config, weights, Pooling::Mean).err().expect("it does not fit").to_string()
    };
    let mut lacking = tensors(0);
    lacking.remove("encoder.layer.1.output.dense.bias");
    assert!(refused(CONFIG, &safetensors(&lacking)).contains("encoder.layer.1.output.dense.bias"));
    let wide = CONFIG.replace("\"hidden_size\": 8", "\"hidden_size\": 16");
    assert!(refused(&wide, &safetensors(&tensors(0))).contains("[16, 16]"));
    let whole = safetensors(&tensors(0));
    assert!(refused(CONFIG, &whole[..whole.len() - 100]).contains("bytes of tensors"));
    let other = CONFIG.replace("\"bert\"", "\"t5\"");
    assert!(refused(&other, &whole).contains("\"t5\""));
    let mish = CONFIG.replace("\"bert\",", "\"bert\", \"hidden_act\": \"mish\",");
    assert!(refused(&mish, &whole).contains("mish"));
}

#[test]
fn a_file_that_is_no_graph_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, "this is no graph").expect("it can be written");
    let environment = load_library(&onnxruntime()).expect("the library loads");
    let graph = |path: &Path| {
        Onnx::new(&environment, Graph::Shipped(path.into()), Output::Pooled(Pooling::Mean), 0).err()
    };
    assert!(matches!(graph(file.path()), Some(ModelError::Invalid { .. })));
    assert!(matches!(graph("/no/such/file".as_ref()), Some(ModelError::Invalid { .. })));
}
