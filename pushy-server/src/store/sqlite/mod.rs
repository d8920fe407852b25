//! The store in one SQLite file: one writer thread that groups what is pending, a few read connections.
//!
//! WAL with `synchronous=FULL`: an answered write survives a power cut. The file is 0600: session keys lie in it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::Job;
use pushy_core::server::{Record, Restored, Ticket};
use pushy_core::{Error, ErrorCode, Result};
use rusqlite::{Connection, Row, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};

use super::backup;
use super::schema::{MIGRATIONS, TABLES, Table};
use super::sql::{Columns as _, Value, closed, read_binding, read_job, storage};
use super::statements::{self, Reply, Task};
use super::{
    JobFilter, JobOutput, KeptFeed, OnSaved, Options, Pending, Prune, Store, StoreIdentity, new_store_id,
};
use crate::directory::{Change, Directory};

mod checkpoint;
mod examine;
pub(super) mod rows;
pub(super) mod writer;

pub use examine::{Examined, examine};
use rows::{Answer, Owned, jobs, read_nodes, rows};
use writer::{Write, write_loop};

/// So many reads at most run at once.
const READERS: usize = 4;

/// See the module.
pub struct SqliteStore {
    path: PathBuf,
    options: Options,
    writer: mpsc::Sender<Write>,
    thread: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Readers>,
}

struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl SqliteStore {
    /// Makes an empty database.
    ///
    /// # Errors
    /// When there is a file of that name, or it cannot be written.
    pub fn create(path: &Path) -> Result<()> {
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::new(ErrorCode::Io, format!("{}: {e}", path.display())))?;
        let mut connection = connect(path, &Options::default())?;
        migrate(path, &mut connection)?;
        connection.execute(statements::NEW_IDENTITY, [new_store_id()]).map_err(|e| failed(path, &e))?;
        Ok(())
    }

    /// Opens a database that [`SqliteStore::create`] made, and brings it up to date.
    ///
    /// # Errors
    /// When the file is missing, unreadable, not a database, damaged, or of a newer program.
    pub fn open(path: &Path, options: Options, on_saved: OnSaved) -> Result<SqliteStore> {
        if !path.exists() {
            return Err(Error::new(ErrorCode::Storage, format!("{}: no such database", path.display())));
        }
        let mut connection = connect(path, &options)?;
        migrate(path, &mut connection)?;
        if let Some(pages) = options.max_pages {
            connection.pragma_update(None, "max_page_count", pages).map_err(|e| failed(path, &e))?;
        }
        let (writer, queue) = mpsc::channel();
        let owned = path.to_owned();
        let second = connect(path, &options).ok();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_loop(&owned, connection, second, &queue, &*on_saved))
            .map_err(|e| Error::new(ErrorCode::Storage, format!("store thread: {e}")))?;
        Ok(SqliteStore {
            path: path.to_owned(),
            options,
            writer,
            thread: Mutex::new(Some(thread)),
            readers: Arc::new(Readers {
                idle: Mutex::new(Vec::new()),
                permits: Arc::new(Semaphore::new(READERS)),
            }),
        })
    }

    /// Runs `read` on a connection of its own, off the runtime's thread.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Answer<T> + Send + 'static,
    ) -> Pending<T> {
        let (readers, path, options) = (Arc::clone(&self.readers), self.path.clone(), self.options);
        Box::pin(async move {
            let permit = readers.permits.clone().acquire_owned().await.map_err(|_| closed())?;
            let work = move || {
                // Whoever asked may go away; the connection is in use until this ends.
                let _permit = permit;
                let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let connection = match idle {
                    Some(connection) => connection,
                    None => connect(&path, &options)?,
                };
                let result = read(&connection).map_err(|e| e.of(&path));
                readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                result
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| closed())?
        })
    }

    fn read_now<T>(&self, read: impl FnOnce(&Connection) -> Answer<T>) -> Result<T> {
        let connection = connect(&self.path, &self.options)?;
        read(&connection).map_err(|e| e.of(&self.path))
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

impl Store for SqliteStore {
    fn save(&self, ticket: Ticket, records: Vec<Record>) {
        // A writer that is gone answers nothing: the server is stopping.
        let _ = self.writer.send(Write::Save(ticket, records));
    }

    fn change_directory(&self, changes: Vec<Change>) -> Pending<()> {
        let changed = self.task(Task::Change(changes));
        Box::pin(async move { changed.await.map(|_| ()) })
    }

    fn jobs(&self, org: &OrgId, filter: JobFilter) -> Pending<Option<Vec<Job>>> {
        let org = org.clone();
        self.read(move |c| jobs(c, &org, &filter))
    }

    fn prune(&self, rule: Prune) -> Pending<u64> {
        self.task(Task::Prune(rule))
    }

    fn job(&self, org: &OrgId, id: &JobId) -> Pending<Option<Job>> {
        let (org, id) = (org.clone(), id.clone());
        self.read(move |c| {
            // One snapshot, so that the job's status and its nodes' fit together.
            let snapshot = c.unchecked_transaction()?;
            let key = [Value::from(id.as_str()), org.as_str().into()];
            let found = rows(&snapshot, statements::JOB, &key, |row| read_job(row))?.pop();
            Ok(match found {
                Some(mut job) => {
                    read_nodes(&snapshot, &mut job)?;
                    Some(job)
                }
                None => None,
            })
        })
    }

    fn output(&self, org: &OrgId, job: &JobId, node: &NodeName) -> Pending<Option<JobOutput>> {
        let (org, job, node) = (org.clone(), job.clone(), node.clone());
        self.read(move |c| {
            let key = statements::output_values(&org, &job, &node);
            let read = |row: &Row<'_>| Ok(JobOutput { stdout: row.blob(0)?, stderr: row.blob(1)? });
            Ok(rows(c, statements::OUTPUT, &key, read)?.pop())
        })
    }

    fn restore(&self) -> Result<Restored> {
        self.read_now(|c| {
            let mut jobs = rows(c, statements::UNFINISHED, &[], |row| read_job(row))?;
            for job in &mut jobs {
                read_nodes(c, job)?;
            }
            let bindings = rows(c, statements::BINDINGS, &[], |row| read_binding(row))?;
            let feeds = rows(c, statements::FEED_ENDS, &[], |row| statements::feed_end(row))?;
            Ok(Restored { bindings, jobs, feeds })
        })
    }

    fn feeds(&self) -> Result<Vec<KeptFeed>> {
        self.read_now(|c| {
            let pieces = rows(c, statements::FEEDS, &[], |row| statements::feed_piece(row))?;
            Ok(statements::join_feeds(pieces))
        })
    }

    fn forget_feeds(&self, jobs: Vec<JobId>) {
        // As with `save`.
        let _ = self.writer.send(Write::Task(Task::ForgetFeeds(jobs), statements::forgotten()));
    }

    fn directory(&self) -> Result<Directory> {
        self.read_now(|c| {
            let mut found = statements::DIRECTORY.map(|_| Vec::new());
            for (sql, found) in statements::DIRECTORY.into_iter().zip(&mut found) {
                *found = rows(c, sql, &[], Owned::read)?;
            }
            Ok(statements::load(&found)?)
        })
    }

    fn identity(&self) -> Result<StoreIdentity> {
        self.read_now(|c| {
            let read = |row: &Row<'_>| {
                Ok(StoreIdentity { store_id: row.string(0)?, generation: row.number(1)?.max(0) as u64 })
            };
            Ok(rows(c, statements::IDENTITY, &[], read)?
                .pop()
                .ok_or_else(|| storage("the table identity is empty"))?)
        })
    }

    fn set_generation(&self, generation: u64) -> Result<()> {
        let (tell, answer) = mpsc::channel();
        let reply: Reply = Box::new(move |result| drop(tell.send(result)));
        self.writer.send(Write::Task(Task::Generation(generation), reply)).map_err(|_| closed())?;
        answer.recv().map_err(|_| closed())?.map(|_| ())
    }

    fn close(&self) {
        let _ = self.writer.send(Write::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that panicked has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    Error::new(ErrorCode::Storage, format!("{}: {error}", path.display()))
}

fn connect(path: &Path, options: &Options) -> Result<Connection> {
    let open = || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(options.busy_timeout)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|e: rusqlite::Error| failed(path, &e))
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<()> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|e| failed(path, &e))?;
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(super::too_new(path.display(), version));
    }
    let done = version.max(0) as usize;
    let mut apply = || {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in &MIGRATIONS[done..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", known)?;
        transaction.commit()
    };
    if version < known {
        apply().map_err(|e| failed(path, &e).context("migration"))?;
    }
    Ok(())
}

/// Writes every table as it is at one moment.
pub(super) fn export(path: &Path, out: &mut backup::Writer) -> Result<()> {
    if !path.exists() {
        return Err(storage(format!("{}: no such database", path.display())));
    }
    let connection = connect(path, &Options::default())?;
    let mut work = || -> Answer<()> {
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != MIGRATIONS.len() as i64 {
            return Err(storage(format!("the database has version {version}; start the server once")).into());
        }
        let snapshot = connection.unchecked_transaction()?;
        for table in TABLES {
            out.table(table)?;
            let mut statement = snapshot.prepare(&table.select())?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                out.row(table, row)?;
            }
        }
        Ok(())
    };
    work().map_err(|e| e.of(path))
}

type Each<'e> = &'e mut dyn FnMut(&'static Table, Vec<Vec<Value<'static>>>) -> Result<()>;

/// Fills an empty database with what `chunks` tells.
pub(super) fn import(path: &Path, chunks: &mut dyn FnMut(Each<'_>) -> Result<()>) -> Result<()> {
    let mut connection = connect(path, &Options::default())?;
    let filled = writer::in_transaction(&mut connection, |c| {
        chunks(&mut |table, rows| {
            let insert = || -> Answer<()> {
                let mut statement = c.prepare_cached(&table.insert())?;
                for row in &rows {
                    statement.execute(rusqlite::params_from_iter(row))?;
                }
                Ok(())
            };
            insert().map_err(|e| e.of(path))
        })?;
        for statement in backup::settle() {
            rows::execute(c, &statement)?;
        }
        Ok(())
    });
    filled.map_err(|e| e.of(path))
}
