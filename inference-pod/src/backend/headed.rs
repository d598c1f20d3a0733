//! A network with layers behind its pooling.

use std::sync::Arc;

use kembed_queue::Lengths;

use super::{Backend, RunError, Took};
use crate::{
    batch::row::{Row, Wanted},
    head::{Layer, apply},
};

/// A network and the layers behind it, of which there may be none.
#[derive(Clone)]
pub struct Headed<B> {
    network: B,
    layers: Arc<[Layer]>,
}

impl<B> Headed<B> {
    /// Puts layers behind a network. The first must take what the network gives.
    pub fn new(network: B, layers: Vec<Layer>) -> Self {
        Self { network, layers: layers.into() }
    }
}

impl<B: Backend> Backend for Headed<B> {
    fn lengths(&self) -> Lengths {
        self.network.lengths()
    }

    fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
        let vectors = self.network.run(batch)?.into_iter().zip(batch);
        let finish = |(vector, row): (Vec<f32>, &&Row)| match (row.wanted, self.layers.first()) {
            (Wanted::Tokens, _) | (_, None) => Ok(vector),
            (Wanted::One, Some(layer)) if layer.from == vector.len() => Ok(apply(&self.layers, vector)),
            (Wanted::One, Some(layer)) => {
                let (takes, gives) = (layer.from, vector.len());
                let what = format!("a dense layer takes {takes} numbers, and the network gives {gives}");
                Err(RunError::Failed(what))
            }
        };
        vectors.map(finish).collect()
    }

    fn took(&mut self) -> Option<Took> {
        self.network.took()
    }
}
