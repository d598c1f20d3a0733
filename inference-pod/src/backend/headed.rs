//! A network with layers behind its pooling.

use std::sync::Arc;

use super::{Backend, RunError};
use crate::{
    batch::pad::Padded,
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
    fn run(&mut self, batch: &Padded) -> Result<Vec<Vec<f32>>, RunError> {
        let vectors = self.network.run(batch)?;
        if let Some((layer, vector)) = self.layers.first().zip(vectors.first())
            && layer.from != vector.len()
        {
            let (takes, gives) = (layer.from, vector.len());
            return Err(RunError(format!(
                "a dense layer takes {takes} numbers, and the network gives {gives}"
            )));
        }
        Ok(vectors.into_iter().map(|vector| apply(&self.layers, vector)).collect())
    }
}
