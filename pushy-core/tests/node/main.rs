//! The node machine: its parts as tables, the whole against a server played by hand, any order of inputs.

mod any_order;
mod heartbeater;
mod job_runner;
mod lab;
mod machine;
mod operators;
mod outputs;
#[cfg(feature = "ruby-config")]
mod parameters;
mod reconfigurer;
