//! Sending a job's output to a server that asks for it (extension `output`, decision 37).
//!
//! The driver reads one piece at a time. Pieces that the network has not taken yet are few, so that heartbeats and votes
//! never wait behind much. A request for more than there is waits until there is more, or its time is over; output that
//! comes in drops is gathered for a moment, so that a line costs no message of its own.

use std::collections::VecDeque;

use crate::ids::JobId;
use crate::output::{Chunk, Wanted};
use crate::time::Millis;

/// Requests that may wait; what comes beyond is not answered, and asked for again.
pub const MAX_REQUESTS: usize = 256;
/// Pieces that may be on their way to the network.
pub const UNSENT: usize = 3;
/// Pieces of at least so many bytes count as on their way until [`super::Input::Drained`].
pub const COUNTED: usize = 1024;
/// How long what a running command prints is gathered.
pub const GATHER: Millis = Millis(50);

/// What the driver read of a job's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// From the offset on.
    Read(Chunk),
    /// There is nothing of this job.
    Missing,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read(Wanted),
    Send(Box<Chunk>),
}

#[derive(Debug)]
struct Parked {
    wanted: Wanted,
    /// When it is answered without anything.
    until: Millis,
    /// When it is read again.
    again: Option<Millis>,
}

/// The requests of one server.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    waiting: VecDeque<(Wanted, Millis)>,
    /// What the driver reads, and until when it may be parked; no time: the connection it was for is gone.
    reading: Option<(Wanted, Option<Millis>)>,
    /// There was more while it was read.
    grew: bool,
    parked: Vec<Parked>,
    /// Numbers of the messages that hold pieces and wait for the network.
    unsent: VecDeque<u64>,
}

impl Outputs {
    /// The server asks. Answers whether there was room for the question.
    pub(super) fn asked(&mut self, now: Millis, wanted: Wanted, out: &mut Vec<Action>) -> bool {
        let pending = self.waiting.len() + self.parked.len();
        if pending >= MAX_REQUESTS {
            return false;
        }
        let until = now + Millis(u64::from(wanted.wait));
        self.waiting.push_back((wanted, until));
        self.go_on(out);
        true
    }

    /// The driver has read. What is missing of the `current` job may still come.
    pub(super) fn read(&mut self, now: Millis, piece: Piece, current: Option<&JobId>, out: &mut Vec<Action>) {
        let Some((wanted, until)) = self.reading.take() else { return };
        let grew = std::mem::take(&mut self.grew);
        if let Some(until) = until {
            let chunk = match piece {
                Piece::Read(chunk) => chunk,
                Piece::Missing => missing(&wanted, current != Some(&wanted.job)),
            };
            let empty = chunk.data.is_empty() && !chunk.done && !chunk.missing;
            if empty && now < until {
                let again = grew.then_some(now + GATHER);
                self.parked.push(Parked { wanted, until, again });
            } else {
                out.push(Action::Send(Box::new(chunk)));
            }
        }
        self.go_on(out);
    }

    /// A piece left as this message.
    pub(super) fn sent(&mut self, number: u64) {
        self.unsent.push_back(number);
    }

    /// The network has taken every message up to this one.
    pub(super) fn drained(&mut self, number: u64, out: &mut Vec<Action>) {
        while self.unsent.front().is_some_and(|first| *first <= number) {
            self.unsent.pop_front();
        }
        self.go_on(out);
    }

    /// A command has printed more, or has ended.
    pub(super) fn grew(&mut self, now: Millis, job: &JobId, ended: bool) {
        let at = if ended { now } else { now + GATHER };
        for parked in self.parked.iter_mut().filter(|parked| parked.wanted.job == *job) {
            parked.again = Some(parked.again.map_or(at, |again| again.min(at)));
        }
        if self.reading.as_ref().is_some_and(|(wanted, _)| wanted.job == *job) {
            self.grew = true;
        }
    }

    /// The connection is gone, and with it everything that was asked for over it.
    pub(super) fn disconnected(&mut self) {
        self.waiting.clear();
        self.parked.clear();
        self.unsent.clear();
        if let Some((_, until)) = &mut self.reading {
            *until = None;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.parked.iter().map(|p| p.again.map_or(p.until, |again| again.min(p.until))).min()
    }

    /// Does what is due.
    pub(super) fn due(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        for parked in std::mem::take(&mut self.parked) {
            if parked.again.is_some_and(|again| again <= now) || parked.until <= now {
                // Read once more in either case: the answer says how much there is.
                self.waiting.push_back((parked.wanted, parked.until));
            } else {
                self.parked.push(parked);
            }
        }
        self.go_on(out);
    }

    fn go_on(&mut self, out: &mut Vec<Action>) {
        let sending = out.iter().filter(|action| matches!(action, Action::Send(_))).count();
        if self.reading.is_some() || self.unsent.len() + sending >= UNSENT {
            return;
        }
        if let Some((wanted, until)) = self.waiting.pop_front() {
            out.push(Action::Read(wanted.clone()));
            self.reading = Some((wanted, Some(until)));
        }
    }
}

fn missing(wanted: &Wanted, missing: bool) -> Chunk {
    Chunk {
        job: wanted.job.clone(),
        channel: wanted.channel,
        offset: wanted.offset,
        total: 0,
        done: missing,
        lost: 0,
        missing,
        data: Vec::new(),
    }
}
