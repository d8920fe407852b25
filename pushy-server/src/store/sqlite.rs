//! The store in one SQLite file: one writer thread that groups what is pending, a few read connections.
//!
//! WAL with `synchronous=FULL`: an answered write survives a power cut. The file is 0600: session keys lie in it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use pushy_core::ids::{JobId, NodeName, OrgId, OrgName};
use pushy_core::job::Job;
use pushy_core::server::{Record, Restored, Ticket};
use pushy_core::{Error, ErrorCode, Result};
use rusqlite::{Connection, params};
use tokio::sync::{Semaphore, oneshot};

use super::sqlite_jobs as rows;
use super::{JobOutput, KeptFeed, OnSaved, Pending, Saved, Store, StoreIdentity};
use crate::directory::{Change, Directory, Member, PrincipalId};

/// Applied in this order; the number of applied ones is the database's `user_version`.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_jobs.sql"),
    include_str!("../../migrations/sqlite/0002_directory.sql"),
    include_str!("../../migrations/sqlite/0003_feeds.sql"),
];

/// So many records at most go into one transaction.
const GROUP_RECORDS: usize = 2_000;
/// So many reads at most run at once.
const READERS: usize = 4;

/// How to open a database.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A write that finds the database locked by another program waits this long before it fails.
    pub busy_timeout: Duration,
    /// The database may not grow beyond this many pages; `None`: as far as the disk goes.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { busy_timeout: Duration::from_secs(2), max_pages: None }
    }
}

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

enum Write {
    Save(Ticket, Vec<Record>),
    Change(Vec<Change>, oneshot::Sender<Result<()>>),
    Generation(u64, mpsc::Sender<Result<()>>),
    ForgetFeeds(Vec<JobId>),
    Close,
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
        let mut id = [0u8; 16];
        rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut id);
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        connection
            .execute("INSERT INTO identity (store_id, generation) VALUES (?1, 0)", params![id])
            .map_err(|e| failed(path, &e))?;
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
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_loop(&owned, connection, &queue, &*on_saved))
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
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (readers, path, options) = (Arc::clone(&self.readers), self.path.clone(), self.options);
        Box::pin(async move {
            let gone = || Error::new(ErrorCode::Storage, "the store is closed");
            let _permit = readers.permits.clone().acquire_owned().await.map_err(|_| gone())?;
            let work = move || {
                let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let connection = match idle {
                    Some(connection) => connection,
                    None => connect(&path, &options)?,
                };
                let result = read(&connection).map_err(|e| failed(&path, &e));
                readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                result
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| gone())?
        })
    }

    fn read_now<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let connection = connect(&self.path, &self.options)?;
        read(&connection).map_err(|e| failed(&self.path, &e))
    }
}

impl Store for SqliteStore {
    fn save(&self, ticket: Ticket, records: Vec<Record>) {
        // A writer that is gone answers nothing: the server is stopping.
        let _ = self.writer.send(Write::Save(ticket, records));
    }

    fn change_directory(&self, changes: Vec<Change>) -> Pending<()> {
        let (reply, answer) = oneshot::channel();
        let sent = self.writer.send(Write::Change(changes, reply));
        Box::pin(async move {
            let gone = Error::new(ErrorCode::Storage, "the store is closed");
            sent.map_err(|_| gone.clone())?;
            answer.await.map_err(|_| gone)?
        })
    }

    fn jobs(&self, org: &OrgId) -> Pending<Vec<Job>> {
        let org = org.clone();
        self.read(move |c| rows::jobs(c, &org))
    }

    fn job(&self, org: &OrgId, id: &JobId) -> Pending<Option<Job>> {
        let (org, id) = (org.clone(), id.clone());
        self.read(move |c| rows::job(c, &org, &id))
    }

    fn output(&self, org: &OrgId, job: &JobId, node: &NodeName) -> Pending<Option<JobOutput>> {
        let (org, job, node) = (org.clone(), job.clone(), node.clone());
        self.read(move |c| rows::output(c, &org, &job, &node))
    }

    fn restore(&self) -> Result<Restored> {
        self.read_now(|c| {
            Ok(Restored {
                bindings: rows::bindings(c)?,
                jobs: rows::unfinished(c)?,
                feeds: rows::feed_ends(c)?,
            })
        })
    }

    fn feeds(&self) -> Result<Vec<KeptFeed>> {
        self.read_now(rows::feeds)
    }

    fn forget_feeds(&self, jobs: Vec<JobId>) {
        // As with `save`.
        let _ = self.writer.send(Write::ForgetFeeds(jobs));
    }

    fn directory(&self) -> Result<Directory> {
        self.read_now(load_directory)
    }

    fn identity(&self) -> Result<StoreIdentity> {
        self.read_now(|c| {
            c.query_row("SELECT store_id, generation FROM identity", [], |row| {
                let generation: i64 = row.get(1)?;
                Ok(StoreIdentity { store_id: row.get(0)?, generation: generation.max(0) as u64 })
            })
        })
    }

    fn set_generation(&self, generation: u64) -> Result<()> {
        let gone = || Error::new(ErrorCode::Storage, "the store is closed");
        let (reply, answer) = mpsc::channel();
        self.writer.send(Write::Generation(generation, reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
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
        return Err(Error::new(
            ErrorCode::Storage,
            format!(
                "{}: the database has version {version}, this program knows {known}; use the newer program",
                path.display()
            ),
        ));
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(version.max(0) as usize) {
        let mut apply = || {
            let transaction = connection.transaction()?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", number as i64 + 1)?;
            transaction.commit()
        };
        apply().map_err(|e| failed(path, &e).context(format_args!("migration {}", number + 1)))?;
    }
    Ok(())
}

/// Takes what is pending, writes it in one transaction, answers it; ends on [`Write::Close`].
fn write_loop(
    path: &Path,
    mut connection: Connection,
    queue: &mpsc::Receiver<Write>,
    on_saved: &dyn Fn(Saved),
) {
    let mut group: Vec<(Ticket, Vec<Record>)> = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        let mut records = 0;
        // Saves that wait together are written together; anything else waits until they are.
        while let Some(Write::Save(ticket, batch)) = next {
            records += batch.len();
            group.push((ticket, batch));
            next = if records < GROUP_RECORDS { queue.try_recv().ok() } else { None };
        }
        if !group.is_empty() {
            save_group(path, &mut connection, &mut group, on_saved);
        }
        match next {
            Some(Write::Change(changes, reply)) => {
                let result = change(&mut connection, &changes).map_err(|e| failed(path, &e));
                // The one who asked may have gone away.
                let _ = reply.send(result);
            }
            Some(Write::Generation(generation, reply)) => {
                let result = connection
                    .execute("UPDATE identity SET generation = ?1", params![generation as i64])
                    .map(|_| ())
                    .map_err(|e| failed(path, &e));
                let _ = reply.send(result);
            }
            Some(Write::ForgetFeeds(jobs)) => {
                if let Err(e) = rows::forget_feeds(&mut connection, &jobs) {
                    tracing::warn!("feeds that ended stay in the database: {}", failed(path, &e));
                }
            }
            Some(Write::Close) => break,
            Some(Write::Save(..)) | None => {}
        }
    }
    // Leaves one file behind when nobody reads.
    let _ = connection.pragma_update(None, "wal_checkpoint", "TRUNCATE");
}

/// One transaction for all; if that fails, one for each, so that only those fail that cannot be kept.
fn save_group(
    path: &Path,
    connection: &mut Connection,
    group: &mut Vec<(Ticket, Vec<Record>)>,
    on_saved: &dyn Fn(Saved),
) {
    let all = save(connection, group.iter().map(|(_, records)| records.as_slice()));
    let alone = group.len() == 1;
    for (ticket, records) in group.drain(..) {
        let result = match &all {
            Ok(()) => Ok(()),
            Err(e) if alone => Err(failed(path, e)),
            Err(_) => save(connection, [records.as_slice()]).map_err(|e| failed(path, &e)),
        };
        on_saved(match result {
            Ok(()) => Saved::Kept(ticket),
            Err(error) => Saved::Failed(ticket, error),
        });
    }
}

fn save<'a>(
    connection: &mut Connection,
    batches: impl IntoIterator<Item = &'a [Record]>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for record in batches.into_iter().flatten() {
        rows::save(&transaction, record)?;
    }
    transaction.commit()
}

fn change(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for change in changes {
        apply(&transaction, change)?;
    }
    transaction.commit()
}

fn apply(c: &Connection, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| c.prepare_cached(sql)?.execute(params).map(|_| ());
    match change {
        Change::AddOrg { name, id } => {
            run("INSERT INTO organizations (name, guid) VALUES (?1, ?2)", &[&name.as_str(), &id.as_str()])
        }
        Change::RemoveOrg { name } => {
            run("DELETE FROM principals WHERE org = ?1", &[&name.as_str()])?;
            run("DELETE FROM organizations WHERE name = ?1", &[&name.as_str()])
        }
        Change::PutPrincipal { id, public_key } => {
            let (kind, org) = (id.kind().as_str(), org_text(id));
            run(
                "INSERT INTO principals (kind, org, name) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                &[&kind, &org, &id.name],
            )?;
            run(
                "DELETE FROM principal_keys WHERE kind = ?1 AND org = ?2 AND name = ?3",
                &[&kind, &org, &id.name],
            )?;
            run(
                "INSERT INTO principal_keys (kind, org, name, key_name, public_key) VALUES (?1, ?2, ?3, 'default', ?4)",
                &[&kind, &org, &id.name, public_key],
            )
        }
        Change::RemovePrincipal { id } => {
            let (kind, org) = (id.kind().as_str(), org_text(id));
            run(
                "DELETE FROM principals WHERE kind = ?1 AND org = ?2 AND name = ?3",
                &[&kind, &org, &id.name],
            )?;
            if id.org.is_none() {
                run("DELETE FROM org_users WHERE user_name = ?1", &[&id.name])?;
            }
            run(
                "DELETE FROM group_members WHERE kind = ?1 AND member = ?2 AND (?3 = '' OR org = ?3)",
                &[&kind, &id.name, &org],
            )
        }
        Change::Associate { org, user } => run(
            "INSERT INTO org_users (org, user_name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            &[&org.as_str(), user],
        ),
        Change::Dissociate { org, user } => {
            run("DELETE FROM org_users WHERE org = ?1 AND user_name = ?2", &[&org.as_str(), user])?;
            run(
                "DELETE FROM group_members WHERE org = ?1 AND kind = 'user' AND member = ?2",
                &[&org.as_str(), user],
            )
        }
        Change::AddGroup { org, group } => run(
            "INSERT INTO org_groups (org, group_name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            &[&org.as_str(), group],
        ),
        Change::RemoveGroup { org, group } => {
            run("DELETE FROM org_groups WHERE org = ?1 AND group_name = ?2", &[&org.as_str(), group])?;
            run(
                "DELETE FROM group_members WHERE org = ?1 AND kind = 'group' AND member = ?2",
                &[&org.as_str(), group],
            )
        }
        Change::AddMember { org, group, member } => run(
            "INSERT INTO group_members (org, group_name, kind, member) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            &[&org.as_str(), group, &member.kind(), &member.name()],
        ),
        Change::RemoveMember { org, group, member } => run(
            "DELETE FROM group_members WHERE org = ?1 AND group_name = ?2 AND kind = ?3 AND member = ?4",
            &[&org.as_str(), group, &member.kind(), &member.name()],
        ),
    }
}

/// Users are kept under the organization `''`: a column of a primary key cannot be NULL.
fn org_text(id: &PrincipalId) -> String {
    id.org.as_ref().map_or(String::new(), |org| org.as_str().to_owned())
}

fn load_directory(c: &Connection) -> rusqlite::Result<Directory> {
    let mut directory = Directory::default();
    type Load<'a> = &'a mut dyn FnMut(&mut Directory, &rusqlite::Row<'_>) -> rusqlite::Result<()>;
    let mut each = |sql: &str, load: Load<'_>| -> rusqlite::Result<()> {
        let mut statement = c.prepare(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            load(&mut directory, row)?;
        }
        Ok(())
    };
    let org = |row: &rusqlite::Row<'_>, i| rows::id(row, i, OrgName::new);
    each("SELECT name, guid FROM organizations", &mut |d, row| {
        d.apply(Change::AddOrg { name: org(row, 0)?, id: rows::id(row, 1, OrgId::new)? });
        Ok(())
    })?;
    let mut keys: Vec<(PrincipalId, Vec<String>)> = Vec::new();
    each(
        "SELECT p.kind, p.org, p.name, k.public_key FROM principals p LEFT JOIN principal_keys k
         ON k.kind = p.kind AND k.org = p.org AND k.name = p.name ORDER BY p.kind, p.org, p.name, k.key_name",
        &mut |_, row| {
            let kind: String = row.get(0)?;
            let org = if kind == "user" { None } else { Some(org(row, 1)?) };
            let id = PrincipalId { org, name: row.get(2)? };
            let key: Option<String> = row.get(3)?;
            match keys.last_mut() {
                Some((last, pems)) if *last == id => pems.extend(key),
                _ => keys.push((id, key.into_iter().collect())),
            }
            Ok(())
        },
    )?;
    each("SELECT org, user_name FROM org_users", &mut |d, row| {
        d.apply(Change::Associate { org: org(row, 0)?, user: row.get(1)? });
        Ok(())
    })?;
    each("SELECT org, group_name FROM org_groups", &mut |d, row| {
        d.apply(Change::AddGroup { org: org(row, 0)?, group: row.get(1)? });
        Ok(())
    })?;
    each("SELECT org, group_name, kind, member FROM group_members", &mut |d, row| {
        let kind: String = row.get(2)?;
        if let Some(member) = Member::new(&kind, row.get(3)?) {
            d.apply(Change::AddMember { org: org(row, 0)?, group: row.get(1)?, member });
        }
        Ok(())
    })?;
    for (id, pems) in keys {
        directory.put_key(&id, pems);
    }
    Ok(directory)
}
