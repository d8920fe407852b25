//! The push server in front of a Chef server: a stub of one on every machine, a real goiardi where Debian's package is
//! installed, chef-zero in the lab (`CHEF_LAB`).

mod goiardi;
mod lab;
mod memory;
mod rules;
mod trouble;
mod zero;
