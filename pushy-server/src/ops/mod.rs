//! Keeping the server in sight: metrics, health, audit log, reload, drain.

use std::path::Path;
use std::sync::Arc;

use pushy_core::Result;
use pushy_core::server::{Input, Output};

use crate::config::Operation;
use crate::store::Saved;

pub mod audit;
pub mod health;
pub(crate) mod http;
pub mod metrics;
pub(crate) mod notify;
mod process;
pub mod reload;
mod text;

use audit::Audit;
use health::Health;
use metrics::Metrics;

/// What all parts of the server report to.
#[derive(Default)]
pub struct Ops {
    /// Counters.
    pub metrics: Metrics,
    /// Whether the server should get requests.
    pub health: Health,
    /// Who did what.
    pub audit: Audit,
}

impl Ops {
    /// Opens the audit log.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(settings: &Operation) -> Result<Arc<Ops>> {
        let audit = Audit::open(settings)?;
        Ok(Arc::new(Ops { audit, ..Ops::default() }))
    }

    /// Writes a line of the audit log; what hinders it is logged and counted.
    pub(crate) fn audit_line(&self, what: &str, about: serde_json::Value) {
        if let Err(error) = self.audit.write(what, about) {
            self.metrics.audit_failures.add();
            tracing::error!("audit_log: {error}");
        }
    }

    /// Something came from a node.
    pub(crate) fn came(&self, input: &Input) {
        match input {
            Input::Frames { .. } => self.metrics.messages_in.add(),
            Input::Opened { .. } => self.metrics.handshakes.add(),
            _ => {}
        }
    }

    /// The machine wants something done.
    pub(crate) fn goes(&self, output: &Output) {
        let metrics = &self.metrics;
        match output {
            Output::Send { .. } => metrics.messages_out.add(),
            Output::Publish { .. } => metrics.heartbeats.add(),
            Output::Refuse { reason, .. } => metrics.refused.add(reason.as_str()),
            Output::Persist { ticket, .. } => metrics.persist_began(*ticket),
            Output::JobStarted { .. } => metrics.jobs_started.add(),
            Output::JobRefused { .. } => metrics.jobs_refused.add(),
            Output::Event { event, .. } => metrics.event(event),
            _ => {}
        }
    }

    /// The store answers.
    pub(crate) fn saved(&self, saved: &Saved) {
        match saved {
            Saved::Kept(ticket) => {
                self.metrics.persist_ended(*ticket);
                self.health.store.good();
            }
            Saved::Failed(ticket, _) => {
                self.metrics.persist_ended(*ticket);
                self.metrics.persist_failures.add();
                self.health.store.bad();
            }
        }
    }
}

/// Bytes of a SQLite database with its journal; what is not there counts nothing.
pub(crate) fn database_bytes(database: &Path) -> u64 {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |about| about.len());
    size(database) + size(Path::new(&wal))
}
