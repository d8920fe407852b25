//! The one that writes: holds the database's lock, groups what is pending, and comes back after a lost connection.

use std::time::Duration;

use pushy_core::ids::JobId;
use pushy_core::server::{Record, Ticket};
use pushy_core::{Error, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::address::Address;
use super::session::{Fail, Session};
use crate::store::schema::{MIGRATIONS, for_postgres};
use crate::store::sql::{Columns as _, Statement, Value};
use crate::store::statements::{self, Reply, Task};
use crate::store::{GROUP_RECORDS, OnSaved, Options, Prune, Saved, new_store_id, too_new};

/// The advisory lock of a server on its database ("pushy" in ASCII).
const LOCK: i64 = 0x70_75_73_68_79;
/// A server that was killed has left its lock by then.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// After a lost connection writes wait so long before they fail.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to connect, at first and at most.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often a writer with nothing to do looks whether its connection is there.
const LOOK: Duration = Duration::from_secs(5);
/// A group that loses its connection so often is given up for now.
const TRIES: usize = 3;

/// What the writer is told.
pub(super) enum Write {
    Save(Ticket, Vec<Record>),
    Task(Task, Reply),
    Close,
}

pub(super) struct Writer {
    address: Address,
    options: Options,
    on_saved: OnSaved,
    queue: mpsc::UnboundedReceiver<Write>,
    session: Option<Session>,
    away: Option<Away>,
    /// New jobs that may be in the database although their requesters were told that they are not.
    undo: Vec<JobId>,
}

/// Since when the database is away, and when it is tried again.
struct Away {
    since: Instant,
    next: Instant,
    delay: Duration,
    why: Error,
}

impl Writer {
    /// Connects, takes the lock and brings the tables up to date.
    pub(super) async fn open(
        address: Address,
        options: Options,
        on_saved: OnSaved,
        queue: mpsc::UnboundedReceiver<Write>,
    ) -> Result<Writer> {
        let session = Session::open(&address, options.busy_timeout.as_millis()).await?;
        let end = Instant::now() + LOCK_PATIENCE;
        while let Err(e) = lock(&address, &session).await {
            if Instant::now() >= end {
                return Err(e);
            }
            sleep(DELAYS.0).await;
        }
        migrate(&address, &session).await?;
        Ok(Writer { address, options, on_saved, queue, session: Some(session), away: None, undo: Vec::new() })
    }

    /// Writes until [`Write::Close`].
    pub(super) async fn run(mut self) {
        loop {
            let mut next = tokio::select! {
                next = self.queue.recv() => next,
                () = sleep(LOOK) => {
                    // What it says is logged, and said again to the next who wants to write.
                    let _ = self.session().await;
                    continue;
                }
            };
            if next.is_none() {
                break;
            }
            let mut group: Vec<(Ticket, Vec<Record>)> = Vec::new();
            let mut records = 0;
            // Saves that wait together are written together; anything else waits until they are.
            while let Some(Write::Save(ticket, batch)) = next {
                records += batch.len();
                group.push((ticket, batch));
                next = if records < GROUP_RECORDS { self.queue.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.save_group(group).await;
            }
            match next {
                Some(Write::Task(task, reply)) => reply(self.do_task(&task).await),
                Some(Write::Close) => break,
                Some(Write::Save(..)) | None => {}
            }
        }
        if !self.undo.is_empty() {
            // The last chance to take back what requesters were told there is not.
            let _ = self.session().await;
        }
        for job in &self.undo {
            tracing::error!(
                job = job.as_str(),
                "may have been stored although its requester was told that it was not"
            );
        }
        if let Some(session) = &self.session {
            // The end of the connection frees the lock too, but later.
            let _ = session.execute("SELECT pg_advisory_unlock(?1)", &[LOCK.into()]).await;
        }
    }

    /// The connection; a lost one is made anew, with growing delays. Waits at most [`PATIENCE`] for it.
    async fn session(&mut self) -> Result<&Session> {
        loop {
            if self.session.as_ref().is_some_and(|session| !session.client.is_closed()) {
                break;
            }
            self.session = None;
            let now = Instant::now();
            let away = self.away.get_or_insert_with(|| {
                tracing::warn!("{}: the connection is lost", self.address.label);
                Away {
                    since: now,
                    next: now,
                    delay: DELAYS.0,
                    why: self.address.error("the connection is lost"),
                }
            });
            if now < away.next {
                if away.next > away.since + PATIENCE {
                    return Err(away.why.clone());
                }
                sleep_until(away.next).await;
            }
            match self.connect().await {
                Ok(session) => {
                    self.session = Some(session);
                    self.away = None;
                    tracing::info!("{}: connected again", self.address.label);
                }
                Err(e) => {
                    if let Some(away) = &mut self.away {
                        if away.why != e {
                            tracing::error!("cannot connect: {e}");
                        }
                        away.next = Instant::now() + away.delay;
                        away.delay = (away.delay * 2).min(DELAYS.1);
                        away.why = e;
                    }
                }
            }
        }
        self.session.as_ref().ok_or_else(|| self.address.error("the connection is lost"))
    }

    async fn connect(&mut self) -> Result<Session> {
        let session = Session::open(&self.address, self.options.busy_timeout.as_millis()).await?;
        lock(&self.address, &session).await?;
        let found = session.rows("SELECT version FROM pushy_schema", &[]).await;
        let found = found.map_err(|e| self.address.failed(&e))?;
        let version = found.first().map_or(Ok(0), |row| row.number(0))?;
        if version != MIGRATIONS.len() as i64 {
            return Err(too_new(&self.address.label, version));
        }
        for job in &self.undo {
            let gone = session.execute(statements::DELETE_JOB, &[job.as_str().into()]).await;
            gone.map_err(|e| self.address.failed(&e))?;
        }
        self.undo.clear();
        Ok(session)
    }

    /// One transaction for all; if the database refuses that, one for each, so that only those fail that it refuses.
    async fn save_group(&mut self, mut group: Vec<(Ticket, Vec<Record>)>) {
        let all = self.save(&group).await;
        let result = match all {
            Err(Fail::Refused(_)) if group.len() > 1 => {
                for one in group.drain(..) {
                    let result = self.save(std::slice::from_ref(&one)).await;
                    self.answer(one.0, result.map_err(Fail::error));
                }
                return;
            }
            result => result.map_err(Fail::error),
        };
        for (ticket, _) in group {
            self.answer(ticket, result.clone());
        }
    }

    fn answer(&self, ticket: Ticket, result: Result<()>) {
        (self.on_saved)(match result {
            Ok(()) => Saved::Kept(ticket),
            Err(error) => Saved::Failed(ticket, error),
        });
    }

    /// Tries until it is known whether the records are kept. What stays in doubt is undone before anything else is
    /// written, so that no job runs whose requester was told that there is none.
    async fn save(&mut self, group: &[(Ticket, Vec<Record>)]) -> std::result::Result<(), Fail> {
        let records = || group.iter().flat_map(|(_, records)| records);
        let mut list = Vec::new();
        records().for_each(|record| statements::of_record(record, &mut |statement| list.push(statement)));
        let mut in_doubt = false;
        let mut tries = 0;
        let fail = loop {
            let result = self.transaction(&list).await;
            tries += 1;
            match result {
                Ok(()) => return Ok(()),
                // Every statement may be said twice: it is tried again.
                Err(Fail::Lost { doubtful, .. }) if tries < TRIES && self.session.is_some() => {
                    in_doubt |= doubtful;
                    self.session = None;
                }
                Err(fail) => {
                    in_doubt |= matches!(fail, Fail::Lost { doubtful: true, .. });
                    break fail;
                }
            }
        };
        if in_doubt {
            self.undo.extend(records().filter_map(|record| match record {
                Record::NewJob(job) => Some(job.id.clone()),
                _ => None,
            }));
            // The next connection begins with it.
            self.session = None;
        }
        Err(fail)
    }

    async fn transaction(&mut self, list: &[Statement<'_>]) -> std::result::Result<(), Fail> {
        let address = self.address.clone();
        match self.session().await {
            Ok(session) => session.transaction(&address, list).await,
            Err(error) => Err(Fail::Lost { error, doubtful: false }),
        }
    }

    /// A task is not tried again when it may have been done.
    async fn do_task(&mut self, task: &Task) -> Result<u64> {
        let mut list = Vec::new();
        match task {
            Task::Change(changes) => {
                changes.iter().for_each(|change| statements::of_change(change, &mut |s| list.push(s)));
            }
            Task::Generation(generation) => list.push(Statement {
                sql: statements::GENERATION,
                values: vec![(*generation as i64).into()],
                must_change: true,
            }),
            Task::ForgetFeeds(jobs) => list.extend(jobs.iter().map(|job| Statement {
                sql: statements::FORGET_FEED,
                values: vec![job.as_str().into()],
                must_change: false,
            })),
            Task::Prune(rule) => {
                let address = self.address.clone();
                let session = self.session().await?;
                return prune(session, rule).await.map_err(|e| session.fail(&address, &e).error());
            }
        }
        match self.transaction(&list).await {
            Err(Fail::Lost { doubtful: false, .. }) if self.session.is_some() => {
                self.session = None;
                self.transaction(&list).await.map_err(Fail::error)?;
            }
            result => result.map_err(Fail::error)?,
        }
        Ok(0)
    }
}

/// Two servers on one database would undo each other's work.
async fn lock(address: &Address, session: &Session) -> Result<()> {
    let sql = "SELECT CASE WHEN pg_try_advisory_lock(?1) THEN 1::bigint ELSE 0::bigint END";
    let rows = session.rows(sql, &[LOCK.into()]).await.map_err(|e| address.failed(&e))?;
    match rows.first().map_or(Ok(0), |row| row.number(0))? {
        0 => Err(address.error("another pushy-server works with this database")),
        _ => Ok(()),
    }
}

/// All that is missing in one transaction.
async fn migrate(address: &Address, session: &Session) -> Result<()> {
    let failed = |e: tokio_postgres::Error| address.failed(&e);
    let rows = session.rows("SELECT current_setting('server_encoding')", &[]).await.map_err(failed)?;
    let encoding = rows.first().map_or(Ok(String::new()), |row| row.string(0))?;
    if encoding != "UTF8" {
        let text = format!("its encoding is {encoding}; create it with encoding UTF8");
        return Err(address.error(text));
    }
    let run = |sql: String| async move { session.client.batch_execute(&sql).await.map_err(failed) };
    run("BEGIN; CREATE TABLE IF NOT EXISTS pushy_schema (version BIGINT NOT NULL)".into()).await?;
    let rows = session.rows("SELECT version FROM pushy_schema", &[]).await.map_err(failed)?;
    let version = rows.first().map_or(Ok(0), |row| row.number(0))?;
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(too_new(&address.label, version));
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(version.max(0) as usize) {
        let applied = run(for_postgres(migration)).await;
        applied.map_err(|e| e.context(format_args!("migration {}", number + 1)))?;
    }
    if version < known {
        run(format!("DELETE FROM pushy_schema; INSERT INTO pushy_schema VALUES ({known})")).await?;
    }
    if session.rows(statements::IDENTITY, &[]).await.map_err(failed)?.is_empty() {
        session.execute(statements::NEW_IDENTITY, &[new_store_id().into()]).await.map_err(failed)?;
    }
    run("COMMIT".into()).await
}

async fn prune(session: &Session, rule: &Prune) -> std::result::Result<u64, tokio_postgres::Error> {
    let surplus = match rule.keep {
        Some(keep) => session.rows(statements::SURPLUS, &[(keep as i64).into()]).await?,
        None => Vec::new(),
    };
    let surplus = surplus.first().map(|row| (row.get(0), row.get(1)));
    let Some((at, id)) = statements::bound(rule, surplus) else { return Ok(0) };
    let oldest = session.rows(statements::OLDEST, &[at.into(), id.into()]).await?;
    let oldest: Vec<(String, i64)> = oldest.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut gone = 0;
    for (job, nodes) in statements::batch(&oldest) {
        let job = [Value::from(job.as_str())];
        if *nodes > statements::PRUNE_NODES {
            let output = session.execute(statements::DELETE_OUTPUT, &job).await?;
            if output > 0 {
                return Ok(output);
            }
        }
        gone += session.execute(statements::DELETE_JOB, &job).await?;
    }
    Ok(gone)
}
