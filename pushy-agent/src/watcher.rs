//! Tells the driver when the files of the whitelist may have changed. Waits until nothing more happens: an editor or a
//! cookbook takes several steps to replace a file.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::driver::Event;
use crate::process::Watches;

/// Nothing may happen for this long before the files are read.
const QUIET: Duration = Duration::from_millis(250);

/// They are read after this long even if it goes on.
const LONGEST: Duration = Duration::from_secs(2);

/// The driver's end.
pub(crate) struct Watcher {
    folders: mpsc::UnboundedSender<Vec<PathBuf>>,
}

impl Watcher {
    /// Must be called inside of a tokio runtime. Ends when it is dropped.
    pub(crate) fn start(events: mpsc::UnboundedSender<Event>) -> Watcher {
        let (folders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(receiver, events));
        Watcher { folders }
    }

    /// Watches these folders from now on. What changed before it does is told as well.
    pub(crate) fn watch(&self, folders: Vec<PathBuf>) {
        let _ = self.folders.send(folders);
    }
}

async fn run(mut orders: mpsc::UnboundedReceiver<Vec<PathBuf>>, events: mpsc::UnboundedSender<Event>) {
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut watches: Option<Watches> = None;
    // When the first change that was not told happened, and when to tell.
    let mut first: Option<Instant> = None;
    let mut due: Option<Instant> = None;
    loop {
        let changed = async {
            match &mut watches {
                Some(watches) => watches.changed().await,
                None => std::future::pending().await,
            }
        };
        let quiet = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return };
                if order == folders {
                    continue;
                }
                folders = order;
                watches = match Watches::new(&folders) {
                    Ok(watches) => Some(watches),
                    Err(error) => {
                        tracing::warn!(
                            "changes of the whitelist's files are not noticed, send HUP after a change: {error}"
                        );
                        None
                    }
                };
                // Whatever happened while nobody watched.
                due = Some(Instant::now());
            }
            () = changed => {
                let now = Instant::now();
                let first = *first.get_or_insert(now);
                due = Some((now + QUIET).min(first + LONGEST));
            }
            () = quiet => {
                (first, due) = (None, None);
                if events.send(Event::FilesChanged).is_err() {
                    return;
                }
            }
        }
    }
}
