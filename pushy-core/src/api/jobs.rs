//! What is asked of a job beside its document: its feed, its end, its nodes once more.

use serde_json::{Value, json};

use super::{Call, JobView, Request, bad_answer, json};
use crate::error::{Error, ErrorCode, Result};
use crate::ids::{JobId, NodeName};
use crate::job::NodeStatus;
use crate::watch::Tally;

/// The request for a job's feed (8.1), after the event with this id or from the beginning.
pub fn job_feed(id: &JobId, after: Option<&str>) -> Request {
    let mut request = Request::get(format!("pushy/job_status_feed/{id}"));
    request.accept = "text/event-stream";
    request.last_event_id = after.map(str::to_owned);
    request
}

/// `POST pushy/jobs/ID/cancel` (decision 20): ends a job, or a part of it.
#[derive(Debug, Clone, Copy)]
pub struct CancelJob<'a> {
    /// Which job.
    pub id: &'a JobId,
    /// On which of its nodes; `None`: on all, and the job ends.
    pub nodes: Option<&'a [NodeName]>,
}

/// What a cancel came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// The nodes on which something was cancelled; empty when all of them had ended.
    pub nodes: Vec<String>,
}

impl Call for CancelJob<'_> {
    type Answer = Cancelled;

    fn request(&self) -> Request {
        let body = match self.nodes {
            Some(nodes) => json!({ "nodes": nodes.iter().map(NodeName::as_str).collect::<Vec<_>>() }),
            None => json!({}),
        };
        Request::post(format!("pushy/jobs/{}/cancel", self.id), &body)
    }

    fn answer(&self, body: &[u8]) -> Result<Cancelled> {
        let document = json(body)?;
        let nodes = document
            .get("nodes")
            .and_then(Value::as_array)
            .ok_or_else(|| bad_answer("a cancel without `nodes`".to_owned()))?;
        Ok(Cancelled { nodes: nodes.iter().filter_map(Value::as_str).map(str::to_owned).collect() })
    }
}

/// Which nodes of a job are meant: those in certain statuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<NodeStatus>);

impl Default for Statuses {
    /// All in which a node ends without having succeeded.
    fn default() -> Statuses {
        let ended = |status: &NodeStatus| status.is_terminal() && *status != NodeStatus::Succeeded;
        Statuses(NodeStatus::ALL.iter().copied().filter(ended).collect())
    }
}

impl Statuses {
    /// Reads names of statuses with commas between them: `failed,timed_out`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] naming the one that is none, and those there are.
    pub fn parse(text: &str) -> Result<Statuses> {
        let parse = |name: &str| {
            NodeStatus::from_text(name).filter(|status| *status != NodeStatus::Faulty).ok_or_else(|| {
                let known: Vec<_> = NodeStatus::ALL
                    .iter()
                    .filter(|s| **s != NodeStatus::Faulty)
                    .map(|s| s.as_str())
                    .collect();
                Error::new(
                    ErrorCode::InvalidArgument,
                    format!("{name:?} is no status of a node; there are {}", known.join(", ")),
                )
            })
        };
        text.split(',').map(|name| parse(name.trim())).collect::<Result<_>>().map(Statuses)
    }

    /// The names of the job's nodes in these statuses.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] when there is none, saying how the job's nodes are; [`ErrorCode::InvalidName`] when
    /// the server names one that cannot be a name.
    pub fn nodes_of(&self, job: &JobView) -> Result<Vec<NodeName>> {
        let names = job
            .nodes()
            .filter(|(status, _)| status.is_some_and(|status| self.0.contains(&status)))
            .flat_map(|(_, names)| names.iter().filter_map(Value::as_str));
        let nodes = names
            .map(|name| NodeName::new(name).map_err(|e| e.context(format!("{name:?}"))))
            .collect::<Result<Vec<_>>>()?;
        if nodes.is_empty() {
            let counts: Vec<_> =
                Tally::of_job(job).counts().map(|(status, count)| format!("{count} {status}")).collect();
            let found = if counts.is_empty() { "it has no nodes".to_owned() } else { counts.join(", ") };
            let wanted = if *self == Statuses::default() {
                "ended without success".to_owned()
            } else {
                let names: Vec<_> = self.0.iter().map(|status| status.as_str()).collect();
                format!("is {}", names.join(" or "))
            };
            let text = format!("No nodes to run job on. No node of job {} {wanted}: {found}.", job.id());
            return Err(Error::new(ErrorCode::InvalidArgument, text));
        }
        Ok(nodes)
    }
}
