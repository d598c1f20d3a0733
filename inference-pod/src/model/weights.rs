//! The tensors of safetensors files, read one at a time and never all at once.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::ModelError;

/// Bytes before the header: its length.
const PREFIX: u64 = 8;

/// A header of the largest models takes a few megabytes; more is no header.
const MAX_HEADER: u64 = 100 << 20;

/// Opened files of weights whose headers were found to agree with their lengths.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Shard>,
    /// What all files lie in, all links followed.
    folder: PathBuf,
}

/// One file.
#[derive(Debug)]
struct Shard {
    /// As it is called in errors.
    name: String,
    /// As it is called once all links are followed.
    real: String,
    file: File,
    metadata: Metadata,
    /// Where the first tensor begins.
    start: u64,
}

/// Where numbers lie that can be used as they lie there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, in [`Weights::folder`].
    pub file: String,
    /// Bytes from the beginning of the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// What they are.
    pub float: Float,
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// In 32 bits.
    F32,
    /// In 16 bits, as IEEE 754 has them.
    F16,
    /// In 16 bits: the upper half of 32.
    Bf16,
}

impl Float {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl Weights {
    /// Opens files and reads their headers.
    ///
    /// # Errors
    /// If there is no file, one is cut short, is too long or is no safetensors file, or they lie in different folders.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, ModelError> {
        let mut opened =
            paths.iter().map(|path| Shard::open(path.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let folder = opened.first().map(|(_, folder)| folder.clone()).unwrap_or_default();
        if let Some((other, _)) = opened.iter().find(|(_, other)| *other != folder) {
            return Err(ModelError::invalid(&other.name, "it lies in another folder than the first"));
        }
        let files = opened.drain(..).map(|(file, _)| file).collect();
        Ok(Self { files, folder })
    }

    /// The folder of the files, all links followed.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is such a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.find(tensor).is_some()
    }

    /// Where the tensor lies; `None` if the numbers begin at an address that a CPU cannot read them from.
    ///
    /// # Errors
    /// If there is none, it has another shape, or is not of floats.
    pub fn place(&self, tensor: &str, shape: &[usize]) -> Result<Option<Place>, ModelError> {
        let (shard, info) = self.info(tensor, shape)?;
        let float = Float::of(info.dtype).ok_or_else(|| not_floats(info.dtype))?;
        let (begin, end) = info.data_offsets;
        let offset = shard.start + begin as u64;
        let place = Place { file: shard.real.clone(), offset, length: (end - begin) as u64, float };
        Ok(offset.is_multiple_of(float.bytes()).then_some(place))
    }

    /// Reads a tensor as 32-bit floats.
    ///
    /// # Errors
    /// If there is none, it has another shape, or is not of floats.
    pub fn floats(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.floats_of_rows(tensor, shape, 0..shape.first().copied().unwrap_or(1))
    }

    /// As [`Weights::floats`], of some rows, of which the tensor has as many as its shape begins with.
    ///
    /// # Errors
    /// As [`Weights::floats`].
    pub fn floats_of_rows(
        &self,
        tensor: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Vec<f32>, ModelError> {
        let (shard, info) = self.info(tensor, shape)?;
        let (begin, end) = info.data_offsets;
        let row = (end - begin) / shape.first().map_or(1, |&rows| rows.max(1));
        let mut bytes = vec![0; row * rows.len()];
        shard
            .file
            .read_exact_at(&mut bytes, shard.start + (begin + row * rows.start) as u64)
            .map_err(|source| ModelError::Read { file: shard.name.clone(), source })?;
        Ok(widen(Float::of(info.dtype).ok_or_else(|| not_floats(info.dtype))?, &bytes))
    }

    fn find(&self, tensor: &str) -> Option<(&Shard, &TensorInfo)> {
        self.files.iter().find_map(|shard| Some((shard, shard.metadata.info(tensor)?)))
    }

    fn info(&self, tensor: &str, shape: &[usize]) -> Result<(&Shard, &TensorInfo), ModelError> {
        let (shard, info) = self.find(tensor).ok_or_else(|| {
            let name = self.files.first().map_or("the model", |shard| shard.name.as_str());
            ModelError::invalid(name, format!("there is no tensor {tensor}"))
        })?;
        if info.shape != shape {
            let what =
                format!("tensor {tensor} is of shape {:?}, and config.json asks for {shape:?}", info.shape);
            return Err(ModelError::invalid(&shard.name, what));
        }
        Ok((shard, info))
    }
}

impl Shard {
    /// Opens a file. Tells its folder too.
    fn open(path: &Path) -> Result<(Self, PathBuf), ModelError> {
        let read = |source| ModelError::Read { file: name(path), source };
        // ONNX Runtime reads the same file and follows no link out of its folder, and models are often links.
        let real = path.canonicalize().map_err(read)?;
        let file = File::open(&real).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let (metadata, start) =
            header(&file, length).map_err(read)?.map_err(|what| ModelError::invalid(&name(path), what))?;
        let folder = real.parent().unwrap_or_else(|| "".as_ref()).to_owned();
        Ok((Self { name: name(path), real: name(&real), file, metadata, start }, folder))
    }
}

fn not_floats(dtype: Dtype) -> ModelError {
    ModelError::Unsupported(format!("its weights are of type {dtype:?}"))
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn header(file: &File, length: u64) -> io::Result<Result<(Metadata, u64), String>> {
    if length < PREFIX {
        return Ok(Err("it is shorter than its header".into()));
    }
    let mut prefix = [0; PREFIX as usize];
    file.read_exact_at(&mut prefix, 0)?;
    let size = u64::from_le_bytes(prefix);
    if size > MAX_HEADER.min(length - PREFIX) {
        return Ok(Err("it is shorter than its header, or no safetensors file".into()));
    }
    let mut text = vec![0; size as usize];
    file.read_exact_at(&mut text, PREFIX)?;
    Ok(parse(&text, length - PREFIX - size).map(|metadata| (metadata, PREFIX + size)))
}

fn parse(text: &[u8], data: u64) -> Result<Metadata, String> {
    let metadata: Metadata =
        serde_json::from_slice(text).map_err(|e| format!("its header is damaged: {e}"))?;
    let wanted = metadata.data_len() as u64;
    if wanted != data {
        return Err(format!("its header lists {wanted} bytes of tensors, and the file has {data}"));
    }
    Ok(metadata)
}

/// Numbers as 32-bit floats.
fn widen(float: Float, bytes: &[u8]) -> Vec<f32> {
    match float {
        Float::F32 => numbers(bytes).map(f32::from_le_bytes).collect(),
        Float::F16 => numbers(bytes).map(|b| half(u16::from_le_bytes(b))).collect(),
        Float::Bf16 => {
            numbers(bytes).map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)).collect()
        }
    }
}

fn numbers<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// A 16-bit float of IEEE 754: one bit of sign, five of exponent (less 15), ten of fraction.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 0x1f, bits & 0x3ff);
    let size = match exponent {
        // Without the leading one: fraction * 2^-24.
        0 => f32::from(fraction) * 2f32.powi(-24),
        0x1f if fraction == 0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => f32::from(fraction | 0x400) * 2f32.powi(i32::from(exponent) - 25),
    };
    if sign == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs};

    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    use super::*;

    fn file(dtype: Dtype, shape: &[usize], data: &[u8]) -> tempfile::NamedTempFile {
        let view = TensorView::new(dtype, shape.to_vec(), data).expect("shape and data agree");
        let bytes = safetensors::serialize(HashMap::from([("w", view)]), None).expect("it serialises");
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(&file, bytes).expect("it can be written");
        file
    }

    #[test]
    fn floats_lie_where_they_are_said_to_lie() {
        let data: Vec<u8> = [1f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        let file = file(Dtype::F32, &[2, 1], &data);
        let weights = Weights::open(&[file.path()]).expect("a good file");
        assert_eq!(weights.floats("w", &[2, 1]).expect("it is there"), [1., -2.5]);
        assert_eq!(weights.floats_of_rows("w", &[2, 1], 1..2).expect("it is there"), [-2.5]);
        let place =
            weights.place("w", &[2, 1]).expect("it is there").expect("header lengths are multiples of 8");
        let bytes = fs::read(file.path()).expect("it can be read");
        assert_eq!(bytes[place.offset as usize..][..place.length as usize], data);
    }

    #[test]
    fn small_floats_are_widened() {
        for (dtype, data) in [(Dtype::BF16, [0x80, 0x3f, 0x20, 0xc0]), (Dtype::F16, [0x00, 0x3c, 0x00, 0xc1])]
        {
            let file = file(dtype, &[2], &data);
            let weights = Weights::open(&[file.path()]).expect("a good file");
            assert_eq!(weights.floats("w", &[2]).expect("it is there"), [1., -2.5]);
            let place = weights.place("w", &[2]).expect("it is there").expect("an even address");
            assert_eq!((place.length, place.float), (4, Float::of(dtype).expect("a float")));
        }
    }

    #[test]
    fn sixteen_bit_floats_at_their_edges() {
        assert_eq!(half(0x0001), 2f32.powi(-24));
        assert_eq!(half(0x03ff), 1023. * 2f32.powi(-24));
        assert_eq!(half(0x0400), 2f32.powi(-14));
        assert_eq!(half(0x7bff), 65504.);
        assert_eq!(half(0x8000).to_bits(), (-0f32).to_bits());
        assert_eq!(half(0xfc00), f32::NEG_INFINITY);
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        let file = file(Dtype::F32, &[2], &[0; 8]);
        let bytes = fs::read(file.path()).expect("it can be read");
        for length in [0, 7, 8, 20, bytes.len() - 1, bytes.len() + 1] {
            let mut bytes = bytes.clone();
            bytes.resize(length, 0);
            fs::write(&file, bytes).expect("it can be written");
            let error = Weights::open(&[file.path()]).expect_err("a wrong length");
            assert!(matches!(error, ModelError::Invalid { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn a_tensor_of_another_shape_is_refused() {
        let file = file(Dtype::F32, &[2], &[0; 8]);
        let weights = Weights::open(&[file.path()]).expect("a good file");
        assert!(weights.floats("w", &[1, 2]).is_err_and(|e| e.to_string().contains("[1, 2]")));
        assert!(weights.floats("v", &[2]).is_err_and(|e| e.to_string().contains("no tensor v")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            fs::write(&file, bytes).expect("it can be written");
            let _ = Weights::open(&[file.path()]);
        }
    }
}
