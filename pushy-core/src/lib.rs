//! Push Jobs: everything that two of {server, node agent, knife, `pushy` resource, C program} must agree on.
//!
//! The crate decides and never acts. Its machines, [`server::Server`] and [`node::Node`], are values: tell them what
//! happened with `handle(now, input)`, drain `poll_output()` and carry the outputs out, then wait for the next input
//! or until `next_deadline()`. Time, randomness, files and sockets come in as arguments; only [`client`] (feature
//! `client`) does I/O.
//!
//! "2.5" and the like in comments are sections of the protocol specification, "D-41" a defect of the original
//! programs that this crate does not share.
#![forbid(unsafe_code)]

pub mod api;
pub mod auth;
#[cfg(feature = "ruby-config")]
pub mod chef_config;
#[cfg(feature = "client")]
pub mod client;
pub mod curve_key;
pub mod error;
pub mod event;
pub mod feed;
pub mod ids;
pub mod job;
mod json;
pub mod message;
pub mod node;
pub mod node_config;
pub mod node_document;
pub mod output;
pub mod present;
pub mod reason;
#[cfg(feature = "ruby-config")]
pub mod ruby_config;
pub mod search;
pub mod server;
pub mod time;
pub mod value;
pub mod watch;
pub mod whitelist;
pub mod wire;
pub mod zmtp;

pub use error::{Error, ErrorCode, Result};
