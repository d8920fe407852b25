//! When the node's document is published: after each configuration from a server that takes it (capability `nodes`),
//! after the node's own settings changed, and again after a failure (decision 44).

use crate::server::Random;
use crate::time::Millis;

use super::backoff::Backoff;

/// The longest wait before the next try. Longer than for the configuration: no job waits for it.
const LONGEST_WAIT: Millis = Millis(60_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The server does not take documents.
    Off,
    /// It has the current one, or will not have it.
    Done,
    /// To be sent then.
    Due(Millis),
    /// On its way; with a newer one behind it.
    Asked { again: bool },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Publisher {
    state: State,
    backoff: Backoff,
}

impl Publisher {
    pub(super) fn new() -> Publisher {
        Publisher { state: State::Off, backoff: Backoff::new(LONGEST_WAIT) }
    }

    /// A configuration was taken, from a server that takes documents or not.
    pub(super) fn configured(&mut self, now: Millis, takes: bool) {
        match (takes, self.state) {
            (true, State::Off) => self.state = State::Due(now),
            (true, _) => self.changed(now),
            (false, _) => self.state = State::Off,
        }
    }

    /// What the document says has changed.
    pub(super) fn changed(&mut self, now: Millis) {
        self.state = match self.state {
            State::Off => State::Off,
            State::Asked { .. } => State::Asked { again: true },
            State::Done | State::Due(_) => State::Due(now),
        };
    }

    /// The server has it.
    pub(super) fn published(&mut self, now: Millis) {
        self.backoff.reset();
        self.answered(now, None);
    }

    /// It could not be sent; `retry` when the same may do later.
    pub(super) fn failed(&mut self, now: Millis, retry: bool, random: &mut dyn Random) {
        let wait = retry.then(|| self.backoff.next(random));
        self.answered(now, wait.map(|wait| now + wait));
    }

    fn answered(&mut self, now: Millis, next: Option<Millis>) {
        if let State::Asked { again } = self.state {
            self.state = match next {
                Some(at) => State::Due(at),
                None if again => State::Due(now),
                None => State::Done,
            };
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        match self.state {
            State::Due(at) => Some(at),
            State::Off | State::Done | State::Asked { .. } => None,
        }
    }

    /// Whether to send it now; asked once.
    pub(super) fn pop_due(&mut self, now: Millis) -> bool {
        let due = self.next_deadline().is_some_and(|at| at <= now);
        if due {
            self.state = State::Asked { again: false };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn every_state_answers_every_input() {
        const NOW: Millis = Millis(100);
        const LATER: State = State::Due(Millis(900));
        let asked = |again| State::Asked { again };
        let check = |state: State, input: &str, expected: State| {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
            let mut publisher = Publisher { state, backoff: Backoff::new(LONGEST_WAIT) };
            match input {
                "takes" => publisher.configured(NOW, true),
                "takes not" => publisher.configured(NOW, false),
                "changed" => publisher.changed(NOW),
                "published" => publisher.published(NOW),
                "refused" => publisher.failed(NOW, false, &mut random),
                _ => {
                    publisher.failed(NOW, true, &mut random);
                    if state == asked(false) || state == asked(true) {
                        assert!(
                            publisher
                                .next_deadline()
                                .is_some_and(|at| at >= NOW && at <= NOW + Millis(2_000))
                        );
                        publisher.state = LATER;
                    }
                }
            }
            assert_eq!(publisher.state, expected, "{state:?} × {input}");
        };
        let now = State::Due(NOW);
        for (input, of_off, of_done, of_due, of_asked, of_asked_again) in [
            ("takes", now, now, now, asked(true), asked(true)),
            ("takes not", State::Off, State::Off, State::Off, State::Off, State::Off),
            ("changed", State::Off, now, now, asked(true), asked(true)),
            ("published", State::Off, State::Done, LATER, State::Done, now),
            ("refused", State::Off, State::Done, LATER, State::Done, now),
            ("failed", State::Off, State::Done, LATER, LATER, LATER),
        ] {
            check(State::Off, input, of_off);
            check(State::Done, input, of_done);
            check(LATER, input, of_due);
            check(asked(false), input, of_asked);
            check(asked(true), input, of_asked_again);
        }
    }

    #[test]
    fn it_is_asked_for_once() {
        let mut publisher = Publisher::new();
        assert!(!publisher.pop_due(Millis(5)));
        publisher.configured(Millis(5), true);
        assert!(publisher.pop_due(Millis(5)) && !publisher.pop_due(Millis(5)));
        publisher.published(Millis(6));
        assert_eq!(publisher.next_deadline(), None);
    }
}
