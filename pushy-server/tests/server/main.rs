//! The server in one process on free ports: REST, operator's commands, store, start and stop.

mod lab;
mod rest;
mod rest_auth;
