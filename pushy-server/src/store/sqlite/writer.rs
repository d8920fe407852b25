//! The one that writes: groups what is pending, one transaction at a time.

use std::path::Path;
use std::sync::mpsc;

use pushy_core::server::{Record, Ticket};
use rusqlite::{Connection, Row, TransactionBehavior};

use super::checkpoint::Checkpointer;
use super::rows::{Answer, execute, place, rows};
use crate::store::sql::Columns;
use crate::store::statements::{self, Reply, Task};
use crate::store::{GROUP_RECORDS, Prune, Saved};

/// What the writer is told.
pub(super) enum Write {
    Save(Ticket, Vec<Record>),
    Task(Task, Reply),
    Close,
}

/// Takes what is pending, writes it in one transaction, answers it; ends on [`Write::Close`].
pub(super) fn write_loop(
    path: &Path,
    mut connection: Connection,
    second: Option<Connection>,
    queue: &mpsc::Receiver<Write>,
    on_saved: &dyn Fn(Saved),
) {
    let mut group: Vec<(Ticket, Vec<Record>)> = Vec::new();
    let mut checkpointer = Checkpointer::start(&connection, second);
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
            checkpointer.committed(records, &connection);
        }
        match next {
            Some(Write::Task(task, reply)) => {
                let done = in_transaction(&mut connection, |c| do_task(c, &task)).map_err(|e| e.of(path));
                // What a deleted row takes with it counts as well: it is not known how much that is.
                let rows = done.as_ref().map_or(0, |rows| usize::try_from(*rows).unwrap_or(usize::MAX));
                reply(done);
                checkpointer.committed(rows.saturating_mul(10).max(1), &connection);
            }
            Some(Write::Close) => break,
            Some(Write::Save(..)) | None => {}
        }
    }
    checkpointer.stop();
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
    let mut save = |batches: &[(Ticket, Vec<Record>)]| {
        let records = || batches.iter().flat_map(|(_, records)| records);
        in_transaction(connection, |c| records().try_for_each(|record| save(c, record)))
            .map_err(|e| e.of(path))
    };
    let mut all = Some(save(group));
    if group.len() > 1 {
        all = all.filter(Result::is_ok);
    }
    for one in group.drain(..) {
        let result = all.clone().unwrap_or_else(|| save(std::slice::from_ref(&one)));
        on_saved(match result {
            Ok(()) => Saved::Kept(one.0),
            Err(error) => Saved::Failed(one.0, error),
        });
    }
}

fn save(c: &Connection, record: &Record) -> Answer<()> {
    let mut result = Ok(());
    statements::of_record(record, &mut |statement| {
        if result.is_ok() {
            result = execute(c, &statement).map(|_| ());
        }
    });
    result
}

pub(in crate::store) fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Answer<T>,
) -> Answer<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

fn do_task(c: &Connection, task: &Task) -> Answer<u64> {
    match task {
        Task::Change(changes) => {
            let mut result = Ok(0);
            for change in changes {
                statements::of_change(change, &mut |statement| {
                    if result.is_ok() {
                        result = execute(c, &statement).map(|_| 0);
                    }
                });
            }
            result
        }
        Task::Generation(generation) => {
            c.execute(statements::GENERATION, [*generation as i64])?;
            Ok(0)
        }
        Task::ForgetFeeds(jobs) => {
            for job in jobs {
                c.prepare_cached(statements::FORGET_FEED)?.execute([job.as_str()])?;
            }
            Ok(0)
        }
        Task::Prune(rule) => prune(c, rule),
    }
}

fn prune(c: &Connection, rule: &Prune) -> Answer<u64> {
    let surplus = match rule.keep {
        Some(keep) => rows(c, statements::SURPLUS, &[(keep as i64).into()], place)?.pop(),
        None => None,
    };
    let Some((at, id)) = statements::bound(rule, surplus) else { return Ok(0) };
    let read = |row: &Row<'_>| Ok((row.string(0)?, row.number(1)?));
    let oldest = rows(c, statements::OLDEST, &[at.into(), id.into()], read)?;
    let mut gone = 0;
    for (job, nodes) in statements::batch(&oldest) {
        if *nodes > statements::PRUNE_NODES {
            let output = c.prepare_cached(statements::DELETE_OUTPUT)?.execute([job])?;
            if output > 0 {
                return Ok(output as u64);
            }
        }
        gone += c.prepare_cached(statements::DELETE_JOB)?.execute([job])? as u64;
    }
    Ok(gone)
}
