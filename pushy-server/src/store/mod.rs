//! What the server keeps, behind one trait: jobs, output, bindings and the directory.
//!
//! A store saves what it is told and knows no rule of a job's life. Writes are queued and answered when they would
//! survive a power cut (decision 10); reads see every answered write.

mod sqlite;
mod sqlite_jobs;

use std::future::Future;
use std::pin::Pin;

use pushy_core::Result;
use pushy_core::feed::Frame;
use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::Job;
use pushy_core::server::{Record, Restored, Ticket};

use crate::directory::{Change, Directory};

pub use sqlite::{Options, SqliteStore};

/// An answer that is not there yet.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// What became of the records of one ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// They survive a power cut.
    Kept(Ticket),
    /// Nothing of them is stored.
    Failed(Ticket, pushy_core::Error),
}

/// Where answers to [`Store::save`] go; called on the store's own thread, in the order of the tickets.
pub type OnSaved = Box<dyn Fn(Saved) + Send>;

/// What a node's command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// The pair that says whether keys and database belong together (decision 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Made with the database.
    pub store_id: String,
    /// Raised at each start.
    pub generation: u64,
}

/// The feed of one job as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFeed {
    /// The job's organization.
    pub org: OrgId,
    /// The job.
    pub job: JobId,
    /// Every event so far, oldest first.
    pub frames: Vec<Frame>,
}

/// Where the server keeps what must outlive it.
pub trait Store: Send + Sync + 'static {
    /// Queues records for one transaction; the answer goes to the [`OnSaved`] the store was opened with.
    fn save(&self, ticket: Ticket, records: Vec<Record>);

    /// Changes the directory in one transaction.
    fn change_directory(&self, changes: Vec<Change>) -> Pending<()>;

    /// Every job of the organization, oldest first, without nodes and with an empty text for each file.
    fn jobs(&self, org: &OrgId) -> Pending<Vec<Job>>;

    /// One job with its nodes; `None` when the organization has no such job (D-06).
    fn job(&self, org: &OrgId, id: &JobId) -> Pending<Option<Job>>;

    /// What a node printed; `None` when nothing is kept or the job is not of this organization (D-06, D-35).
    fn output(&self, org: &OrgId, job: &JobId, node: &NodeName) -> Pending<Option<JobOutput>>;

    /// Bindings and unfinished jobs, for the start of the machine.
    ///
    /// # Errors
    /// When the database cannot be read or holds something it cannot hold.
    fn restore(&self) -> Result<Restored>;

    /// Every feed that is kept, for the start.
    ///
    /// # Errors
    /// As [`Store::restore`].
    fn feeds(&self) -> Result<Vec<KeptFeed>>;

    /// Queues the end of these feeds: nobody can ask for them any more. What fails is found at the next start.
    fn forget_feeds(&self, jobs: Vec<JobId>);

    /// The directory, for the start.
    ///
    /// # Errors
    /// As [`Store::restore`].
    fn directory(&self) -> Result<Directory>;

    /// The database's identity as left by the last start.
    ///
    /// # Errors
    /// As [`Store::restore`].
    fn identity(&self) -> Result<StoreIdentity>;

    /// Notes one more start.
    ///
    /// # Errors
    /// When the database cannot be written.
    fn set_generation(&self, generation: u64) -> Result<()>;

    /// Waits until everything queued is written, then closes. Later writes fail.
    fn close(&self);
}
