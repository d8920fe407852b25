//! What jobs print: kept, read for whoever asks, removed in time.

use std::sync::Arc;
use std::time::Duration;

use pushy_core::ids::JobId;
use pushy_core::node::{Input, JobSpec};
use pushy_core::output::Wanted;

use super::{Driver, Event};
use crate::spool::Spool;

/// While there is output on disk, its age is looked at so often.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

impl Driver {
    /// Where all of a job's output is to be kept.
    pub(super) fn spool(&mut self, job: &JobId, spec: &JobSpec) -> Option<Arc<Spool>> {
        if !spec.options.capture {
            return None;
        }
        let (events, of) = (self.events.clone(), job.clone());
        let tell = Box::new(move |ended| {
            let _ = events.send(Event::Output(Input::OutputGrew { job: of.clone(), ended }));
        });
        let spool = self.spools.create(job, self.policy.spool, tell);
        self.expire();
        spool
    }

    /// Removes output that has been kept for long enough, and looks again later while there is any.
    pub(super) fn expire(&mut self) {
        let busy = self.running.as_ref().map(|(job, _)| job.clone());
        if !self.spools.expire(self.policy.spool, busy.as_ref()) || std::mem::replace(&mut self.expires, true)
        {
            return;
        }
        let events = self.events.clone();
        let pause = self.policy.spool.keep.clamp(Duration::from_secs(1), EXPIRE_EVERY);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = events.send(Event::Expire);
        });
    }

    pub(super) fn read_output(&mut self, wanted: Wanted) {
        let (read, events) = (self.spools.read(wanted), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let _ = events.send(Event::Output(Input::OutputRead(read())));
        });
    }
}
