//! A job's output as a stream (extension `output`).

use serde_json::Value;

use super::{JobView, Request, escape_segment};
use crate::ids::{JobId, NodeName};
use crate::job::NodeStatus;
use crate::output::{OutputChannel, Source};

/// `GET pushy/jobs/ID/stream/NODE/CHANNEL`: the answer is read as it comes ([`crate::output`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOf {
    /// Which job.
    pub id: JobId,
    /// Which of its nodes.
    pub node: NodeName,
    /// Which of its output.
    pub channel: OutputChannel,
    /// From which byte on; of both channels only the first of a record.
    pub from: u64,
    /// Whether to wait for what is still to come.
    pub follow: bool,
    /// Only from the server's store: an offset means another place there.
    pub stored: bool,
}

impl OutputOf {
    /// The request.
    pub fn request(&self) -> Request {
        let node = escape_segment(self.node.as_str());
        let mut request =
            Request::get(format!("pushy/jobs/{}/stream/{node}/{}", self.id, self.channel.as_str()));
        let mut query = Vec::new();
        if self.from > 0 {
            query.push(format!("from={}", self.from));
        }
        if self.follow {
            query.push("follow=1".to_owned());
        }
        if self.stored {
            query.push(format!("source={}", Source::Stored.as_str()));
        }
        request.query = query.join("&");
        request.accept = "application/octet-stream";
        request
    }
}

impl JobView {
    /// The nodes that have printed something, by name; with `follow` those too that still may.
    pub fn nodes_with_output(&self, follow: bool) -> Vec<NodeName> {
        let wanted = |status: Option<NodeStatus>| match status {
            Some(NodeStatus::New | NodeStatus::Ready) => follow,
            Some(
                NodeStatus::Running
                | NodeStatus::Succeeded
                | NodeStatus::Failed
                | NodeStatus::Aborted
                | NodeStatus::Crashed
                | NodeStatus::TimedOut,
            ) => true,
            Some(
                NodeStatus::Unavailable | NodeStatus::Nacked | NodeStatus::Faulty | NodeStatus::WasReady,
            )
            | None => false,
        };
        let names = self.nodes().filter(|(status, _)| wanted(*status)).flat_map(|(_, names)| names);
        let mut nodes: Vec<NodeName> =
            names.filter_map(Value::as_str).filter_map(|name| NodeName::new(name).ok()).collect();
        nodes.sort();
        nodes
    }
}
