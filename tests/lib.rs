//! Shared helpers of the cross-crate tests: HTTP, processes, waiting with a deadline.

pub mod http;
pub mod process;
pub mod site;

pub use process::{Process, bin_dir, until};
