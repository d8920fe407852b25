//! Peers on libzmq, written in Python from the specification: so that our two ends cannot agree on the same mistake.

mod node;
mod python;
mod server;
mod transport;
