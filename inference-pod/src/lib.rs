//! Serves one model, which embeds or classifies texts, over HTTP with ONNX Runtime.
//!
//! The way of a model: [`config`] says where it is, [`source`] brings its files, [`model`] reads them, [`export`] makes
//! a graph of its weights, [`backend`] runs it. The way of a request: [`api`] reads it, [`engine`] tokenises and
//! queues it, [`batch`] runs it with others, [`vector`] or [`scores`] finish it.

pub mod api;
pub mod backend;
pub mod batch;
pub mod config;
pub mod cuda;
pub mod duration;
pub mod effort;
pub mod engine;
pub mod export;
pub mod head;
pub mod in_hand;
pub mod limits;
pub mod load;
pub mod metrics;
pub mod model;
pub mod norm;
pub mod pod;
pub mod pooling;
pub mod quantity;
pub mod scores;
pub mod serve;
pub mod source;
pub mod space;
pub mod start;
pub mod tokenise;
pub mod vector;
