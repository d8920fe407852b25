//! What the server keeps, behind one trait: jobs, output, bindings and the directory.
//!
//! A store saves what it is told and knows no rule of a job's life. Writes are queued and answered when they would
//! survive a power cut (decision 10); reads see every answered write.

pub mod backup;
mod place;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod schema;
mod sql;
mod sqlite;
mod statements;

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pushy_core::feed::Frame;
use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::{Job, JobStatus};
use pushy_core::server::{Record, Restored, Ticket};
use pushy_core::time::Wall;
use pushy_core::{Error, ErrorCode, Result};

use crate::directory::{Change, Directory};

pub use place::{DATABASE, Place};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "postgres")]
pub(crate) use postgres::original;
pub use sqlite::{Examined, SqliteStore, examine};

/// So many records at most go into one transaction.
const GROUP_RECORDS: usize = 2_000;

/// How to open a database.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A write that finds the database locked by another program waits this long before it fails.
    pub busy_timeout: Duration,
    /// An SQLite database may not grow beyond this many pages; `None`: as far as the disk goes.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { busy_timeout: Duration::from_secs(2), max_pages: None }
    }
}

/// An answer that is not there yet.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// What became of the records of one ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// They survive a power cut.
    Kept(Ticket),
    /// Nothing of them is stored.
    Failed(Ticket, Error),
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

/// Which jobs of an organization are listed; the default: all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only so many, the newest of them (decision 20).
    pub limit: Option<u32>,
    /// Only those that stand before this one.
    pub before: Option<JobId>,
    /// Only those that stand so.
    pub status: Option<JobStatus>,
    /// Only those with exactly this command.
    pub command: Option<String>,
    /// Only those that this user or client asked for.
    pub user: Option<String>,
    /// Only those on this node among others.
    pub node: Option<NodeName>,
}

/// Which finished jobs are let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// No job is touched that finished later: the machine may still know it.
    pub settled: Wall,
    /// Those that finished before this go.
    pub before: Option<Wall>,
    /// Those go that finished before so many others.
    pub keep: Option<u64>,
}

/// Where the server keeps what must outlive it.
pub trait Store: Send + Sync + 'static {
    /// Queues records for one transaction; the answer goes to the [`OnSaved`] the store was opened with.
    fn save(&self, ticket: Ticket, records: Vec<Record>);

    /// Changes the directory in one transaction.
    fn change_directory(&self, changes: Vec<Change>) -> Pending<()>;

    /// Jobs of the organization, oldest first, without nodes and with an empty text for each file; `None` when it has
    /// no job [`JobFilter::before`].
    fn jobs(&self, org: &OrgId, filter: JobFilter) -> Pending<Option<Vec<Job>>>;

    /// Deletes a small batch of finished jobs with all that is kept of them, the oldest first. Answers how many rows
    /// went; 0: nothing is left to do.
    fn prune(&self, rule: Prune) -> Pending<u64>;

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

/// A record changes something that is not there: its transaction must not pass for kept.
fn nothing_changed() -> Error {
    Error::new(ErrorCode::Storage, "the job or node is not in the database")
}

fn too_new(place: impl Display, version: i64) -> Error {
    Error::new(
        ErrorCode::Storage,
        format!(
            "{place}: the database has version {version}, this program knows {}; use the newer program",
            schema::MIGRATIONS.len()
        ),
    )
}

fn new_store_id() -> String {
    let mut id = [0u8; 16];
    rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut id);
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
