//! Why a node did not do its part, in the words of whoever knows: the node, or else the server.

use crate::job::NodeStatus;
use crate::reason::{Reason, ReasonCode};

use super::Server;
use super::job_state::{Phase, Said};
use super::node_state::NodeEvent;
use super::tables::{JobIx, Node, NodeId};

impl Server {
    /// What is kept for a node that has ended so. `given` is the node's own reason, or what the server knows of its loss.
    pub(super) fn reason_of(to: NodeStatus, said: Said, given: Option<Reason>) -> Option<Reason> {
        let or =
            |code: ReasonCode, text: &str| Some(given.clone().unwrap_or_else(|| Reason::new(code, text)));
        match to {
            NodeStatus::New | NodeStatus::Ready | NodeStatus::Running | NodeStatus::Succeeded => None,
            NodeStatus::Nacked => or(
                ReasonCode::Refused,
                "the node refused and does not say why; its whitelist may not have the command, or it was busy",
            ),
            NodeStatus::Unavailable => Some(match (said, given) {
                (Said::Down, Some(why)) => Reason::new(ReasonCode::Lost, why.text()),
                (Said::NackCommit, Some(why)) => why,
                (said, _) => Reason::new(ReasonCode::Lost, format!("it said {} during the vote", word(said))),
            }),
            NodeStatus::Crashed => Some(match (said, given) {
                (Said::Down, Some(why)) => Reason::new(ReasonCode::Died, why.text()),
                (said, _) => {
                    Reason::new(ReasonCode::Died, format!("it said {} while the job ran", word(said)))
                }
            }),
            NodeStatus::Failed if said == Said::NackRun => {
                or(ReasonCode::RunRefused, "the node voted yes and then refused to run, and does not say why")
            }
            NodeStatus::Failed => {
                or(ReasonCode::Exit, "the command failed; the node does not say how it ended")
            }
            NodeStatus::TimedOut => or(ReasonCode::TimedOut, "run_timeout has passed"),
            NodeStatus::Aborted => or(ReasonCode::Cancelled, "cancelled"),
            NodeStatus::WasReady => or(ReasonCode::QuorumFailed, "too few nodes voted yes"),
            NodeStatus::Faulty => or(ReasonCode::Other, "faulty"),
        }
    }

    /// How the server lost a node.
    pub(super) fn why_down(&self, node: &Node, event: NodeEvent) -> Reason {
        let text = match event {
            NodeEvent::OtherIncarnation => "its agent was started anew".to_owned(),
            NodeEvent::NeverHeard => "it never sent a heartbeat".to_owned(),
            NodeEvent::FirstMessage
            | NodeEvent::Message
            | NodeEvent::Aborted
            | NodeEvent::RehabRequest
            | NodeEvent::RehabTimer
            | NodeEvent::Silent
            | NodeEvent::Lost => match node.heard {
                Some(at) => format!("not heard since {}", self.wall_of(at).iso8601()),
                None => "not heard since the server's start".to_owned(),
            },
        };
        Reason::new(ReasonCode::Lost, text)
    }

    /// Why a node is not asked at all.
    pub(super) fn why_unavailable(&self, id: NodeId) -> Reason {
        let Some(node) = self.nodes.get(&id) else {
            return Reason::new(ReasonCode::Unavailable, "never seen");
        };
        let text = match (self.detail_of(node).reason, node.heard.and(node.turned)) {
            (None | Some("never seen"), _) => "never seen".to_owned(),
            (Some(reason), Some(since)) => format!("{reason} since {}", self.wall_of(since).iso8601()),
            (Some(reason), None) => reason.to_owned(),
        };
        Reason::new(ReasonCode::Unavailable, text)
    }

    /// Why nodes that were ready do not run.
    pub(super) fn why_no_quorum(&self, ix: JobIx) -> Option<Reason> {
        let job = self.jobs.get(&ix).filter(|job| job.phase() == Phase::Voting)?;
        let text =
            format!("{} of {} nodes voted yes, {} were needed", job.tally.ready, job.nodes.len(), job.quorum);
        Some(Reason::new(ReasonCode::QuorumFailed, text))
    }
}

const fn word(said: Said) -> &'static str {
    match said {
        Said::AckCommit => "ack_commit",
        Said::NackCommit => "nack_commit",
        Said::AckRun => "ack_run",
        Said::NackRun => "nack_run",
        Said::Succeeded => "succeeded",
        Said::Failed | Said::TimedOut => "failed",
        Said::Aborted => "aborted",
        Said::Down => "nothing any more",
    }
}
