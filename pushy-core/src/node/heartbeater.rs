//! Signs of life, both ways (1.3 steps 8 to 10, 7.8).
//!
//! A node announces itself as soon as it is connected and then once per interval. The channel is proved by the first
//! message of the server, due within four seconds by the clock (D-55). Anything authenticated is a sign of life of
//! the server (D-59); silence counts only after this connection to the heartbeat port has delivered one, so that a
//! node whose firewall blocks that port does not flap.

use crate::time::Millis;

/// How long a connected server may take to say its first word (D-55).
pub const CHANNEL_CHECK: Millis = Millis(4_000);

/// What the node knows of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The command connection is down.
    Offline,
    /// It is up, but nothing has come over it yet.
    Checking,
    /// It is up and proved.
    Online,
}

impl State {
    /// Every state.
    pub const ALL: [State; 3] = [State::Offline, State::Checking, State::Online];
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// The command connection's handshake is complete.
    Connected,
    /// The command connection is gone.
    Disconnected,
    /// A message came over the command connection, whatever it said (1.3 step 10).
    Answered,
    /// An authenticated message came on the command port.
    Authenticated,
    /// A valid server heartbeat came.
    Heard,
    /// The connection to the heartbeat port is new or gone: what was heard on the old one no longer counts.
    PortChanged,
    /// The next own heartbeat is due.
    BeatDue,
    /// [`CHANNEL_CHECK`] has passed since [`Input::Connected`].
    CheckDue,
}

impl Input {
    /// Every input.
    pub const ALL: [Input; 8] = [
        Input::Connected,
        Input::Disconnected,
        Input::Answered,
        Input::Authenticated,
        Input::Heard,
        Input::PortChanged,
        Input::BeatDue,
        Input::CheckDue,
    ];
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a heartbeat.
    Beat,
    /// The server answers on this channel: whatever was wrong with it is over.
    Proved,
    /// Nothing came on the command port: keys may not fit. Fetch the configuration and connect again.
    ChannelDead,
    /// The server fell silent: connect again.
    ServerSilent,
}

/// The machine for heartbeats.
#[derive(Debug)]
pub struct Heartbeater {
    state: State,
    interval: Millis,
    /// Silent intervals that are still taken for bad luck (`offline_threshold`).
    threshold: u32,
    silent: u32,
    heard: bool,
    beat_at: Option<Millis>,
    check_at: Option<Millis>,
}

impl Heartbeater {
    /// An offline heartbeater with the interval and `offline_threshold` of the configuration.
    pub fn new(interval: Millis, threshold: u32) -> Heartbeater {
        Heartbeater {
            state: State::Offline,
            interval,
            threshold,
            silent: 0,
            heard: false,
            beat_at: None,
            check_at: None,
        }
    }

    /// Which state it is in.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes over a new configuration.
    pub fn configure(&mut self, interval: Millis, threshold: u32) {
        self.interval = interval;
        self.threshold = threshold;
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Millis> {
        [self.beat_at, self.check_at].into_iter().flatten().min()
    }

    /// The due input with the earliest deadline; call until `None`.
    pub fn pop_due(&mut self, now: Millis) -> Option<Input> {
        if self.check_at.is_some_and(|at| at <= now) {
            self.check_at = None;
            return Some(Input::CheckDue);
        }
        if self.beat_at.is_some_and(|at| at <= now) {
            self.beat_at = None;
            return Some(Input::BeatDue);
        }
        None
    }

    /// Takes note of something that happened and appends what follows from it.
    pub fn handle(&mut self, now: Millis, input: Input, out: &mut Vec<Action>) {
        match (self.state, input) {
            (_, Input::Connected) => {
                self.state = State::Checking;
                self.silent = 0;
                self.check_at = Some(now + CHANNEL_CHECK);
                self.beat(now, out);
            }
            (_, Input::Disconnected) => self.offline(),
            (State::Checking, Input::Answered) => {
                self.state = State::Online;
                self.check_at = None;
                self.silent = 0;
                out.push(Action::Proved);
            }
            (State::Offline | State::Online, Input::Answered) => {}
            (_, Input::Authenticated) => self.silent = 0,
            (_, Input::Heard) => {
                self.silent = 0;
                self.heard = true;
            }
            (_, Input::PortChanged) => {
                self.silent = 0;
                self.heard = false;
            }
            (State::Offline, Input::BeatDue | Input::CheckDue) | (State::Online, Input::CheckDue) => {}
            (State::Checking | State::Online, Input::BeatDue) => {
                if self.heard && self.silent > self.threshold {
                    self.offline();
                    out.push(Action::ServerSilent);
                } else {
                    self.silent = self.silent.saturating_add(1);
                    self.beat(now, out);
                }
            }
            (State::Checking, Input::CheckDue) => {
                self.offline();
                out.push(Action::ChannelDead);
            }
        }
    }

    fn beat(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.beat_at = Some(now + self.interval);
        out.push(Action::Beat);
    }

    fn offline(&mut self) {
        self.state = State::Offline;
        self.silent = 0;
        self.beat_at = None;
        self.check_at = None;
    }
}
