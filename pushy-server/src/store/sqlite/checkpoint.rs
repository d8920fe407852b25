//! Carries what was committed from the write-ahead log into the database, beside the writer: done by the writer itself, as
//! SQLite does unless told otherwise, it keeps everybody who waits for a commit waiting for the disk several times a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;

/// After so many records it is time again.
const RECORDS: usize = 1_000;
/// A log of more pages than that is brought to its end by the writer, so that it starts over: while somebody writes nobody
/// else can.
const LONG: i64 = 8_000;

/// A thread with a connection of its own.
pub(super) struct Checkpointer {
    wake: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The log is long.
    long: Arc<AtomicBool>,
    records: usize,
}

impl Checkpointer {
    /// Relieves the writer, which goes on by itself when there is no second connection or thread.
    pub(super) fn start(writer: &Connection, connection: Option<Connection>) -> Checkpointer {
        let mut this =
            Checkpointer { wake: None, thread: None, long: Arc::new(AtomicBool::new(false)), records: 0 };
        let Some(connection) = connection else { return this };
        let (wake, woken) = mpsc::sync_channel(1);
        let long = Arc::clone(&this.long);
        let work = move || {
            while let Ok(()) = woken.recv() {
                long.store(checkpoint(&connection) > LONG, Ordering::Relaxed);
            }
        };
        if let Ok(thread) = std::thread::Builder::new().name("checkpoint".into()).spawn(work)
            && writer.pragma_update(None, "wal_autocheckpoint", 0).is_ok()
        {
            (this.wake, this.thread) = (Some(wake), Some(thread));
        }
        this
    }

    /// So many records were committed. To be told by the writer between two transactions.
    pub(super) fn committed(&mut self, records: usize, writer: &Connection) {
        let Some(wake) = &self.wake else { return };
        if self.long.swap(false, Ordering::Relaxed) {
            // Little is left to do: the other one has just finished.
            checkpoint(writer);
        }
        self.records = self.records.saturating_add(records);
        // One that is at it has a word waiting already.
        if self.records >= RECORDS && wake.try_send(()).is_ok() {
            self.records = 0;
        }
    }

    /// Ends the thread and its connection.
    pub(super) fn stop(mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            // A panic has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Does what can be done without anybody waiting; how many pages the log has.
fn checkpoint(connection: &Connection) -> i64 {
    let pages = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1));
    pages.unwrap_or_else(|error| {
        // What is committed is safe in the log; the next round tries again.
        tracing::warn!("the write-ahead log stays: {error}");
        0
    })
}
