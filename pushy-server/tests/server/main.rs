//! The server in one process on free ports: REST, operator's commands, store, start and stop.

mod admin;
mod cancel;
mod detail;
mod doctor;
#[path = "../../../tests/draft.rs"]
mod draft;
mod feeds;
mod feeds_many;
mod lab;
mod limits;
mod listener;
mod manual;
mod nginx;
mod node;
mod nodes;
mod ops;
mod outputs;
#[path = "../../../tests/postgres.rs"]
#[allow(unreachable_pub)] // elsewhere it is a module of a library
mod postgres;
mod puppet;
mod reload;
mod rest;
mod rest_auth;
mod start;
mod store;
mod store_both;
mod store_postgres;
mod upkeep;
