//! Counters and histograms, cheap enough for every message: an atomic addition each.
//!
//! A registry of our own: what there is to count is known when the program is written, so there is nothing to register,
//! no label to hash and no lock to take; what a library would add is the text format, which is a page (`text`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pushy_core::event::Event;
use pushy_core::server::Ticket;

/// A number that rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters with the values of one label, which are all known; anything else counts as the last one.
#[derive(Debug)]
pub struct Labelled {
    pub(super) labels: &'static [&'static str],
    counts: Box<[Counter]>,
}

impl Labelled {
    fn new(labels: &'static [&'static str]) -> Labelled {
        Labelled { labels, counts: labels.iter().map(|_| Counter::default()).collect() }
    }

    /// One more with this label.
    pub fn add(&self, label: &str) {
        let at = self.labels.iter().position(|l| *l == label).unwrap_or(self.labels.len() - 1);
        self.counts[at].add();
    }

    /// Labels with their values.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.labels.iter().zip(&self.counts).map(|(label, count)| (*label, count.value()))
    }
}

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, in seconds, rising.
    pub(super) bounds: &'static [f64],
    /// One more than bounds: the last has no bound.
    counts: Box<[Counter]>,
    micros: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| Counter::default()).collect(),
            micros: AtomicU64::new(0),
        }
    }

    /// One more.
    pub fn observe(&self, took: Duration) {
        let secs = took.as_secs_f64();
        self.counts[self.bounds.partition_point(|bound| *bound < secs)].add();
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many took at most each bound, then how many there are; and their sum in seconds.
    pub(super) fn values(&self) -> (Vec<u64>, f64) {
        let mut sum = 0;
        let counts = self.counts.iter().map(|count| {
            sum += count.value();
            sum
        });
        (counts.collect(), self.micros.load(Ordering::Relaxed) as f64 / 1e6)
    }
}

/// Requests to one resource.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) statuses: Labelled,
    pub(super) took: Histogram,
}

/// What requests are told apart by: never a path, which anybody can make up.
pub(crate) const ROUTES: &[&str] = &[
    "config",
    "jobs",
    "job",
    "cancel",
    "output",
    "stream",
    "node_states",
    "node_state",
    "feed",
    "job_feed",
    "status",
    "healthz",
    "readyz",
    "publish",
    "nodes",
    "node",
    "search",
    "other",
];
const STATUSES: &[&str] = &[
    "200", "201", "202", "204", "400", "401", "403", "404", "405", "406", "408", "409", "410", "413", "415",
    "500", "501", "502", "503", "other",
];
/// In seconds: from an answer out of memory to one that waits for a disk.
const TIMES: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const REFUSALS: &[&str] = &["unknown_key", "key_not_stored", "superseded_key", "other"];
const ENDS: &[&str] = &["complete", "quorum_failed", "aborted", "timed_out", "crashed", "other"];
const VOTES: &[&str] = &[
    "success",
    "failure",
    "down",
    "voting_timeout",
    "unexpected_commit",
    "lost_availibility",
    "client_died_while_voting",
    "other",
];
const RUNS: &[&str] = &[
    "success",
    "failure",
    "crashed",
    "run_nacked",
    "run_nacked_while_running",
    "client_died_while_running",
    "aborted",
    "other",
];

/// Everything that is counted as it happens. What can be looked up when somebody asks is not here.
#[derive(Debug)]
pub struct Metrics {
    /// Messages from nodes.
    pub messages_in: Counter,
    /// Messages to nodes.
    pub messages_out: Counter,
    /// The server's own heartbeats.
    pub heartbeats: Counter,
    /// Connections that nodes completed.
    pub handshakes: Counter,
    /// Handshakes with a proven key that the machine refused, by reason.
    pub refused: Labelled,
    /// Jobs that were stored.
    pub jobs_started: Counter,
    /// Jobs that could not be stored.
    pub jobs_refused: Counter,
    /// Jobs that ended, by status.
    pub jobs_finished: Labelled,
    /// Votes, by outcome.
    pub votes: Labelled,
    /// Runs on nodes that ended, by outcome.
    pub runs: Labelled,
    /// From records handed to the store until they survive a power cut.
    pub persist: Histogram,
    /// Records that could not be stored.
    pub persist_failures: Counter,
    /// Lines that could not be written to the audit log.
    pub audit_failures: Counter,
    pending: Mutex<VecDeque<(Ticket, Instant)>>,
    pub(super) routes: Vec<Route>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let route = |_| Route { statuses: Labelled::new(STATUSES), took: Histogram::new(TIMES) };
        Metrics {
            messages_in: Counter::default(),
            messages_out: Counter::default(),
            heartbeats: Counter::default(),
            handshakes: Counter::default(),
            refused: Labelled::new(REFUSALS),
            jobs_started: Counter::default(),
            jobs_refused: Counter::default(),
            jobs_finished: Labelled::new(ENDS),
            votes: Labelled::new(VOTES),
            runs: Labelled::new(RUNS),
            persist: Histogram::new(TIMES),
            persist_failures: Counter::default(),
            audit_failures: Counter::default(),
            pending: Mutex::default(),
            routes: ROUTES.iter().map(route).collect(),
        }
    }
}

impl Metrics {
    /// A REST request was answered.
    pub(crate) fn request(&self, route: &str, status: u16, took: Duration) {
        let at = ROUTES.iter().position(|r| *r == route).unwrap_or(ROUTES.len() - 1);
        let route = &self.routes[at];
        let mut digits = [b'0'; 3];
        for (place, digit) in digits.iter_mut().zip([status / 100, status / 10 % 10, status % 10]) {
            *place = b'0' + (digit % 10) as u8;
        }
        route.statuses.add(std::str::from_utf8(&digits).unwrap_or_default());
        route.took.observe(took);
    }

    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::QuorumVote { vote, .. } => self.votes.add(vote.as_str()),
            Event::RunComplete { result, .. } => self.runs.add(result.as_str()),
            Event::JobComplete { status } => self.jobs_finished.add(status.as_str()),
            _ => {}
        }
    }

    pub(super) fn persist_began(&self, ticket: Ticket) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push_back((ticket, Instant::now()));
    }

    /// Everything up to this ticket is over.
    pub(super) fn persist_ended(&self, ticket: Ticket) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, began)) = pending.front().filter(|(first, _)| *first <= ticket) {
            self.persist.observe(began.elapsed());
            pending.pop_front();
        }
    }

    /// Batches that the store has not answered.
    pub(super) fn persist_pending(&self) -> usize {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
