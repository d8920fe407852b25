//! The server in one process on free ports: REST, operator's commands, store, start and stop.

mod admin;
mod detail;
mod feeds;
mod feeds_many;
mod lab;
mod listener;
mod node;
mod puppet;
mod rest;
mod rest_auth;
mod start;
mod store;
