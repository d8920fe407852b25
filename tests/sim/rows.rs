//! The rows of the machines' tables that the simulation reaches.

/// Each is used at least ten times in ten thousand seeds.
pub const REACHABLE: &[&str] = &[];
