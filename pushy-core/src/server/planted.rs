//! Bugs planted on purpose, so that the simulation can show that it would find them (decision 28).
//! Without feature `planted-bugs` none can be switched on.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "planted-bugs"), allow(unreachable_pub))]
pub enum PlantedBug {
    /// What must be stored first is told at once.
    PersistAfterSend,
    /// `run` goes out again on every new connection of a node that is ready or runs.
    RunResentBlindly,
    /// `commit` goes out again on every new connection of a node of an open vote.
    CommitResentBlindly,
    /// A second `ack_commit` is a second vote.
    VoteCountedTwice,
    /// A heartbeat decides even if it waited in a queue since before the handshake.
    StaleHeartbeatTrusted,
    /// `result_ack` goes out before the result is stored.
    ResultAckBeforeStored,
    /// A node known from before a restart is told `abort`.
    AbortKnownNode,
    /// One yes too few wins a vote.
    QuorumOffByOne,
    /// A result that arrives on another connection than its `run` left on is dropped.
    ResultDropped,
    /// Neither sequence nor signature of a message is remembered.
    ReplayAccepted,
    /// Silence ends a running job although the node's connection stands.
    SilenceEndsJob,
    /// `run_timeout` passes unnoticed.
    DeadlineIgnored,
    /// Whoever is away when its job is cancelled is not told when it is back.
    CancelForgetsAway,
    /// A cancel is told to nodes before it is stored.
    CancelBeforeStored,
}

impl PlantedBug {
    /// Every bug.
    #[cfg(feature = "planted-bugs")]
    pub const ALL: &'static [PlantedBug] = &[
        PlantedBug::PersistAfterSend,
        PlantedBug::RunResentBlindly,
        PlantedBug::CommitResentBlindly,
        PlantedBug::VoteCountedTwice,
        PlantedBug::StaleHeartbeatTrusted,
        PlantedBug::ResultAckBeforeStored,
        PlantedBug::AbortKnownNode,
        PlantedBug::QuorumOffByOne,
        PlantedBug::ResultDropped,
        PlantedBug::ReplayAccepted,
        PlantedBug::SilenceEndsJob,
        PlantedBug::DeadlineIgnored,
        PlantedBug::CancelForgetsAway,
        PlantedBug::CancelBeforeStored,
    ];
}

#[cfg(feature = "planted-bugs")]
impl super::Server {
    /// Switches a bug on, or all off.
    pub fn plant(&mut self, bug: Option<PlantedBug>) {
        self.bug = bug;
    }

    pub(super) fn planted(&self, bug: PlantedBug) -> bool {
        self.bug == Some(bug)
    }

    /// How often each row of a table was used since this was last asked, as `TABLE: STATE × INPUT`.
    pub fn take_rows(&mut self) -> std::collections::BTreeMap<String, u64> {
        std::mem::take(&mut self.rows)
    }

    pub(super) fn hit(&mut self, row: impl FnOnce() -> String) {
        *self.rows.entry(row()).or_default() += 1;
    }
}

#[cfg(not(feature = "planted-bugs"))]
impl super::Server {
    pub(super) const fn planted(&self, _bug: PlantedBug) -> bool {
        false
    }

    pub(super) fn hit(&mut self, _row: impl FnOnce() -> String) {}
}
