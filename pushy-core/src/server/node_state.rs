//! The rules of one node as the server sees it (section 5, decision 4).

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodePhase {
    /// No live state: offline.
    Absent,
    /// Known from before a restart of the server, not yet heard: offline, but its jobs go on.
    Restored,
    /// Told to give up whatever it does; `abort` is repeated until it answers `aborted`.
    Rehab,
    /// Ready for jobs, or doing one.
    Idle,
}

impl NodePhase {
    /// Every value.
    pub const ALL: &'static [NodePhase] =
        &[NodePhase::Absent, NodePhase::Restored, NodePhase::Rehab, NodePhase::Idle];

    /// Whether `node_states` shows it online (5.1).
    pub const fn is_live(self) -> bool {
        match self {
            NodePhase::Absent | NodePhase::Restored => false,
            NodePhase::Rehab | NodePhase::Idle => true,
        }
    }
}

/// What a node's state hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeEvent {
    /// The first valid message of a connection.
    FirstMessage,
    /// A later valid message.
    Message,
    /// A valid `aborted`, after the row for the message itself.
    Aborted,
    /// A job, or a heartbeat naming a job the server does not know, wants the node stopped.
    RehabRequest,
    /// Time to repeat `abort`.
    RehabTimer,
    /// A heartbeat of another process of the node, before the row for the message itself.
    OtherIncarnation,
    /// Silent for three intervals while its connection stands (decision 4).
    Silent,
    /// Silent for three intervals while its connection stands, without ever having sent a heartbeat (D-12).
    NeverHeard,
    /// Silent for three intervals without a connection.
    Lost,
}

impl NodeEvent {
    /// Every value.
    pub const ALL: &'static [NodeEvent] = &[
        NodeEvent::FirstMessage,
        NodeEvent::Message,
        NodeEvent::Aborted,
        NodeEvent::RehabRequest,
        NodeEvent::RehabTimer,
        NodeEvent::OtherIncarnation,
        NodeEvent::Silent,
        NodeEvent::NeverHeard,
        NodeEvent::Lost,
    ];
}

/// One consequence for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeStep {
    /// Send `ack`.
    Ack,
    /// Send `abort`, and again after `rehab_timer`.
    Abort,
    /// No new jobs until it is heard again; running ones go on.
    Mute,
    /// Its jobs see it go down.
    Down,
}

/// What to do: the phase entered, then the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRule {
    /// The phase entered.
    pub to: NodePhase,
    /// What else happens.
    pub steps: &'static [NodeStep],
}

/// The table of 5.2 with decision 4's rows.
///
/// A heartbeat of another process is not lost as with the original: it tears the old state down and then counts as
/// the new process's first message, which saves one interval.
pub const fn on(phase: NodePhase, event: NodeEvent) -> NodeRule {
    use NodeEvent as E;
    use NodePhase as P;
    const fn rule(to: NodePhase, steps: &'static [NodeStep]) -> NodeRule {
        NodeRule { to, steps }
    }
    match (phase, event) {
        (P::Absent, E::FirstMessage | E::Message) => rule(P::Rehab, &[NodeStep::Abort]),
        (P::Absent, E::Aborted | E::RehabRequest | E::RehabTimer) => rule(P::Absent, &[]),
        (P::Absent, E::OtherIncarnation | E::Silent | E::NeverHeard | E::Lost) => rule(P::Absent, &[]),

        (P::Restored, E::FirstMessage | E::Message) => rule(P::Idle, &[NodeStep::Ack]),
        (P::Restored, E::Aborted | E::RehabTimer) => rule(P::Restored, &[]),
        (P::Restored, E::RehabRequest) => rule(P::Rehab, &[NodeStep::Abort]),
        (P::Restored, E::Silent) => rule(P::Restored, &[NodeStep::Mute]),
        (P::Restored, E::OtherIncarnation | E::NeverHeard | E::Lost) => rule(P::Absent, &[NodeStep::Down]),

        (P::Rehab, E::FirstMessage) => rule(P::Rehab, &[NodeStep::Ack, NodeStep::Abort]),
        (P::Rehab, E::Message | E::RehabRequest) => rule(P::Rehab, &[]),
        (P::Rehab, E::Aborted) => rule(P::Idle, &[]),
        (P::Rehab, E::RehabTimer) => rule(P::Rehab, &[NodeStep::Abort]),
        (P::Rehab, E::Silent) => rule(P::Rehab, &[NodeStep::Mute]),
        (P::Rehab, E::OtherIncarnation | E::NeverHeard | E::Lost) => rule(P::Absent, &[NodeStep::Down]),

        (P::Idle, E::FirstMessage) => rule(P::Idle, &[NodeStep::Ack]),
        (P::Idle, E::Message | E::Aborted | E::RehabTimer) => rule(P::Idle, &[]),
        (P::Idle, E::RehabRequest) => rule(P::Rehab, &[NodeStep::Abort]),
        (P::Idle, E::Silent) => rule(P::Idle, &[NodeStep::Mute]),
        (P::Idle, E::OtherIncarnation | E::NeverHeard | E::Lost) => rule(P::Absent, &[NodeStep::Down]),
    }
}
