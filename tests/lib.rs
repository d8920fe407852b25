//! Shared helpers of the cross-crate tests: HTTP, processes, PostgreSQL, waiting with a deadline.

pub mod chef_stub;
pub mod http;
pub mod postgres;
pub mod process;
pub mod site;

pub use process::{Process, bin_dir, until};
