//! One feed: what it remembers and who waits for more.
//!
//! Nobody has a queue of its own in here. A listener has a place in the log and takes from there what it can use, so
//! one that stands still costs the others nothing; it is lost when the log no longer reaches back to its place.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use axum::body::Bytes;
use pushy_core::feed::Frame;

/// Everything of a feed that can still be asked for. Positions count all events from 0, also those forgotten.
#[derive(Debug)]
pub(super) struct Log {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// The position of the oldest event that is remembered.
    first: u64,
    events: VecDeque<(Instant, Piece)>,
    bytes: usize,
    over: bool,
    /// By listener: how to wake it when there is something to take.
    waiting: Vec<Option<Waker>>,
    /// Places in `waiting` that belong to nobody.
    free: Vec<usize>,
}

/// One event, as most listeners get it and, where that differs, as those do who ask for details.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    plain: Bytes,
    detail: Option<Bytes>,
}

impl Piece {
    fn of(&self, detail: bool) -> Bytes {
        self.detail.as_ref().filter(|_| detail).unwrap_or(&self.plain).clone()
    }

    fn len(&self) -> usize {
        self.plain.len() + self.detail.as_ref().map_or(0, Bytes::len)
    }
}

impl From<Frame> for Piece {
    fn from(frame: Frame) -> Piece {
        let has_more = frame.detailed().len() > frame.as_bytes().len();
        let detail = has_more.then(|| Bytes::copy_from_slice(frame.detailed()));
        Piece { plain: Bytes::from_owner(frame), detail }
    }
}

/// What a listener finds at its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Some events; more may follow.
    Some,
    /// Nothing yet: the listener will be woken.
    Nothing,
    /// Nothing, and nothing will follow.
    Over,
    /// What belongs here is forgotten.
    Lost,
}

impl Log {
    /// An empty one whose first event will have this position.
    pub(super) fn new(first: u64) -> Log {
        Log { inside: Mutex::new(Inside { first, ..Inside::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // No operation on it can stop halfway.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event that is remembered until then; answers its position.
    pub(super) fn push(&self, until: Instant, event: impl Into<Piece>) -> u64 {
        let event = event.into();
        let mut inside = self.lock();
        let position = inside.end();
        inside.bytes += event.len();
        inside.events.push_back((until, event));
        inside.wake();
        position
    }

    /// No more events will come: listeners end when they have had them all.
    pub(super) fn end(&self) {
        let mut inside = self.lock();
        inside.over = true;
        inside.wake();
    }

    /// Forgets what has been remembered long enough, and the oldest while there are more than `most` bytes.
    pub(super) fn forget(&self, now: Instant, most: usize) {
        let mut inside = self.lock();
        while let Some((until, event)) = inside.events.front() {
            if *until > now && inside.bytes <= most {
                break;
            }
            let size = event.len();
            inside.bytes -= size;
            inside.first += 1;
            inside.events.pop_front();
        }
        // A burst that is over gives its memory back.
        if inside.events.capacity() > 64 && inside.events.len() < inside.events.capacity() / 4 {
            let size = inside.events.len() * 2;
            inside.events.shrink_to(size);
        }
    }

    /// Positions of the oldest event that is remembered and of the next one to come, and whether that will come.
    pub(super) fn span(&self) -> (u64, u64, bool) {
        let inside = self.lock();
        (inside.first, inside.end(), inside.over)
    }

    /// The oldest event that is remembered.
    pub(super) fn oldest(&self) -> Option<Bytes> {
        self.lock().events.front().map(|(_, event)| event.plain.clone())
    }

    /// A place to be woken at.
    pub(super) fn join(&self) -> usize {
        let mut inside = self.lock();
        match inside.free.pop() {
            Some(place) => place,
            None => {
                inside.waiting.push(None);
                inside.waiting.len() - 1
            }
        }
    }

    /// Gives the place back.
    pub(super) fn leave(&self, place: usize) {
        let mut inside = self.lock();
        if let Some(waker) = inside.waiting.get_mut(place) {
            *waker = None;
            inside.free.push(place);
        }
    }

    /// Moves up to `most` events from `position` on into `queue`, with `detail` as those who ask for details get them.
    pub(super) fn take(
        &self,
        place: usize,
        position: u64,
        (most, detail): (usize, bool),
        queue: &mut VecDeque<Bytes>,
        waker: &Waker,
    ) -> Taken {
        let mut inside = self.lock();
        let Some(skip) = position.checked_sub(inside.first) else { return Taken::Lost };
        let before = queue.len();
        // Positions within a log fit: it is in memory.
        queue.extend(
            inside.events.range(as_index(skip, inside.events.len())..).take(most).map(|e| e.1.of(detail)),
        );
        if queue.len() > before {
            return Taken::Some;
        }
        if inside.over {
            return Taken::Over;
        }
        if let Some(waiting) = inside.waiting.get_mut(place) {
            match waiting {
                Some(known) => known.clone_from(waker),
                None => *waiting = Some(waker.clone()),
            }
        }
        Taken::Nothing
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        let inside = self.lock();
        inside.waiting.len() - inside.free.len()
    }
}

impl Inside {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn wake(&mut self) {
        for waker in &mut self.waiting {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

fn as_index(position: u64, most: usize) -> usize {
    usize::try_from(position).map_or(most, |index| index.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_listener_takes_from_its_place_and_is_lost_when_that_is_forgotten() {
        let log = Log::new(5);
        let start = Instant::now();
        for number in 0..10u8 {
            let event = Piece { plain: Bytes::from(vec![number; 10]), detail: None };
            let position = log.push(start + Duration::from_secs(u64::from(number)), event);
            assert_eq!(position, 5 + u64::from(number));
        }
        let place = log.join();
        let take = |position, most| {
            let mut queue = VecDeque::new();
            let taken = log.take(place, position, (most, false), &mut queue, Waker::noop());
            (taken, queue.iter().map(|event| event[0]).collect::<Vec<_>>())
        };
        assert_eq!(take(5, 3), (Taken::Some, vec![0, 1, 2]));
        assert_eq!(take(13, 3), (Taken::Some, vec![8, 9]));
        assert_eq!(take(15, 3), (Taken::Nothing, vec![]));
        log.forget(start + Duration::from_secs(1), 1000);
        assert_eq!(log.span(), (7, 15, false));
        assert_eq!(take(6, 3), (Taken::Lost, vec![]));
        assert_eq!(take(7, 1), (Taken::Some, vec![2]));
        log.forget(start, 49);
        assert_eq!(log.span(), (11, 15, false));
        log.end();
        assert_eq!(take(11, 9), (Taken::Some, vec![6, 7, 8, 9]));
        assert_eq!(take(15, 9), (Taken::Over, vec![]));
        assert_eq!(log.listeners(), 1);
        log.leave(place);
        assert_eq!(log.listeners(), 0);
    }
}
