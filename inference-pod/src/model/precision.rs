//! In what numbers a network is computed.

/// Numbers of the products in a network. Everything else is computed in 32-bit floats, where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats, in which weights are used as they are saved.
    #[default]
    Float32,
    /// 16-bit floats, to which weights are rounded when they are loaded: everything but what is answered. On GPUs alone.
    Float16,
    /// 8-bit integers: weights are rounded when they are loaded, and what they are multiplied with for each product.
    Int8,
}

impl Precision {
    /// As flags, digests and clients write it. Another way to round is another space, and needs another name.
    pub fn name(self) -> &'static str {
        Numbers::from(self).name()
    }
}

/// Numbers of the products in a network that runs. A shipped graph has its own, and may have some that nobody can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// 32-bit floats.
    Float32,
    /// 16-bit floats.
    Float16,
    /// 8-bit integers. At least the weights are.
    Int8,
    /// The weights are 4-bit integers.
    Int4,
}

impl Numbers {
    /// As clients know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

impl From<Precision> for Numbers {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Float32 => Self::Float32,
            Precision::Float16 => Self::Float16,
            Precision::Int8 => Self::Int8,
        }
    }
}
