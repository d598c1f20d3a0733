//! Which files weights are in that are split.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{ModelError, files::is_plain};

/// The files that an index of split weights names, in the index's own folder.
///
/// # Errors
/// If the index is damaged or names what is no file beside it.
pub fn of_index(index: &str, text: &str) -> Result<BTreeSet<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let read: Index = serde_json::from_str(text).map_err(|e| ModelError::invalid(index, e))?;
    if read.weight_map.is_empty() {
        return Err(ModelError::invalid(index, "it lists no tensors"));
    }
    read.weight_map.into_values().map(|name| beside(index, &name)).collect()
}

/// The file of that name in the folder of another.
///
/// # Errors
/// If it would lie elsewhere.
pub(super) fn beside(file: &str, name: &str) -> Result<String, ModelError> {
    if !is_plain(name) {
        return Err(ModelError::invalid(file, format!("it refers to {name:?}, which is no file beside it")));
    }
    Ok(match file.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_each_file_once() {
        let text = r#"{"metadata": {}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        let files = of_index("model.safetensors.index.json", text).expect("a good index");
        assert_eq!(files.into_iter().collect::<Vec<_>>(), ["1.safetensors", "2.safetensors"]);
        assert!(of_index("i", r#"{"weight_map": {"a": "../b"}}"#).is_err());
        assert!(of_index("i", r#"{"weight_map": {}}"#).is_err());
    }
}
