//! Tickets: batches on their way to the store, and what their answers let out (decision 10).

use crate::error::{Error, ErrorCode};
use crate::time::Millis;

use super::node_state::NodeEvent;
use super::planted::PlantedBug;
use super::tables::{Bulk, Gated, JobIx, NodeId, Queued, Timer, ToNode};
use super::{Batch, CancelAnswer, LogLevel, Output, Record, Server, Ticket};

/// Between two attempts to store what the store refused.
const RETRY: Millis = Millis(1000);

impl Server {
    /// Takes a record of a job for its next batch.
    pub(super) fn record(&mut self, ix: JobIx, record: Record) {
        if let Some(job) = self.jobs.get_mut(&ix) {
            if job.gate.record(record) {
                self.dirty_jobs.push(ix);
            }
        }
    }

    /// Does something once everything recorded of the job so far is stored.
    pub(super) fn once_stored(&mut self, ix: JobIx, gated: Gated) {
        let hasty = self.planted(PlantedBug::PersistAfterSend)
            || (self.planted(PlantedBug::ResultAckBeforeStored) && matches!(gated, Gated::ResultAck(_)))
            || (self.planted(PlantedBug::CancelBeforeStored)
                && matches!(gated, Gated::Cancel { .. } | Gated::Cancelled(..)));
        let now = match self.jobs.get_mut(&ix) {
            Some(job) if !hasty => job.gate.hold(gated),
            _ => Some(gated),
        };
        if let Some(gated) = now {
            self.release(Some(ix), gated);
        }
    }

    /// Does something once everything recorded of the bindings so far is stored.
    pub(super) fn once_bindings_stored(&mut self, gated: Gated) {
        if let Some(gated) = self.bindings.hold(gated) {
            self.release(None, gated);
        }
    }

    fn release(&mut self, ix: Option<JobIx>, gated: Gated) {
        match gated {
            Gated::Started(request) => {
                let Some(job) = ix.and_then(|ix| self.jobs.get(&ix)) else { return };
                let job = job.id.clone();
                self.out.push_back(Queued::Ready(Output::JobStarted { request, job }));
            }
            Gated::Event(at, event, frame) => {
                let Some(job) = ix.and_then(|ix| self.jobs.get(&ix)) else { return };
                let (org, job) = (job.org.clone(), job.id.clone());
                self.out.push_back(Queued::Ready(Output::Event { org, job, at, event, frame }));
            }
            Gated::Commits => {
                if let Some(ix) = ix {
                    self.bulk.push_back(Bulk::All(ix, 0));
                }
            }
            Gated::Runs => {
                if let Some(ix) = ix {
                    self.queue_runs(ix);
                }
            }
            Gated::Run(node) => {
                if let Some(ix) = ix {
                    self.send(node, ToNode::Run(ix));
                }
            }
            Gated::Stop(node) => self.stop(ix, node),
            Gated::Cancel { node, spared } => self.tell_to_give_up(ix, node, spared),
            Gated::Cancelled(request, nodes) => {
                let answer = CancelAnswer::Cancelled(nodes);
                self.out.push_back(Queued::Ready(Output::CancelAnswer { request, answer }));
            }
            Gated::ResultAck(node) => {
                let Some(job) = ix.and_then(|ix| self.jobs.get(&ix)) else { return };
                let ack = ToNode::ResultAck(job.id.clone());
                self.out.push_back(Queued::ToNode(node, ack));
            }
            Gated::Config { request, body, node, key } => {
                self.binding_stored(node, key);
                self.out.push_back(Queued::Ready(Output::Config { request, body }));
            }
        }
    }

    /// `abort` names no job: a node that has said yes to another one since is left alone.
    pub(super) fn stop(&mut self, ix: Option<JobIx>, node: NodeId) {
        if !self.does_another(node, ix) {
            self.node_hears(node, NodeEvent::RehabRequest);
            self.send_waiting_abort(node);
        }
    }

    /// Hands what has come up to the store. Answers whether there was anything.
    pub(super) fn hand_to_store(&mut self) -> bool {
        let before = self.last_ticket;
        for ix in std::mem::take(&mut self.dirty_jobs) {
            self.steps += 1;
            if let Some(records) = self.jobs.get_mut(&ix).and_then(|job| job.gate.next_batch()) {
                self.persist(Batch::Job(ix), records);
            }
        }
        if let Some(records) = self.bindings.next_batch() {
            self.persist(Batch::Bindings, records);
        }
        self.last_ticket != before
    }

    fn persist(&mut self, batch: Batch, records: Vec<Record>) {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.tickets.insert(ticket, batch);
        self.out.push_back(Queued::Ready(Output::Persist { ticket, records }));
    }

    pub(super) fn persisted(&mut self, ticket: Ticket) {
        while let Some(entry) = self.tickets.first_entry() {
            if *entry.key() > ticket {
                break;
            }
            let batch = entry.remove();
            self.steps += 1;
            match batch {
                Batch::Job(ix) => {
                    let Some(job) = self.jobs.get_mut(&ix) else { continue };
                    job.stored = true;
                    let released = job.gate.kept();
                    if job.gate.is_dirty() {
                        self.dirty_jobs.push(ix);
                    }
                    for gated in released {
                        self.release(Some(ix), gated);
                    }
                }
                Batch::Bindings => {
                    for gated in self.bindings.kept() {
                        self.release(None, gated);
                    }
                }
            }
        }
    }

    pub(super) fn persist_failed(&mut self, ticket: Ticket) {
        let at = self.now.mono + RETRY;
        match self.tickets.remove(&ticket) {
            None => {}
            Some(Batch::Bindings) => {
                self.bindings.failed();
                self.timers.set(Timer::RetryBindings, at);
                let mut refused = Vec::new();
                self.bindings.waiting().retain(|gated| {
                    if let Gated::Config { request, .. } = gated {
                        refused.push(*request);
                    }
                    !matches!(gated, Gated::Config { .. })
                });
                for request in refused {
                    let error = Error::new(
                        ErrorCode::Storage,
                        "the node's keys could not be stored; try again when the store has recovered",
                    );
                    self.out.push_back(Queued::Ready(Output::ConfigFailed { request, error }));
                }
                self.log(LogLevel::Error, None, None, None, "the store refuses keys of nodes".into());
            }
            Some(Batch::Job(ix)) => {
                let Some(job) = self.jobs.get_mut(&ix) else { return };
                let id = job.id.clone();
                if job.stored {
                    job.gate.failed();
                    self.timers.set(Timer::RetryJob(ix), at);
                } else {
                    let request = job.request;
                    self.drop_job(ix);
                    if let Some(request) = request {
                        let error = Error::new(
                            ErrorCode::Storage,
                            "the job could not be stored; try again when the store has recovered",
                        );
                        self.out.push_back(Queued::Ready(Output::JobRefused { request, error }));
                    }
                }
                self.log(LogLevel::Error, None, Some(id), None, "the store refuses a job's changes".into());
            }
        }
    }

    pub(super) fn retry_job(&mut self, ix: JobIx) {
        if let Some(job) = self.jobs.get_mut(&ix) {
            job.gate.retry();
            self.dirty_jobs.push(ix);
        }
    }
}
