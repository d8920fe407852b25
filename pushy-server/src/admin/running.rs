//! Commands about a running server: reload, drain, what should be looked at.

use std::sync::Arc;
use std::time::Duration;

use pushy_core::Result;
use pushy_core::server::NodeWarning;
use serde_json::{Value, json};

use super::{Admin, not_running};
use crate::driver::Handle;
use crate::ops::Ops;

/// Nodes with warnings that are shown at once.
const WARNED: usize = 200;
/// Between two looks at the jobs of a server that drains.
const LOOK: Duration = Duration::from_millis(200);

impl Admin {
    pub(super) fn read_again(&self) -> Result<Value> {
        let reload = self.reload.as_ref().ok_or_else(not_running)?;
        Ok(json!(reload.now()))
    }

    pub(super) async fn drain(&self, who: &str, cancel: bool, timeout: Option<f64>) -> Result<Value> {
        let driver = self.driver.as_ref().ok_or_else(not_running)?;
        let timeout = timeout.and_then(|secs| Duration::try_from_secs_f64(secs).ok());
        let timeout = timeout.unwrap_or(self.drain_timeout);
        let until = tokio::time::Instant::now().checked_add(timeout);
        if self.ops.health.drain(!cancel, until) {
            self.ops.audit_line(if cancel { "drain_cancelled" } else { "drain" }, json!({ "by": who }));
            if cancel {
                tracing::info!("the drain is called off; new jobs are taken again");
            } else {
                tracing::info!("draining: no new jobs; the server stops when the running ones are over");
                tokio::spawn(stop_when_idle(Arc::clone(&self.ops), driver.clone()));
            }
        }
        let jobs = driver.look(|server, _| server.unfinished_jobs()).await?;
        Ok(json!({ "draining": !cancel, "unfinished_jobs": jobs, "timeout": timeout.as_secs_f64() }))
    }

    pub(super) async fn warnings(&self) -> Result<Value> {
        let driver = self.driver.as_ref().ok_or_else(not_running)?;
        let (counts, warned) =
            driver.look(|server, _| (server.node_counts(), server.node_warnings(WARNED))).await?;
        let name_of = |org: &pushy_core::ids::OrgId| {
            let directory = self.directory.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            directory.orgs().find(|(_, known)| known.id == *org).map(|(name, _)| name.to_string())
        };
        let text = |warning: &NodeWarning| {
            let offset = match warning {
                NodeWarning::ClockOff { seconds, .. } => Some(*seconds),
                _ => None,
            };
            json!({ "kind": warning.kind(), "text": warning.to_string(), "clock_offset": offset })
        };
        let nodes = warned.iter().map(|(at, warnings)| {
            let org = name_of(&at.org).unwrap_or_else(|| at.org.to_string());
            let warnings: Vec<Value> = warnings.iter().map(text).collect();
            json!({ "org": org, "node": at.node.as_str(), "warnings": warnings })
        });
        let online = counts.available + counts.unavailable + counts.rehab;
        Ok(json!({ "online": online, "nodes": nodes.collect::<Vec<_>>() }))
    }
}

/// Waits until no job is unfinished, or as long as the last drain said; a drain that is called off ends it.
async fn stop_when_idle(ops: Arc<Ops>, driver: Handle) {
    loop {
        if !ops.health.is_draining() {
            return;
        }
        let Ok(jobs) = driver.look(|server, _| server.unfinished_jobs()).await else { return };
        let late = ops.health.drain_ends().is_some_and(|end| tokio::time::Instant::now() >= end);
        if jobs == 0 || late {
            match jobs {
                0 => tracing::info!("drained: no job is running"),
                _ => tracing::warn!(jobs, "the drain took too long: jobs go on when the server is back"),
            }
            return ops.health.drained.notify_one();
        }
        tokio::time::sleep(LOOK).await;
    }
}
