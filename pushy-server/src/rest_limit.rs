//! How many REST connections there may be: a crowd of users or dashboards leaves the nodes their descriptors.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors for the store, files, listeners and questions to a Chef server.
const OTHERS: usize = 64;
/// The default lies between these, as far as the nodes leave room.
const DEFAULT: std::ops::RangeInclusive<usize> = 192..=4096;
/// Between two lines about connections that were closed.
const QUIET: Duration = Duration::from_secs(60);

/// Divides `descriptors`: connections of REST, and of nodes. `asked` is the setting; without it REST gets what
/// `max_nodes` nodes leave, two connections each. REST never gets more than half.
pub(crate) fn shares(descriptors: usize, max_nodes: usize, asked: Option<usize>) -> (usize, usize) {
    let room = descriptors.saturating_sub(OTHERS);
    let left = room.saturating_sub(2 * max_nodes);
    let rest = asked.unwrap_or_else(|| left.clamp(*DEFAULT.start(), *DEFAULT.end()));
    let rest = rest.min(room / 2).max(1);
    (rest, room.saturating_sub(rest).max(16))
}

/// Gives places while there are any.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    room: Arc<Semaphore>,
    most: usize,
    said: Arc<Mutex<Option<Instant>>>,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Limit {
        let most = most.min(Semaphore::MAX_PERMITS);
        Limit { room: Arc::new(Semaphore::new(most)), most, said: Arc::default() }
    }

    /// A place for this connection, until the answer is dropped.
    ///
    /// # Errors
    /// When there is none: the connection is to be closed.
    pub(crate) fn take(&self, stream: &TcpStream) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            self.say(stream);
            io::Error::other("too many REST connections")
        })
    }

    fn say(&self, stream: &TcpStream) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= QUIET) {
            *said = Some(Instant::now());
            let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(peer, most = self.most, "REST connection closed: max_rest_connections is reached");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_first_and_nobody_gets_nothing() {
        let check = |descriptors, max_nodes, asked, expected| {
            assert_eq!(
                shares(descriptors, max_nodes, asked),
                expected,
                "{descriptors} {max_nodes} {asked:?}"
            );
        };
        check(20_000, 5_000, None, (4_096, 15_840));
        check(20_000, 9_500, None, (936, 19_000));
        check(20_000, 20_000, None, (192, 19_744));
        check(20_000, 5_000, Some(1_000), (1_000, 18_936));
        check(1_024, 5_000, None, (192, 768));
        check(1_024, 5_000, Some(100_000), (480, 480));
        check(256, 5_000, None, (96, 96));
        check(32, 1, None, (1, 16));
    }
}
