//! The server in one process on free ports: REST, operator's commands, store, start and stop.

mod admin;
mod detail;
mod lab;
mod node;
mod puppet;
mod rest;
mod rest_auth;
mod start;
mod store;
