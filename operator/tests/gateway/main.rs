//! The gateway over real sockets, with pods that are made up and a directory that is filled by hand.

mod access_log;
mod bodies;
mod cluster;
mod drain;
mod failures;
mod hostile;
mod keys;
mod load;
mod routes;
mod space;
mod support;
mod wake;
