//! The same arrivals on the cluster, at pods that compute nothing, and in simulated time.

pub mod compare;
pub mod drive;
pub mod picture;
pub mod run;
pub mod traffic;
