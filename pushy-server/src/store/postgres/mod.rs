//! The store in a PostgreSQL database: one connection that writes, a few that read, each kind on a thread of its own.
//!
//! A write is answered after its COMMIT with `synchronous_commit`. While the database is away writes fail after a
//! short wait, reads at once, and both go on by themselves when it is back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::Job;
use pushy_core::server::{Record, Restored, Ticket};
use pushy_core::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::schema::TABLES;
use super::sql::{Columns as _, Value, closed, put_nodes, read_binding, read_job, read_node, storage};
use super::statements::{self, Reply, Task};
use super::{JobFilter, JobOutput, KeptFeed, OnSaved, Options, Pending, Prune, Store, StoreIdentity};
use crate::directory::{Change, Directory};

pub(crate) mod address;
pub(crate) mod copy;
pub(crate) mod original;
pub(super) mod session;
mod writer;

use address::Address;
use session::{Fail, Session};
use writer::{Write, Writer};

/// So many reads at most run at once.
const READERS: usize = 4;

/// See the module.
pub struct PostgresStore {
    writer: mpsc::UnboundedSender<Write>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    readers: Arc<Readers>,
    reading: Handle,
    /// Ends the thread that reads.
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

/// For so long after a connection failed nobody tries again.
const FAILED: Duration = Duration::from_secs(1);

struct Readers {
    address: Address,
    options: Options,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
    /// The last attempt to connect, if it failed.
    failed: Mutex<Option<(Instant, Error)>>,
}

type Read<'s, T> = Pin<Box<dyn Future<Output = std::result::Result<T, Fail>> + Send + 's>>;

impl PostgresStore {
    /// Opens a database, makes its tables or brings them up to date, and takes it for this program alone.
    ///
    /// # Errors
    /// When it is away, unknown, refuses us, is of a newer program, or another server works with it.
    pub fn open(url: &str, options: Options, on_saved: OnSaved) -> Result<PostgresStore> {
        let address = Address::parse(url)?;
        let (writer, queue) = mpsc::unbounded_channel();
        let (opened, is_open) = std::sync::mpsc::channel();
        let runtime = runtime()?;
        let to_write = address.clone();
        let write = move || {
            runtime.block_on(async move {
                match Writer::open(to_write, options, on_saved, queue).await {
                    Ok(writer) => {
                        // The opener waits for it.
                        let _ = opened.send(Ok(()));
                        writer.run().await;
                    }
                    Err(e) => drop(opened.send(Err(e))),
                }
            });
        };
        let writing = thread("store", write)?;
        if let Err(e) = is_open.recv().map_err(|_| closed())? {
            let _ = writing.join();
            return Err(e);
        }
        let runtime = self::runtime()?;
        let reading = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let read = move || drop(runtime.block_on(stopped));
        let reader = thread("store-read", read)?;
        Ok(PostgresStore {
            writer,
            threads: Mutex::new(vec![writing, reader]),
            readers: Arc::new(Readers {
                address,
                options,
                idle: Mutex::new(Vec::new()),
                permits: Semaphore::new(READERS),
                failed: Mutex::new(None),
            }),
            reading,
            stop: Mutex::new(Some(stop)),
        })
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl for<'s> Fn(&'s Session) -> Read<'s, T> + Send + Sync + 'static,
    ) -> Pending<T> {
        let readers = Arc::clone(&self.readers);
        let task = self.reading.spawn(async move { readers.read(read).await });
        Box::pin(async move { task.await.map_err(|_| closed())? })
    }

    /// As [`PostgresStore::read`], for those who cannot wait otherwise.
    fn read_now<T: Send + 'static>(
        &self,
        read: impl for<'s> Fn(&'s Session) -> Read<'s, T> + Send + Sync + 'static,
    ) -> Result<T> {
        let (tell, answer) = std::sync::mpsc::channel();
        let readers = Arc::clone(&self.readers);
        self.reading.spawn(async move { drop(tell.send(readers.read(read).await)) });
        answer.recv().map_err(|_| closed())?
    }

    /// Whether anything is kept in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_used(&self) -> Result<bool> {
        let address = self.readers.address.clone();
        let tables = TABLES.iter().map(|table| format!("EXISTS (SELECT 1 FROM {})", table.name));
        let sql = Arc::new(format!("SELECT ({})::int::bigint", tables.collect::<Vec<_>>().join(" OR ")));
        self.read_now(move |session| {
            let (address, sql) = (address.clone(), Arc::clone(&sql));
            Box::pin(async move {
                let found = rows(&address, session, &sql, &[], |row| row.number(0)).await?;
                Ok(found.first().is_some_and(|used| *used != 0))
            })
        })
    }

    fn task(&self, task: Task) -> Pending<u64> {
        let (tell, answer) = oneshot::channel();
        // The one who asked may have gone away.
        let reply: Reply = Box::new(|result| drop(tell.send(result)));
        let sent = self.writer.send(Write::Task(task, reply));
        Box::pin(async move {
            sent.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
    }
}

/// A runtime for one thread.
pub(super) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(|e| storage(format!("store thread: {e}")))
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map_err(|e| storage(format!("store thread: {e}")))
}

impl Readers {
    /// A new connection. Where there was none a moment ago there is none now: everybody who waits for a turn would wait for
    /// that as well.
    async fn connect(&self) -> Result<Session> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, error)) = failed
            && at.elapsed() < FAILED
        {
            return Err(error);
        }
        let session = Session::open(&self.address, self.options.busy_timeout.as_millis()).await;
        let failed = session.as_ref().err().map(|error| (Instant::now(), error.clone()));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        session
    }

    /// Runs `read` on a connection of its own. One that was lost while it lay idle is replaced.
    async fn read<T>(&self, read: impl for<'s> Fn(&'s Session) -> Read<'s, T>) -> Result<T> {
        let _permit = self.permits.acquire().await.map_err(|_| closed())?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (session, old) = match idle {
                Some(session) => (session, true),
                None => (self.connect().await?, false),
            };
            match read(&session).await {
                Ok(found) => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
                    return Ok(found);
                }
                Err(Fail::Lost { .. }) if old => {}
                // The connection is not used again: a transaction may be open on it.
                Err(fail) => return Err(fail.error()),
            }
        }
    }
}

/// Rows of one statement, read.
async fn rows<T>(
    address: &Address,
    session: &Session,
    sql: &str,
    values: &[Value<'_>],
    read: impl Fn(&tokio_postgres::Row) -> Result<T>,
) -> std::result::Result<Vec<T>, Fail> {
    let found = session.rows(sql, values).await.map_err(|e| session.fail(address, &e))?;
    let read: Result<Vec<T>> = found.iter().map(read).collect();
    read.map_err(|e| Fail::Refused(e.context(&address.label)))
}

/// Begins or ends a snapshot: what is read in between fits together.
async fn snapshot(address: &Address, session: &Session, begin: bool) -> std::result::Result<(), Fail> {
    let sql = if begin { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "COMMIT" };
    session.client.batch_execute(sql).await.map_err(|e| session.fail(address, &e))
}

impl Store for PostgresStore {
    fn save(&self, ticket: Ticket, records: Vec<Record>) {
        // A writer that is gone answers nothing: the server is stopping.
        let _ = self.writer.send(Write::Save(ticket, records));
    }

    fn change_directory(&self, changes: Vec<Change>) -> Pending<()> {
        let changed = self.task(Task::Change(changes));
        Box::pin(async move { changed.await.map(|_| ()) })
    }

    fn jobs(&self, org: &OrgId, filter: JobFilter) -> Pending<Option<Vec<Job>>> {
        let at = self.readers.address.clone();
        let wanted = Arc::new((org.clone(), filter, at));
        self.read(move |session| {
            let wanted = Arc::clone(&wanted);
            Box::pin(async move {
                let (org, filter, at) = &*wanted;
                let before = match &filter.before {
                    Some(id) => {
                        let key = [Value::from(id.as_str()), org.as_str().into()];
                        let read = |row: &tokio_postgres::Row| Ok((row.number(0)?, row.string(1)?));
                        let Some(place) = rows(at, session, statements::PLACE, &key, read).await?.pop()
                        else {
                            return Ok(None);
                        };
                        Some(place)
                    }
                    None => None,
                };
                let (sql, values) = statements::list(org, filter, before.as_ref());
                let mut jobs = rows(at, session, &sql, &values, read_job).await?;
                if filter.limit.is_some() {
                    jobs.reverse();
                }
                Ok(Some(jobs))
            })
        })
    }

    fn prune(&self, rule: Prune) -> Pending<u64> {
        self.task(Task::Prune(rule))
    }

    fn job(&self, org: &OrgId, id: &JobId) -> Pending<Option<Job>> {
        let wanted = Arc::new((org.clone(), id.clone(), self.readers.address.clone()));
        self.read(move |session| {
            let wanted = Arc::clone(&wanted);
            Box::pin(async move {
                let (org, id, at) = &*wanted;
                snapshot(at, session, true).await?;
                let key = [Value::from(id.as_str()), org.as_str().into()];
                let mut found = rows(at, session, statements::JOB, &key, read_job).await?.pop();
                if let Some(job) = &mut found {
                    put_nodes(job, rows(at, session, statements::NODES, &key[..1], read_node).await?);
                }
                snapshot(at, session, false).await?;
                Ok(found)
            })
        })
    }

    fn output(&self, org: &OrgId, job: &JobId, node: &NodeName) -> Pending<Option<JobOutput>> {
        let wanted = Arc::new((org.clone(), job.clone(), node.clone(), self.readers.address.clone()));
        self.read(move |session| {
            let wanted = Arc::clone(&wanted);
            Box::pin(async move {
                let (org, job, node, at) = &*wanted;
                let key = statements::output_values(org, job, node);
                let read =
                    |row: &tokio_postgres::Row| Ok(JobOutput { stdout: row.blob(0)?, stderr: row.blob(1)? });
                Ok(rows(at, session, statements::OUTPUT, &key, read).await?.pop())
            })
        })
    }

    fn restore(&self) -> Result<Restored> {
        let at = self.readers.address.clone();
        self.read_now(move |session| {
            let at = at.clone();
            Box::pin(async move {
                let at = &at;
                snapshot(at, session, true).await?;
                let mut jobs = rows(at, session, statements::UNFINISHED, &[], read_job).await?;
                for job in &mut jobs {
                    let key = [job.id.as_str().into()];
                    let found = rows(at, session, statements::NODES, &key, read_node).await?;
                    put_nodes(job, found);
                }
                let bindings = rows(at, session, statements::BINDINGS, &[], read_binding).await?;
                let feeds = rows(at, session, statements::FEED_ENDS, &[], statements::feed_end).await?;
                snapshot(at, session, false).await?;
                Ok(Restored { bindings, jobs, feeds })
            })
        })
    }

    fn feeds(&self) -> Result<Vec<KeptFeed>> {
        let at = self.readers.address.clone();
        self.read_now(move |session| {
            let at = at.clone();
            Box::pin(async move {
                let pieces = rows(&at, session, statements::FEEDS, &[], statements::feed_piece).await?;
                Ok(statements::join_feeds(pieces))
            })
        })
    }

    fn forget_feeds(&self, jobs: Vec<JobId>) {
        // As with `save`.
        let _ = self.writer.send(Write::Task(Task::ForgetFeeds(jobs), statements::forgotten()));
    }

    fn directory(&self) -> Result<Directory> {
        let at = self.readers.address.clone();
        self.read_now(move |session| {
            let at = at.clone();
            Box::pin(async move {
                snapshot(&at, session, true).await?;
                let mut found = statements::DIRECTORY.map(|_| Vec::new());
                for (sql, found) in statements::DIRECTORY.into_iter().zip(&mut found) {
                    *found = rows(&at, session, sql, &[], |row| Ok(row.clone())).await?;
                }
                snapshot(&at, session, false).await?;
                statements::load(&found).map_err(|e| Fail::Refused(e.context(&at.label)))
            })
        })
    }

    fn identity(&self) -> Result<StoreIdentity> {
        let at = self.readers.address.clone();
        self.read_now(move |session| {
            let at = at.clone();
            Box::pin(async move {
                let read = |row: &tokio_postgres::Row| {
                    Ok(StoreIdentity { store_id: row.string(0)?, generation: row.number(1)?.max(0) as u64 })
                };
                let found = rows(&at, session, statements::IDENTITY, &[], read).await?.pop();
                found.ok_or_else(|| Fail::Refused(at.error("the table identity is empty")))
            })
        })
    }

    fn set_generation(&self, generation: u64) -> Result<()> {
        let (tell, answer) = std::sync::mpsc::channel();
        let reply: Reply = Box::new(move |result| drop(tell.send(result)));
        self.writer.send(Write::Task(Task::Generation(generation), reply)).map_err(|_| closed())?;
        answer.recv().map_err(|_| closed())?.map(|_| ())
    }

    fn close(&self) {
        let _ = self.writer.send(Write::Close);
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.close();
    }
}
