//! The small files of a model: `config.json`, `modules.json` and the others, one behind the other in the input.
#![no_main]

use inference_pod::model::{Overrides, Recipe, graph::Shipped, modules, modules::Module, parts, recipe::Texts};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut files = text.split('\u{1}');
    let config = files.next().unwrap_or_default();
    let mut next = || files.next();
    let (modules, sentence_bert, sentence_transformers, tokenizer_config) = (next(), next(), next(), next());
    let names = modules.and_then(|text| modules::parse(text).ok()).unwrap_or_default();
    let steps: Vec<_> =
        names.iter().filter_map(Module::config_file).zip(files.map(ToOwned::to_owned)).collect();
    let texts =
        Texts { config, modules, steps: &steps, sentence_bert, sentence_transformers, tokenizer_config };
    let _ = Recipe::read(texts, &Overrides::default());
    let _ = parts::of_index("a/index.json", text);
    let _ = Shipped::read("a/model.onnx", &mut std::io::Cursor::new(text.as_bytes()));
});
