//! The conformance suite: one test for each line of the checklists A to H of the specification (2.6 and 8.6), named
//! by its id.
//!
//! ```text
//! cargo test -p pushy-tests --test conformance              everything, over every store and both kinds of principals
//! cargo test -p pushy-tests --test conformance -- b6        one line
//! cargo test -p pushy-tests --test conformance -- sqlite    one combination
//! ```
//!
//! Bodies are compared whole. The exceptions, each named in its test: JSON in place of the original's HTML
//! ([`call::Answer::check_framework`]), D18 through our own API, G28: the job goes on, and crashes with
//! `on_restart = "crash"` as the original's does.
//!
//! # Against another server
//! The part that needs nothing but requests runs against any URL, an original server's too:
//!
//! ```text
//! PUSHY_CONFORMANCE_URL=https://chef.example.com PUSHY_CONFORMANCE_ACTORS=actors.json \
//!     cargo test -p pushy-tests --test conformance
//! ```
//!
//! The file names an organization that has neither `pushy_job_readers` nor `pushy_job_writers`, and four people with
//! their private keys, paths from the file's folder. `expect` says whose answers are right where ours and the
//! original's differ; `insecure` accepts any certificate. Jobs for the unknown nodes DONKEY and FARQUAD are started there.
//!
//! ```json
//! {
//!   "organization": "acme", "expect": "original", "insecure": true,
//!   "admin":   { "name": "alice", "key": "alice.pem" },
//!   "normal":  { "name": "norbert", "key": "norbert.pem" },
//!   "client":  { "name": "web-1.example.com", "key": "web-1.pem" },
//!   "outside": { "name": "oscar", "key": "oscar.pem" },
//!   "config":  { "heartbeat_interval": 10.0, "heartbeat_port": 10000, "command_port": 10002 }
//! }
//! ```
//!
//! `admin` is in the group `admins`, `normal` is a member of the organization, `client` a client of it that is in no
//! group, `outside` a user of another organization; `config` may be left out. Tests that need groups, nodes or a server of their own say that they
//! are skipped. An ordinary run does this with a server of its own, under the name `url`.

mod a_status;
mod agent;
mod b_config;
mod c_jobs;
mod call;
mod d_bodies;
#[path = "../draft.rs"]
mod draft;
mod e_node_states;
mod f_headers;
mod feed;
mod g_nodes;
mod h_feeds;
mod people;
mod puppet;
mod runner;
mod site;
mod target;

fn main() -> std::process::ExitCode {
    let letters = [
        a_status::CHECKLIST,
        b_config::CHECKLIST,
        c_jobs::CHECKLIST,
        d_bodies::CHECKLIST,
        e_node_states::CHECKLIST,
        f_headers::CHECKLIST,
        g_nodes::CHECKLIST,
        h_feeds::CHECKLIST,
    ];
    let tests: Vec<&'static runner::Test> = letters.into_iter().flatten().collect();
    runner::main(&tests)
}
