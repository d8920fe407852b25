//! The node agent: drivers around the core's machine.

pub mod channel;
