//! Whole databases: out of PostgreSQL into a backup, out of a backup into PostgreSQL.

use pushy_core::Result;

use super::address::Address;
use super::session::{Fail, Session};
use super::{runtime, snapshot};
use crate::store::backup::{self, Backup, Writer};
use crate::store::schema::{MIGRATIONS, TABLES, Table};
use crate::store::sql::{Columns as _, Value, storage};
use crate::store::too_new;

/// Rows that are read together.
const FETCH: usize = 500;

/// Runs a future to its end on a thread of its own, wherever the caller is.
pub(crate) fn wait<T: Send>(work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| runtime()?.block_on(work));
        thread.join().map_err(|_| storage("a thread of the store ended in a panic"))?
    })
}

/// Writes every table as it is at one moment.
pub(crate) fn export(url: &str, out: &mut Writer) -> Result<()> {
    let address = Address::parse(url)?;
    wait(async move {
        let session = Session::open(&address, 2_000).await?;
        let failed = |e: tokio_postgres::Error| address.failed(&e);
        let version = session.rows("SELECT version FROM pushy_schema", &[]).await.map_err(failed)?;
        let version = version.first().map_or(Ok(0), |row| row.number(0))?;
        if version > MIGRATIONS.len() as i64 {
            return Err(too_new(&address.label, version));
        }
        if version < MIGRATIONS.len() as i64 {
            return Err(address.error(format!("the database has version {version}; start the server once")));
        }
        snapshot(&address, &session, true).await.map_err(Fail::error)?;
        for table in TABLES {
            out.table(table)?;
            let declare = format!("DECLARE pushy_rows NO SCROLL CURSOR FOR {}", table.select());
            session.client.batch_execute(&declare).await.map_err(failed)?;
            // The text is the same for each table, what it means is not: it cannot stay prepared.
            let fetch = format!("FETCH {FETCH} FROM pushy_rows");
            loop {
                let rows = session.client.query(fetch.as_str(), &[]).await.map_err(failed)?;
                for row in &rows {
                    out.row(table, row)?;
                }
                if rows.len() < FETCH {
                    break;
                }
            }
            session.client.batch_execute("CLOSE pushy_rows").await.map_err(failed)?;
        }
        snapshot(&address, &session, false).await.map_err(Fail::error)
    })
}

/// Fills an empty database: all of it, or nothing.
pub(crate) fn import(url: &str, from: &Backup) -> Result<()> {
    let address = Address::parse(url)?;
    // A file is read while the database is written: a few pieces may wait between the two. `None` is the end.
    type Piece = Option<(&'static Table, Vec<Vec<Value<'static>>>)>;
    let (give, take) = std::sync::mpsc::sync_channel::<Piece>(4);
    let write = async move {
        let session = Session::open(&address, 2_000).await?;
        let failed = |e: tokio_postgres::Error| address.failed(&e);
        session.client.batch_execute("BEGIN").await.map_err(failed)?;
        while let Ok(piece) = take.recv() {
            let Some((table, rows)) = piece else {
                for statement in backup::settle() {
                    session.execute(statement.sql, &statement.values).await.map_err(failed)?;
                }
                return session.client.batch_execute("COMMIT").await.map_err(failed);
            };
            session.pipeline(&table.insert(), &rows).await.map_err(failed)?;
        }
        // Whoever reads has given up, and says why.
        Ok(())
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| wait(write));
        let stopped = || storage("the database takes no more rows");
        let read = from.chunks(&mut |table, rows| give.send(Some((table, rows))).map_err(|_| stopped()));
        let read = read.and_then(|()| give.send(None).map_err(|_| stopped()));
        drop(give);
        // The writer's word comes first: a reader that was stopped only says that it was.
        writer.join().map_err(|_| storage("a thread of the store ended in a panic"))??;
        read
    })
}
