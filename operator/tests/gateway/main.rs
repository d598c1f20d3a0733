//! The gateway over real sockets, with pods that are made up and a directory that is filled by hand.

mod access_log;
mod bodies;
mod cluster;
mod credit;
mod deaths;
mod drain;
mod failures;
mod fleet;
mod hedging;
mod holding;
mod hostile;
mod keys;
mod load;
mod long_bodies;
mod owners;
mod refusals;
mod routes;
mod shelf;
mod space;
mod stub;
mod support;
mod traces;
mod turns;
mod wake;
mod zero;
