//! The push server: drivers around the core's machine.
#![forbid(unsafe_code)]

pub mod broker;
