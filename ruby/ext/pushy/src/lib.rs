//! The native half of gem `pushy`: Ruby classes over `pushy-core`, one file each. Keyword arguments, defaults and
//! blocks are in `ruby/lib/pushy`.
// The init macro exports a function for Ruby; there is no Rust interface to document.
#![allow(missing_docs)]

use magnus::Ruby;

mod auth;
mod client;
mod convert;
mod error;
mod gvl;
mod job;
mod message;
mod present;
mod whitelist;

/// Defines the classes; called by Ruby when `pushy/pushy_ruby` is required.
#[magnus::init(name = "pushy_ruby")]
fn init(ruby: &Ruby) -> Result<(), magnus::Error> {
    let module = ruby.define_module("Pushy")?;
    job::init(ruby, module)?;
    client::init(ruby, module)?;
    message::init(module)?;
    present::init(module)?;
    auth::init(module)?;
    whitelist::init(ruby, module)?;
    Ok(())
}
