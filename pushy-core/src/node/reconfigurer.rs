//! When to fetch the configuration (1.6, D-54 to D-58).
//!
//! Every reason to fetch ends in one plan with one deadline, the earliest; a fetch under way answers all of them.
//! Only the rotation of keys at the end of the configuration's lifetime waits for the running job.

use crate::server::Random;

use crate::time::Millis;

use super::backoff::{Backoff, LONGEST_WAIT, longest_wait, uniform};

/// Why the configuration is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trigger {
    /// The agent has started.
    Start,
    /// The server's incarnation is another: its keys may be. Spread over one heartbeat interval.
    ServerRestarted,
    /// Nothing came on the command port, or the handshake failed: our keys may be outdated.
    ChannelDead,
    /// The server has been out of reach for long: it may have moved. At once, for its maker has waited already.
    OutOfReach,
    /// An operator asks (USR1).
    Operator,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Trigger; 5] = [
        Trigger::Start,
        Trigger::ServerRestarted,
        Trigger::ChannelDead,
        Trigger::OutOfReach,
        Trigger::Operator,
    ];
}

/// Which state it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nothing to do before the lifetime ends.
    Resting,
    /// A fetch is planned.
    Planned,
    /// A fetch is under way.
    Fetching,
    /// The lifetime has ended; the rotation waits for the job's end.
    Expired,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::Resting, State::Planned, State::Fetching, State::Expired];
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// There is a reason to fetch.
    Triggered(Trigger),
    /// The planned moment has come. `idle` as in [`Input::LifetimeDue`].
    PlanDue {
        /// Whether the node has no job.
        idle: bool,
    },
    /// The lifetime ends.
    LifetimeDue {
        /// Whether the node has no job.
        idle: bool,
    },
    /// The node has no job any more.
    BecameIdle,
    /// The fetch brought a usable configuration.
    Fetched {
        /// Its `lifetime`.
        lifetime: Millis,
    },
    /// The fetch brought nothing usable.
    Failed,
    /// The command channel works: later trouble starts with short waits again.
    Proved,
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fetch the configuration.
    Fetch {
        /// With a new CURVE pair (1.6, decision 6).
        new_keys: bool,
    },
}

/// The machine for fetching the configuration.
#[derive(Debug)]
pub struct Reconfigurer {
    state: State,
    interval: Millis,
    plan_at: Option<Millis>,
    lifetime_at: Option<Millis>,
    /// The lifetime ended while a job ran or a fetch was planned: the next fetch of an idle node takes new keys.
    rotate: bool,
    /// Some reason to fetch remains even if the channel turns out to work.
    needed: bool,
    backoff: Backoff,
}

impl Default for Reconfigurer {
    fn default() -> Self {
        Reconfigurer::new()
    }
}

impl Reconfigurer {
    /// A machine that waits for [`Trigger::Start`].
    pub fn new() -> Reconfigurer {
        Reconfigurer {
            state: State::Resting,
            interval: Millis(10_000),
            plan_at: None,
            lifetime_at: None,
            rotate: false,
            needed: false,
            backoff: Backoff::new(LONGEST_WAIT),
        }
    }

    /// Which state it is in.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes over the heartbeat interval, over which a fleet's fetches are spread after a server restart.
    pub fn configure(&mut self, interval: Millis) {
        self.interval = interval;
        self.backoff.set_cap(longest_wait(interval));
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Millis> {
        [self.plan_at, self.lifetime_at].into_iter().flatten().min()
    }

    /// The due input; call until `None`.
    pub fn pop_due(&mut self, now: Millis, idle: bool) -> Option<Input> {
        if self.plan_at.is_some_and(|at| at <= now) {
            self.plan_at = None;
            return Some(Input::PlanDue { idle });
        }
        if self.lifetime_at.is_some_and(|at| at <= now) {
            self.lifetime_at = None;
            return Some(Input::LifetimeDue { idle });
        }
        None
    }

    /// Takes note of something that happened and appends what follows from it.
    pub fn handle(&mut self, now: Millis, input: Input, random: &mut dyn Random, out: &mut Vec<Action>) {
        match (self.state, input) {
            (State::Resting | State::Planned | State::Expired, Input::Triggered(trigger)) => {
                let (wait, needed) = match trigger {
                    Trigger::Start | Trigger::Operator => (Millis(0), true),
                    Trigger::ServerRestarted => (uniform(self.interval, random), true),
                    Trigger::ChannelDead => (self.backoff.next(random), false),
                    Trigger::OutOfReach => (Millis(0), false),
                };
                self.needed |= needed;
                self.plan(now + wait);
            }
            (State::Fetching, Input::Triggered(_)) => {}
            (State::Planned, Input::PlanDue { idle }) => self.fetch(idle, out),
            (State::Resting | State::Fetching | State::Expired, Input::PlanDue { .. }) => {}
            (State::Resting | State::Expired, Input::LifetimeDue { idle }) => {
                self.rotate = true;
                self.needed = true;
                if idle {
                    self.fetch(true, out);
                } else {
                    self.state = State::Expired;
                }
            }
            (State::Planned | State::Fetching, Input::LifetimeDue { .. }) => {
                self.rotate = true;
                self.needed = true;
            }
            (State::Expired, Input::BecameIdle) => self.fetch(true, out),
            (State::Resting | State::Planned | State::Fetching, Input::BecameIdle) => {}
            (_, Input::Fetched { lifetime }) => {
                self.plan_at = None;
                self.needed = self.rotate;
                // 0.9 to 1 times the lifetime, and never so short that it becomes a busy loop.
                let lifetime = lifetime.0.max(10_000);
                let wait = lifetime - uniform(Millis(lifetime / 10), random).0;
                self.lifetime_at = Some(now + Millis(wait));
                self.state = if self.rotate { State::Expired } else { State::Resting };
            }
            (State::Fetching, Input::Failed) => {
                let wait = self.backoff.next(random);
                self.plan(now + wait);
            }
            (State::Resting | State::Planned | State::Expired, Input::Failed) => {}
            (State::Planned, Input::Proved) => {
                self.backoff.reset();
                if !self.needed {
                    // The plan was made because the channel was dead.
                    self.plan_at = None;
                    self.state = State::Resting;
                }
            }
            (State::Resting | State::Fetching | State::Expired, Input::Proved) => self.backoff.reset(),
        }
    }

    /// The earliest of several plans counts (D-56, D-58).
    fn plan(&mut self, at: Millis) {
        self.plan_at = Some(self.plan_at.map_or(at, |old| old.min(at)));
        self.state = State::Planned;
    }

    fn fetch(&mut self, idle: bool, out: &mut Vec<Action>) {
        let new_keys = idle && self.rotate;
        if new_keys {
            self.rotate = false;
        }
        self.plan_at = None;
        self.state = State::Fetching;
        out.push(Action::Fetch { new_keys });
    }
}
