//! What a shipped graph says of itself: the files that its weights are in, and what numbers its products are of.
//!
//! It is walked through, not read into memory. Numbers of fields are those of onnx.proto.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, Seek},
};

use super::{ModelError, parts::beside, precision::Numbers};

/// A name, or an entry of a key and a value: none is longer than a path.
const LONGEST: u64 = 8 << 10;

/// What is known of a graph before it is run.
#[derive(Debug, PartialEq, Eq)]
pub struct Shipped {
    /// What it keeps elsewhere, by their names in the model.
    pub files: BTreeSet<String>,
    /// What its products are made of.
    pub numbers: Numbers,
}

impl Shipped {
    /// Walks through the graph of that name.
    ///
    /// # Errors
    /// If it cannot be read, is no graph, or names what is no file beside it.
    pub fn read(name: &str, graph: &mut (impl BufRead + Seek)) -> Result<Self, ModelError> {
        let mut seen = Seen::default();
        let length = graph.seek(io::SeekFrom::End(0)).and_then(|length| graph.rewind().map(|()| length));
        let walked = length.and_then(|length| seen.model(graph, length));
        walked.map_err(|e| ModelError::invalid(name, format!("it is no graph: {e}")))?;
        let files = seen.locations.iter().map(|location| beside(name, location)).collect::<Result<_, _>>()?;
        Ok(Self { files, numbers: seen.numbers() })
    }
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    locations: BTreeSet<String>,
    /// Whether there is something of so many bits.
    four_bits: bool,
    eight_bits: bool,
    /// Numbers that are kept in 16-bit floats and in 32-bit ones.
    float16: u64,
    float32: u64,
}

impl Seen {
    /// Rounded products are told by their operators: attention and norms around them stay in floats, and so do embeddings,
    /// which may be most of a model. Among floats the weights tell, nearly all of which are of one kind.
    fn numbers(&self) -> Numbers {
        match self {
            Self { four_bits: true, .. } => Numbers::Int4,
            Self { eight_bits: true, .. } => Numbers::Int8,
            Self { float16, float32, .. } if float16 > float32 => Numbers::Float16,
            _ => Numbers::Float32,
        }
    }

    fn model<R: BufRead + Seek>(&mut self, from: &mut R, length: u64) -> io::Result<()> {
        fields(from, length, |from, number, held| match (number, held) {
            (7, Held::Bytes(length)) => self.graph(from, length),
            (_, held) => held.skip(from),
        })
    }

    fn graph<R: BufRead + Seek>(&mut self, from: &mut R, length: u64) -> io::Result<()> {
        fields(from, length, |from, number, held| match (number, held) {
            (1, Held::Bytes(length)) => self.node(from, length),
            (5, Held::Bytes(length)) => self.tensor(from, length),
            (_, held) => held.skip(from),
        })
    }

    fn node<R: BufRead + Seek>(&mut self, from: &mut R, length: u64) -> io::Result<()> {
        let (mut operator, mut bits) = (String::new(), None);
        fields(from, length, |from, number, held| {
            match (number, held) {
                (4, Held::Bytes(length)) => operator = text(from, length)?,
                (5, Held::Bytes(length)) => bits = bits_of_attribute(from, length)?.or(bits),
                (_, held) => held.skip(from)?,
            }
            Ok(())
        })?;
        match bits_of_operator(&operator, bits) {
            Some(0..=4) => self.four_bits = true,
            Some(_) => self.eight_bits = true,
            None => {}
        }
        Ok(())
    }

    fn tensor<R: BufRead + Seek>(&mut self, from: &mut R, length: u64) -> io::Result<()> {
        let (mut numbers, mut kind) = (1u64, 0);
        fields(from, length, |from, number, held| {
            match (number, held) {
                // Sizes, each for itself or all in one.
                (1, Held::Number(size)) => numbers = numbers.saturating_mul(size),
                (1, Held::Bytes(mut left)) => {
                    while left > 0 {
                        numbers = numbers.saturating_mul(varint(from, &mut left)?);
                    }
                }
                (2, Held::Number(of)) => kind = of,
                (13, Held::Bytes(length)) => self.locations.extend(location(from, length)?),
                (_, held) => held.skip(from)?,
            }
            Ok(())
        })?;
        match kind {
            1 => self.float32 = self.float32.saturating_add(numbers),
            10 => self.float16 = self.float16.saturating_add(numbers),
            // UINT4 and INT4.
            21 | 22 => self.four_bits = true,
            _ => {}
        }
        Ok(())
    }
}

/// Of how many bits the numbers of a product are, or of what makes them, if it is one that rounds. Some say it themselves.
fn bits_of_operator(operator: &str, said: Option<u64>) -> Option<u64> {
    match operator {
        "MatMulNBits" => Some(said.unwrap_or(4)),
        "MatMulBnb4" => Some(4),
        "QuantizeLinear" | "DequantizeLinear" | "QAttention" | "QGemm" => Some(8),
        "MatMulInteger" | "MatMulIntegerToFloat" | "ConvInteger" => Some(8),
        _ if operator.starts_with("DynamicQuantize") || operator.starts_with("QLinear") => Some(8),
        _ => None,
    }
}

/// What an attribute says, if it is that of bits.
fn bits_of_attribute<R: BufRead + Seek>(from: &mut R, length: u64) -> io::Result<Option<u64>> {
    let (mut is_bits, mut value) = (false, None);
    fields(from, length, |from, number, held| {
        match (number, held) {
            (1, Held::Bytes(length)) => is_bits = text(from, length)? == "bits",
            (3, Held::Number(number)) => value = Some(number),
            (_, held) => held.skip(from)?,
        }
        Ok(())
    })?;
    Ok(value.filter(|_| is_bits))
}

/// The value of an entry whose key is `location`.
fn location<R: BufRead + Seek>(from: &mut R, length: u64) -> io::Result<Option<String>> {
    let (mut key, mut value) = (String::new(), String::new());
    fields(from, length, |from, number, held| {
        match (number, held) {
            (1, Held::Bytes(length)) => key = text(from, length)?,
            (2, Held::Bytes(length)) => value = text(from, length)?,
            (_, held) => held.skip(from)?,
        }
        Ok(())
    })?;
    Ok((key == "location").then_some(value))
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Held {
    /// A number, which was read.
    Number(u64),
    /// So many bytes, which are next.
    Bytes(u64),
}

impl Held {
    fn skip(self, from: &mut impl Seek) -> io::Result<()> {
        match self {
            Self::Number(_) => Ok(()),
            Self::Bytes(length) => {
                from.seek_relative(i64::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?)
            }
        }
    }
}

/// Shows each field of a message of `length` bytes, by its number. Who is shown bytes reads all of them, or skips them.
fn fields<R: BufRead + Seek>(
    from: &mut R,
    length: u64,
    mut each: impl FnMut(&mut R, u64, Held) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let tag = varint(from, &mut left)?;
        let held = match tag & 7 {
            0 => Held::Number(varint(from, &mut left)?),
            1 => Held::Bytes(8),
            2 => Held::Bytes(varint(from, &mut left)?),
            5 => Held::Bytes(4),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if let Held::Bytes(length) = held {
            left = left.checked_sub(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        each(from, tag >> 3, held)?;
    }
    Ok(())
}

fn text(from: &mut impl BufRead, length: u64) -> io::Result<String> {
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
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

    /// A model of the parts of a graph.
    fn model(parts: &[Vec<u8>]) -> Vec<u8> {
        let graph = [field(2, b"g"), parts.concat()].concat();
        [vec![8, 10], field(2, b"by hand"), field(7, &graph)].concat()
    }

    fn node(operator: &str, attributes: &[(&str, u8)]) -> Vec<u8> {
        let attribute = |&(name, value): &(&str, u8)| {
            let int = [3 << 3, value, 20 << 3 & 0x7f | 0x80, 1, 2];
            field(5, &[field(1, name.as_bytes()), int.to_vec()].concat())
        };
        let attributes: Vec<u8> = attributes.iter().flat_map(attribute).collect();
        field(1, &[field(1, b"x"), field(4, operator.as_bytes()), attributes].concat())
    }

    /// Two numbers of a kind, and sizes of a matrix, each for itself or all in one.
    fn tensor(kind: u8, sizes: [u8; 2], packed: bool) -> Vec<u8> {
        let sizes = if packed { field(1, &sizes) } else { vec![8, sizes[0], 8, sizes[1]] };
        field(5, &[sizes, vec![2 << 3, kind], field(8, b"w"), field(9, b"....")].concat())
    }

    fn kept_in(location: &str) -> Vec<u8> {
        let entry = |key: &str, value: &str| {
            field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        field(5, &[field(8, b"w"), entry("location", location), entry("offset", "0")].concat())
    }

    fn read(bytes: Vec<u8>) -> Result<Shipped, String> {
        Shipped::read("onnx/model.onnx", &mut Cursor::new(bytes)).map_err(|e| e.to_string())
    }

    fn files(bytes: Vec<u8>) -> Result<Vec<String>, String> {
        read(bytes).map(|shipped| shipped.files.into_iter().collect())
    }

    #[test]
    fn a_graph_names_what_lies_beside_it() {
        assert_eq!(files(model(&[kept_in("model.onnx_data")])), Ok(vec!["onnx/model.onnx_data".to_owned()]));
        assert_eq!(files(Vec::new()), Ok(Vec::new()));
        for name in ["../secret", "/etc/passwd", ""] {
            assert!(files(model(&[kept_in(name)])).is_err_and(|e| e.contains("no file beside it")), "{name}");
        }
        let mut cut = model(&[kept_in("model.onnx_data")]);
        cut.truncate(cut.len() - 1);
        assert!(files(cut).is_err_and(|e| e.contains("no graph")));
    }

    #[test]
    fn operators_tell_that_products_are_rounded() {
        let plain = tensor(1, [100, 100], false);
        for (operator, attributes, numbers) in [
            ("MatMul", &[("bits", 4)][..], Numbers::Float32),
            ("Attention", &[], Numbers::Float32),
            ("MatMulInteger", &[], Numbers::Int8),
            ("DynamicQuantizeMatMul", &[], Numbers::Int8),
            ("QLinearMatMul", &[], Numbers::Int8),
            ("QAttention", &[], Numbers::Int8),
            ("DequantizeLinear", &[], Numbers::Int8),
            ("MatMulNBits", &[("bits", 8), ("K", 4)], Numbers::Int8),
            ("MatMulNBits", &[("block_size", 32), ("bits", 4)], Numbers::Int4),
            ("MatMulNBits", &[], Numbers::Int4),
            ("MatMulBnb4", &[], Numbers::Int4),
        ] {
            let parts = [node("Gather", &[]), node(operator, attributes), plain.clone()];
            assert_eq!(read(model(&parts)).map(|shipped| shipped.numbers), Ok(numbers), "{operator}");
        }
    }

    #[test]
    fn weights_tell_what_floats_a_graph_is_of() {
        for packed in [false, true] {
            let numbers = |kinds: &[(u8, [u8; 2])]| {
                let tensors: Vec<_> =
                    kinds.iter().map(|&(kind, sizes)| tensor(kind, sizes, packed)).collect();
                read(model(&tensors)).map(|shipped| shipped.numbers)
            };
            // A norm that stays in 32 bits does not count for more than a matrix, nor do its sizes, in 64-bit integers.
            assert_eq!(numbers(&[(1, [1, 9]), (10, [10, 10]), (7, [120, 120])]), Ok(Numbers::Float16));
            assert_eq!(numbers(&[(1, [10, 10]), (10, [1, 9])]), Ok(Numbers::Float32));
            assert_eq!(numbers(&[(1, [100, 100]), (22, [1, 9])]), Ok(Numbers::Int4));
        }
        assert_eq!(read(Vec::new()).map(|shipped| shipped.numbers), Ok(Numbers::Float32));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(bytes);
        }
    }
}
