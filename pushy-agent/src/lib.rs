//! The node agent: drivers around the core's machine. [`run`] is the whole program but for arguments and signals.
//!
//! Unix only so far: what differs between systems is in `process::unix`.

#![deny(unsafe_code)]

#[cfg(not(unix))]
compile_error!("the agent has no Windows side yet: process/windows.rs is missing");

mod about;
pub mod channel;
pub mod check;
pub mod config;
mod driver;
mod fetch;
mod file;
pub mod log;
#[allow(unsafe_code)] // system calls between fork and exec, and two that have no safe wrapper
pub mod process;
pub mod spool;
mod state;
mod watcher;
mod whitelist;

use tokio::sync::mpsc;

pub use config::{Action, Args, Config};
pub use driver::Control;

/// Runs an agent until it is told to stop, by [`Control::Stop`] or by dropping the sender; gives the exit status.
///
/// # Errors
/// When the settings for TLS, proxy or URL cannot be used.
pub async fn run(config: Config, control: mpsc::Receiver<Control>) -> pushy_core::Result<u8> {
    let file = config.file.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    tracing::info!(
        node = %config.node_name,
        server = %config.chef_server_url,
        file,
        whitelist_entries = config.whitelist.len(),
        "push-jobs-client {} starts",
        env!("CARGO_PKG_VERSION")
    );
    config.log_notices();
    let (driver, sources) = driver::Driver::new(config)?;
    Ok(driver.run(control, sources).await)
}
