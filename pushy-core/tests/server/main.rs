//! The server machine as a whole: jobs, nodes, bindings, durability, restart, replay, costs.

mod bindings;
mod cancel;
mod chaos;
mod costs;
mod durability;
mod jobs;
mod lab;
mod no_panic;
mod nodes;
mod outputs;
mod reasons;
mod resync;
mod trouble;
