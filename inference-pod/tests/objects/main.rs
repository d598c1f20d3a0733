//! Models that come from object stores: a real S3 server, and a stand-in for the others.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod cut;
mod minio;
mod s3;
mod stand_in;
mod stores;
