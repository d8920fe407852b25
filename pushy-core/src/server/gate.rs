//! What must be kept before what may be told (decision 10): one gate for each job, one for all bindings.
//!
//! A gate has at most one batch with the store. Records that come up meanwhile form the next batch, so a
//! thousand votes cost a handful of transactions, and nothing is stored out of order.

use crate::feed::Frame;
use crate::ids::JobId;
use crate::time::Wall;

use super::Record;
use super::tables::Gated;

/// Records on their way to the store, and what waits for them.
#[derive(Default)]
pub(super) struct Gate {
    /// The batch with the store, kept to hand it in again.
    sent: Vec<Record>,
    /// Waits for `sent`.
    after_sent: Vec<Gated>,
    in_flight: bool,
    /// The next batch.
    dirty: Vec<Record>,
    /// Where in it the record of the job's events is.
    feed_in_dirty: Option<usize>,
    /// Waits for `dirty`.
    after_dirty: Vec<Gated>,
    /// The store has failed; nothing is handed in before the retry.
    waits: bool,
}

impl Gate {
    /// Takes a record for the next batch. Answers whether it is the first one.
    pub(super) fn record(&mut self, record: Record) -> bool {
        self.dirty.push(record);
        self.dirty.len() == 1
    }

    /// Takes an event for the next batch, which has one record for all of them. Answers as [`Gate::record`].
    pub(super) fn tell(&mut self, job: &JobId, number: u64, at: Wall, frame: &Frame) -> bool {
        if let Some(Record::Feed { frames, at: last, .. }) =
            self.feed_in_dirty.and_then(|at| self.dirty.get_mut(at))
        {
            frames.push(frame.clone());
            *last = at;
            return false;
        }
        self.feed_in_dirty = Some(self.dirty.len());
        self.record(Record::Feed { job: job.clone(), first: number, frames: vec![frame.clone()], at })
    }

    /// Takes what may happen once everything recorded so far is kept; gives it back if that is so already.
    pub(super) fn hold(&mut self, gated: Gated) -> Option<Gated> {
        if !self.dirty.is_empty() {
            self.after_dirty.push(gated);
        } else if self.in_flight {
            self.after_sent.push(gated);
        } else {
            return Some(gated);
        }
        None
    }

    /// The next batch, if there is one and none is with the store.
    pub(super) fn next_batch(&mut self) -> Option<Vec<Record>> {
        if self.in_flight || self.waits || self.dirty.is_empty() {
            return None;
        }
        self.sent = std::mem::take(&mut self.dirty);
        self.after_sent = std::mem::take(&mut self.after_dirty);
        self.in_flight = true;
        self.feed_in_dirty = None;
        Some(self.sent.clone())
    }

    /// The batch is kept: what waited for it. Ask [`Gate::is_dirty`] for more.
    pub(super) fn kept(&mut self) -> Vec<Gated> {
        self.in_flight = false;
        self.sent = Vec::new();
        std::mem::take(&mut self.after_sent)
    }

    /// The batch is not kept: it goes before everything else of the next one, after [`Gate::retry`].
    pub(super) fn failed(&mut self) {
        self.in_flight = false;
        self.waits = true;
        self.feed_in_dirty = None;
        self.sent.append(&mut self.dirty);
        self.dirty = std::mem::take(&mut self.sent);
        self.after_sent.append(&mut self.after_dirty);
        self.after_dirty = std::mem::take(&mut self.after_sent);
    }

    /// The wait after a failure is over.
    pub(super) fn retry(&mut self) {
        self.waits = false;
    }

    /// Takes out everything that waits for the store.
    pub(super) fn waiting(&mut self) -> &mut Vec<Gated> {
        &mut self.after_dirty
    }

    /// Whether records wait for the next batch.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether everything is kept.
    pub(super) fn is_clean(&self) -> bool {
        !self.in_flight && self.dirty.is_empty()
    }
}
