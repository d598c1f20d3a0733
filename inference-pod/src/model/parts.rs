//! Which further files a network is in: weights that are split, and what a shipped graph keeps outside of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Seek},
};

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

/// The files that a graph refers to, in the graph's own folder. It is walked through, not read into memory.
///
/// # Errors
/// If it cannot be read, is no graph, or names what is no file beside it.
pub fn of_graph(name: &str, graph: &mut (impl BufRead + Seek)) -> Result<BTreeSet<String>, ModelError> {
    let mut found = BTreeSet::new();
    let length = graph.seek(io::SeekFrom::End(0)).and_then(|length| graph.rewind().map(|()| length));
    let walked = length.and_then(|length| walk(graph, length, &TO_ENTRIES, &mut found));
    walked.map_err(|e| ModelError::invalid(name, format!("it is no graph: {e}")))?;
    found.iter().map(|location| beside(name, location)).collect()
}

fn beside(file: &str, name: &str) -> Result<String, ModelError> {
    if !is_plain(name) {
        return Err(ModelError::invalid(file, format!("it refers to {name:?}, which is no file beside it")));
    }
    Ok(match file.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    })
}

/// The fields that lead from a model over its graph and its tensors to what is said about data elsewhere.
const TO_ENTRIES: [u64; 3] = [7, 5, 13];

/// An entry is a key and a value; none is longer than a path.
const LONGEST: u64 = 8 << 10;

/// Goes through the fields of a message of `length` bytes, down the given path, and notes each `location`.
fn walk(
    from: &mut (impl BufRead + Seek),
    length: u64,
    path: &[u64],
    found: &mut BTreeSet<String>,
) -> io::Result<()> {
    let [next, rest @ ..] = path else {
        found.extend(location(from, length)?);
        return Ok(());
    };
    let mut left = length;
    while left > 0 {
        let tag = varint(from, &mut left)?;
        let size = match tag & 7 {
            0 => {
                varint(from, &mut left)?;
                continue;
            }
            1 => 8,
            2 => varint(from, &mut left)?,
            5 => 4,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        left = left.checked_sub(size).ok_or(io::ErrorKind::UnexpectedEof)?;
        if tag == next << 3 | 2 {
            walk(from, size, rest, found)?;
        } else {
            from.seek_relative(i64::try_from(size).map_err(|_| io::ErrorKind::InvalidData)?)?;
        }
    }
    Ok(())
}

/// The value of an entry whose key is `location`.
fn location(from: &mut impl BufRead, length: u64) -> io::Result<Option<String>> {
    #[derive(prost::Message)]
    struct Entry {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
    }
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    let entry: Entry = prost::Message::decode(bytes.as_slice())?;
    Ok((entry.key == "location").then_some(entry.value))
}

/// A number of up to 64 bits, seven a byte.
fn varint(from: &mut impl BufRead, left: &mut u64) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        *left = left.checked_sub(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A field that holds bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn graph(location: &str) -> Vec<u8> {
        let entry = |key: &str, value: &str| {
            field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        let tensor = [field(8, b"w"), entry("location", location), entry("offset", "0")].concat();
        [vec![8, 10], field(2, b"by hand"), field(7, &[field(2, b"g"), field(5, &tensor)].concat())].concat()
    }

    fn parts(bytes: Vec<u8>) -> Result<Vec<String>, String> {
        let found = of_graph("onnx/model.onnx", &mut Cursor::new(bytes));
        found.map(|files| files.into_iter().collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_graph_names_what_lies_beside_it() {
        assert_eq!(parts(graph("model.onnx_data")), Ok(vec!["onnx/model.onnx_data".to_owned()]));
        assert_eq!(parts(Vec::new()), Ok(Vec::new()));
        for name in ["../secret", "/etc/passwd", ""] {
            assert!(parts(graph(name)).is_err_and(|e| e.contains("no file beside it")), "{name}");
        }
        let mut cut = graph("model.onnx_data");
        cut.truncate(cut.len() - 1);
        assert!(parts(cut).is_err_and(|e| e.contains("no graph")));
    }

    #[test]
    fn an_index_names_each_file_once() {
        let text = r#"{"metadata": {}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        let files = of_index("model.safetensors.index.json", text).expect("a good index");
        assert_eq!(files.into_iter().collect::<Vec<_>>(), ["1.safetensors", "2.safetensors"]);
        assert!(of_index("i", r#"{"weight_map": {"a": "../b"}}"#).is_err());
        assert!(of_index("i", r#"{"weight_map": {}}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parts(bytes);
        }
    }
}
