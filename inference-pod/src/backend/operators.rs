//! Our own operators, for graphs that [`crate::export`] makes.

use std::sync::Arc;

use kembed_int8::Factor;
use ort::operator::OperatorDomain;

use super::{int8::Products, norm::NormalisedSum};
use crate::export::OWN;

/// All of them, for sessions of a graph with these factors.
///
/// # Errors
/// If ONNX Runtime does not take one.
pub fn operators(factors: Arc<[Factor]>) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(OWN)?.add(Products::new(factors))?.add(NormalisedSum)
}
