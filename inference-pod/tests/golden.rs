//! The vectors of a real model, compared with those of the reference implementation.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use inference_pod::{
    backend::{
        Backend,
        onnx::{Graph, Onnx, load_library},
    },
    batch::pad::Padded,
    export::export,
    model::{Overrides, Recipe, recipe::Texts, weights::Weights},
    tokenise::Tokeniser,
    vector::finish,
};

fn build(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.build").join(name);
    assert!(path.exists(), "{} is missing: run `make deps` first", path.display());
    path
}

#[test]
fn quick() {
    let model = build("model");
    let t = Instant::now();
    let read = |n: &str| std::fs::read_to_string(model.join(n)).expect("a file of the model");
    let (config, modules, pooling, sb) = (
        read("config.json"),
        read("modules.json"),
        read("1_Pooling/config.json"),
        read("sentence_bert_config.json"),
    );
    let texts = Texts {
        config: &config,
        modules: Some(&modules),
        pooling: Some(("1_Pooling/config.json", &pooling)),
        sentence_bert: Some(&sb),
        ..Texts::default()
    };
    let recipe = Recipe::read(texts, &Overrides::default()).expect("recipe");
    let tok =
        Tokeniser::new(read("tokenizer.json").as_bytes(), recipe.max_tokens, recipe.lower_case).expect("tok");
    println!("tokenizer {:?}", t.elapsed());
    let weights = Weights::open(&model.join("model.safetensors")).expect("weights");
    let exported = export(&recipe.config, &weights).expect("export");
    println!("export {:?} {} bytes", t.elapsed(), exported.onnx.len());
    let env = load_library(&build("onnxruntime/libonnxruntime.so")).expect("library");
    println!("lib {:?}", t.elapsed());
    let mut onnx = Onnx::new(&env, Graph::Made(exported), recipe.pooling, 2).expect("session");
    println!("session {:?}", t.elapsed());
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("golden/all-minilm-l6-v2.json")).expect("json");
    let mut worst = 1f32;
    for case in golden["cases"].as_array().expect("cases") {
        let ids = tok.ids("", case["text"].as_str().expect("text")).expect("ids");
        let want: Vec<f32> =
            case["normalized"].as_array().expect("v").iter().map(|x| x.as_f64().expect("f") as f32).collect();
        let v = onnx.run(&Padded::new([ids.as_slice()].into_iter(), 0)).expect("run").remove(0);
        let v = finish(v, None, true);
        let cos: f32 = v.iter().zip(&want).map(|(a, b)| a * b).sum();
        worst = worst.min(cos);
    }
    println!("all {:?} worst {worst}", t.elapsed());
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")
            .expect("status")
            .lines()
            .filter(|l| l.contains("Rss") || l.contains("VmHWM"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert!(worst > 0.99999);
}
