//! One of the node's two connections: when to open it and when to try again (decision 26).

use crate::server::Random;

use crate::time::Millis;

use super::backoff::Backoff;

/// Which state it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum State {
    /// Down, and nothing is planned.
    Closed,
    /// Down; the next try is planned.
    Waiting,
    /// A try is under way.
    Connecting,
    /// Messages can be sent.
    Open,
}

/// One connection, its numbers and its tries.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    conn: u64,
    retry_at: Option<Millis>,
    tried_at: Millis,
    backoff: Backoff,
    down_since: Option<Millis>,
}

impl Link {
    pub(super) fn new(longest_wait: Millis) -> Link {
        Link {
            state: State::Closed,
            conn: 0,
            retry_at: None,
            tried_at: Millis(0),
            backoff: Backoff::new(longest_wait),
            down_since: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The number of the connection that exists or is being made.
    pub(super) fn conn(&self) -> Option<u64> {
        matches!(self.state, State::Connecting | State::Open).then_some(self.conn)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(super) fn is_current(&self, conn: u64) -> bool {
        self.conn() == Some(conn)
    }

    /// Starts a try under a new number.
    pub(super) fn connecting(&mut self, conn: u64, now: Millis) {
        self.state = State::Connecting;
        self.conn = conn;
        self.retry_at = None;
        self.tried_at = now;
        self.down_since.get_or_insert(now);
    }

    /// The handshake is complete.
    pub(super) fn opened(&mut self) {
        self.state = State::Open;
        self.down_since = None;
    }

    /// The connection is of use: the next trouble starts with short waits again.
    pub(super) fn proved(&mut self) {
        self.backoff.reset();
    }

    /// Gives the connection up; a configuration has to come first.
    pub(super) fn close(&mut self, now: Millis) {
        self.state = State::Closed;
        self.retry_at = None;
        self.down_since.get_or_insert(now);
    }

    /// Gives the connection up and plans the next try. The pause after a try that nothing answered counts from its start.
    pub(super) fn retry(&mut self, now: Millis, random: &mut dyn Random) {
        let from = if self.state == State::Connecting { self.tried_at } else { now };
        self.close(now);
        self.state = State::Waiting;
        self.retry_at = Some(now.max(from + self.backoff.next(random)));
    }

    /// No pause longer than this from now on.
    pub(super) fn set_longest_wait(&mut self, longest: Millis) {
        self.backoff.set_cap(longest);
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.retry_at
    }

    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }

    /// How often it was tried since it last worked, and for how long it has been down.
    pub(super) fn outage(&self, now: Millis) -> (u32, Millis) {
        (self.backoff.tries(), self.down_since.map_or(Millis(0), |since| now.saturating_sub(since)))
    }
}
