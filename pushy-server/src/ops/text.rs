//! The text format of Prometheus (0.0.4): families with help and type, samples with labels.

use std::fmt::Write as _;

use pushy_core::server::{NodeCounts, NodeWarning};

use super::Ops;
use super::metrics::{Histogram, Labelled, ROUTES};
use super::process;
use crate::broker::Traffic;

/// What the text says the text is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is looked up for one page.
pub(super) struct Seen {
    pub(super) nodes: NodeCounts,
    pub(super) jobs: usize,
    pub(super) traffic: Traffic,
    /// Listeners of job feeds and of organizations' feeds.
    pub(super) listeners: (usize, usize),
    pub(super) store_bytes: Option<u64>,
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Label values are all our own words: nothing to escape.
    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    fn maybe(&mut self, name: &str, kind: &str, help: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.one(name, kind, help, value);
        }
    }

    fn labelled(&mut self, name: &str, help: &str, label: &str, values: &Labelled) {
        self.family(name, "counter", help);
        for (value, count) in values.values() {
            self.sample(name, &format!("{label}=\"{value}\""), count);
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let (counts, sum) = histogram.values();
        let comma = if labels.is_empty() { "" } else { "," };
        let bounds = histogram.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&counts) {
            self.sample(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), count);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, counts.last().copied().unwrap_or_default());
    }
}

/// Everything on one page.
pub(super) fn page(ops: &Ops, seen: &Seen) -> String {
    let metrics = &ops.metrics;
    let mut page = Page(String::with_capacity(16 << 10));
    let p = &mut page;
    p.family("pushy_build_info", "gauge", "What runs; always 1.");
    p.sample("pushy_build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    let ready = u8::from(ops.health.reasons().is_empty());
    p.one("pushy_ready", "gauge", "Whether /readyz says yes.", ready);
    p.one("pushy_draining", "gauge", "Whether new jobs are refused.", u8::from(ops.health.is_draining()));

    let nodes = &seen.nodes;
    p.family("pushy_nodes", "gauge", "Nodes that the server knows, by state.");
    for (state, count) in [
        ("available", nodes.available),
        ("unavailable", nodes.unavailable),
        ("rehab", nodes.rehab),
        ("expected", nodes.expected),
        ("offline", nodes.offline),
    ] {
        p.sample("pushy_nodes", &format!("state=\"{state}\""), count);
    }
    p.family("pushy_node_warnings", "gauge", "Nodes that should be looked at, by reason.");
    for (kind, count) in NodeWarning::KINDS.iter().zip(nodes.warnings) {
        p.sample("pushy_node_warnings", &format!("kind=\"{kind}\""), count);
    }
    let traffic = &seen.traffic;
    p.family("pushy_connections", "gauge", "Open connections of nodes, by port.");
    p.sample("pushy_connections", "port=\"command\"", traffic.nodes);
    p.sample("pushy_connections", "port=\"heartbeat\"", traffic.subscribers);
    p.one(
        "pushy_handshakes_total",
        "counter",
        "Connections that nodes completed.",
        metrics.handshakes.value(),
    );
    p.labelled(
        "pushy_handshakes_refused_total",
        "Handshakes with a proven key that were refused.",
        "reason",
        &metrics.refused,
    );
    p.family(
        "pushy_connections_refused_total",
        "counter",
        "Connections that ended because the peer broke a rule of the transport, or was one too many.",
    );
    for (reason, count) in &traffic.refused {
        p.sample("pushy_connections_refused_total", &format!("reason=\"{reason}\""), count);
    }
    p.one("pushy_queued_bytes", "gauge", "Bytes that wait for the network.", traffic.queued);
    p.one("pushy_messages_received_total", "counter", "Messages from nodes.", metrics.messages_in.value());
    p.one("pushy_messages_sent_total", "counter", "Messages to nodes.", metrics.messages_out.value());
    p.one("pushy_heartbeats_total", "counter", "The server's own heartbeats.", metrics.heartbeats.value());

    p.one("pushy_jobs_unfinished", "gauge", "Jobs that are not over.", seen.jobs);
    p.one("pushy_jobs_started_total", "counter", "Jobs that were stored.", metrics.jobs_started.value());
    p.one(
        "pushy_jobs_refused_total",
        "counter",
        "Jobs that could not be stored.",
        metrics.jobs_refused.value(),
    );
    p.labelled("pushy_jobs_finished_total", "Jobs that ended.", "status", &metrics.jobs_finished);
    p.labelled("pushy_votes_total", "Votes of nodes.", "vote", &metrics.votes);
    p.labelled("pushy_runs_total", "Runs on nodes that ended.", "result", &metrics.runs);

    p.family("pushy_persist_seconds", "histogram", "From a change until it survives a power cut.");
    p.histogram("pushy_persist_seconds", "", &metrics.persist);
    p.one(
        "pushy_persist_failures_total",
        "counter",
        "Changes that could not be stored.",
        metrics.persist_failures.value(),
    );
    p.one(
        "pushy_persist_pending",
        "gauge",
        "Batches of changes that the store has not answered.",
        metrics.persist_pending(),
    );
    p.maybe("pushy_store_bytes", "gauge", "Size of the database.", seen.store_bytes);
    p.one(
        "pushy_audit_failures_total",
        "counter",
        "Lines that could not be written to the audit log.",
        metrics.audit_failures.value(),
    );
    p.family("pushy_feed_subscribers", "gauge", "Listeners of event feeds.");
    p.sample("pushy_feed_subscribers", "feed=\"job\"", seen.listeners.0);
    p.sample("pushy_feed_subscribers", "feed=\"organization\"", seen.listeners.1);

    p.family("pushy_http_requests_total", "counter", "Answered REST requests.");
    let used =
        || ROUTES.iter().zip(&metrics.routes).filter(|(_, route)| route.took.values().0.last() > Some(&0));
    for (name, route) in used() {
        for (status, count) in route.statuses.values().filter(|(_, count)| *count > 0) {
            let labels = format!("route=\"{name}\",status=\"{status}\"");
            p.sample("pushy_http_requests_total", &labels, count);
        }
    }
    p.family("pushy_http_request_seconds", "histogram", "From a request until its answer begins.");
    for (name, route) in used() {
        p.histogram("pushy_http_request_seconds", &format!("route=\"{name}\""), &route.took);
    }

    let process = process::look();
    p.maybe(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        process.resident_bytes,
    );
    p.maybe("process_open_fds", "gauge", "Number of open file descriptors.", process.open_files);
    p.maybe("process_max_fds", "gauge", "Maximum number of open file descriptors.", process.max_files);
    p.maybe(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds,
    );
    p.one(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        process.started,
    );
    page.0
}
