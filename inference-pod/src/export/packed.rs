//! Graphs for GPUs: all tokens of a batch lie one after the other, with no padding between them, and what leaves the graph is
//! one vector for each row, or a number for each label.

use super::{
    Exported, classify,
    graph::{Graph, ONNX, Value},
    network,
    proto::{FLOAT, INT32},
};
use crate::{
    model::{ModelError, Precision, Recipe, weights::Weights},
    pooling::Pooling,
};

/// The output: 32-bit floats, a vector for each row, or its numbers of labels.
pub const VECTORS: &str = "vectors";

/// The inputs. All are 32-bit integers but for [`inputs::SHARES`].
pub mod inputs {
    /// `[tokens]`
    pub const IDS: &str = "input_ids";
    /// `[tokens]`: the place of each token in its row.
    pub const POSITIONS: &str = "positions";
    /// `[tokens]`: which text of a pair each belongs to. For models that know pairs.
    pub const TYPES: &str = "token_type_ids";
    /// `[longest]`: 0, 1 and so on. For models to which it matters how far apart tokens are.
    pub const PLACES: &str = "places";
    /// `[rows, longest]`: where tokens are if rows are padded to the longest, and then where padding is.
    pub const OFFSETS: &str = "token_offset";
    /// `[rows + 1]`: tokens before each row, and all.
    pub const BEFORE: &str = "tokens_before";
    /// `[rows]`: which token's vector is that of the row. For pooling that takes one.
    pub const PICKS: &str = "picks";
    /// `[rows, 1]`: 0, 1 and so on. With the next two for pooling that takes a share of each.
    pub const ROWS: &str = "rows";
    /// `[tokens]`: the row of each token, or -1.
    pub const ROW_OF_TOKEN: &str = "row_of_token";
    /// `[tokens]`, 32-bit floats: how much of each token's vector is that of its row.
    pub const SHARES: &str = "share_of_token";
}

/// What tells the operators that it matters to which row each token belongs to.
#[derive(Clone)]
pub(super) struct Packing {
    pub(super) positions: Value,
    pub(super) offsets: Value,
    pub(super) before: Value,
}

/// How the vector of a row is made of those of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is one of them.
    Pick,
    /// It is the sum of shares of them.
    Share,
}

impl Way {
    /// That of a kind of pooling, if it is one of these.
    pub fn of(pooling: Pooling) -> Option<Self> {
        match pooling {
            Pooling::Cls | Pooling::LastToken => Some(Self::Pick),
            Pooling::Mean | Pooling::MeanSqrtLen | Pooling::WeightedMean => Some(Self::Share),
            Pooling::Max => None,
        }
    }
}

/// What a graph is told of each batch, beside its tokens and where rows begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// How the vectors of a row's tokens become one.
    pub pooling: Pooling,
    /// Whether it is told which text of a pair each token belongs to.
    pub types: bool,
    /// Whether it is told the places of the tokens of the longest row.
    pub places: bool,
}

impl From<Pooling> for Form {
    /// Nothing more.
    fn from(pooling: Pooling) -> Self {
        Self { pooling, types: false, places: false }
    }
}

/// The next of eight sizes between a power of two and the next one, but for small ones, which are multiples of eight.
pub fn rounded_up(size: usize) -> usize {
    let step = (size.max(1).ilog2().saturating_sub(3)).max(3);
    size.max(1).next_multiple_of(1 << step)
}

/// As [`rounded_up`], of the tokens of the longest row. Where something is added to scores, ONNX Runtime's fast kernels want a
/// multiple of eight of them in 16 bits, and of sixteen in 32.
pub fn rounded_row(longest: usize) -> usize {
    rounded_up(longest).next_multiple_of(16)
}

/// Makes the graph of a model, for the operators that ONNX Runtime has on GPUs.
///
/// # Errors
/// If there are no such operators for it, or the weights do not fit the architecture.
pub fn export(recipe: &Recipe, weights: &Weights) -> Result<(Exported, Form), ModelError> {
    let (config, labels) = (&recipe.config, recipe.labels.as_ref());
    if recipe.precision == Precision::Int8 {
        return Err(not_there("networks in int8"));
    }
    let pooling = labels.map_or(Ok(recipe.pooling), |_| classify::pooling(config))?;
    let way = Way::of(pooling).ok_or_else(|| not_there("pooling by the largest numbers"))?;
    let mut graph = Graph::new(weights, recipe.precision);
    let mut input = |name: &str, dims: &[&str]| graph.input(name, INT32, dims);
    let ids = input(inputs::IDS, &["tokens"]);
    let packing = Packing {
        positions: input(inputs::POSITIONS, &["tokens"]),
        offsets: input(inputs::OFFSETS, &["sequences", "longest"]),
        before: input(inputs::BEFORE, &["sequences_and_one"]),
    };
    graph.pack(packing);
    let hidden = network(&mut graph, recipe, &ids)?;
    let vectors = match way {
        Way::Pick => picked(&mut graph, &hidden),
        Way::Share => shared(&mut graph, &hidden),
    };
    let vectors = match labels {
        None => vectors,
        Some(labels) => classify::of_pooled(&mut graph, config, labels.len(), &vectors)?,
    };
    let vectors = match recipe.precision {
        Precision::Float16 => graph.cast(&vectors, FLOAT),
        Precision::Float32 | Precision::Int8 => vectors,
    };
    graph.output(VECTORS, vectors, &["rows", "numbers"]);
    let (types, places) = (graph.takes(inputs::TYPES), graph.takes(inputs::PLACES));
    let form = Form { pooling, types, places };
    Ok((graph.finish(), form))
}

pub(super) fn not_there(what: &str) -> ModelError {
    ModelError::Unsupported(format!("{what} cannot be run on a GPU yet"))
}

fn picked(graph: &mut Graph<'_>, hidden: &str) -> Value {
    let picks = graph.input(inputs::PICKS, INT32, &["rows"]);
    graph.node(ONNX, "Gather", &[hidden, &picks], Vec::new())
}

/// A product with the shares, as a matrix `[rows, tokens]` that is made on the device: most of it is zero, but it is a
/// hundredth of the network's work at most.
fn shared(graph: &mut Graph<'_>, hidden: &str) -> Value {
    let rows = graph.input(inputs::ROWS, INT32, &["rows", "1"]);
    let of_tokens = graph.input(inputs::ROW_OF_TOKEN, INT32, &["tokens"]);
    let shares = graph.input(inputs::SHARES, FLOAT, &["tokens"]);
    let number = graph.computed_in();
    let belongs = graph.node(ONNX, "Equal", &[&rows, &of_tokens], Vec::new());
    let (belongs, shares) = (graph.cast(&belongs, number), graph.cast(&shares, number));
    let shares = graph.node(ONNX, "Mul", &[&belongs, &shares], Vec::new());
    graph.node(ONNX, "MatMul", &[&shares, hidden], Vec::new())
}
