//! REST as values: a typed call → (method, path, query, body), an answer → a typed result or an [`Error`].
//!
//! Nothing here does I/O; [`crate::client`] carries calls out. Paths are relative to the Chef server URL, which ends in
//! `/organizations/ORG` (10.1); a job is asked for by its id and not by the address the server gave, so that
//! signed headers never go to another host.

mod jobs;
mod nodes;
mod output;
mod refusal;
mod request;

use serde_json::Value;

pub use jobs::{CancelJob, Cancelled, Statuses, job_feed};

pub use nodes::{
    FindNodes, GetNode, ListNodes, NodesPage, PublishNode, fuzzy_query, node_attribute, node_summary,
};
pub use output::OutputOf;
pub use refusal::{Who, is_v1_server, refusal};
pub use request::{
    MAX_FILE, Quorum, env_option, file_option, node_names, parameter, parameter_option, parameters,
    v1_fallback,
};

use crate::error::{Error, ErrorCode, Result};
use crate::ids::{JobId, NodeName};
use crate::job::{JobRequest, JobStatus, NodeStatus};
use crate::time::Wall;

/// What the calls of this API need of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads; may be repeated.
    Get,
    /// Starts something; is never repeated once it may have arrived.
    Post,
    /// Says how something is.
    Put,
}

impl Method {
    /// As on the request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
        }
    }
}

/// One HTTP request, apart from host and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Escaped, relative to the server URL, without a leading slash.
    pub path: String,
    /// Escaped, without `?`; empty for none. Not part of the signature.
    pub query: String,
    /// Bytes of the body; empty for a GET.
    pub body: Vec<u8>,
    /// Value of `Accept` (2.4.6: output answers 406 to `application/json`).
    pub accept: &'static str,
    /// Value of `Last-Event-ID`: a feed goes on after that event (8.2).
    pub last_event_id: Option<String>,
}

impl Request {
    fn get(path: String) -> Request {
        Request {
            method: Method::Get,
            path,
            query: String::new(),
            body: Vec::new(),
            accept: "application/json",
            last_event_id: None,
        }
    }

    fn post(path: String, body: &Value) -> Request {
        let body = body.to_string().into_bytes();
        Request { method: Method::Post, body, ..Request::get(path) }
    }
}

/// A call: how it is asked and how its success is read.
pub trait Call {
    /// What a success means.
    type Answer;

    /// The request.
    fn request(&self) -> Request;

    /// Reads the body of a 2xx answer.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] when the body is not what the specification promises.
    fn answer(&self, body: &[u8]) -> Result<Self::Answer>;
}

/// What to warn of when [`Started::v1`] (10.2).
pub const V1_NOTICE: &str = "Falling back to Push Jobs v1 mode.";

/// `POST pushy/jobs` (2.4.4).
#[derive(Debug, Clone, Copy)]
pub struct StartJob<'a>(pub &'a JobRequest);

/// `GET pushy/jobs` (2.4.3), oldest first (decision 38; the server promises no order).
#[derive(Debug, Clone, Copy)]
pub struct ListJobs;

/// `GET pushy/jobs/ID` (2.4.5).
#[derive(Debug, Clone, Copy)]
pub struct GetJob<'a> {
    /// Which job.
    pub id: &'a JobId,
    /// Whether the answer shall hold the delivered file.
    pub include_file: bool,
    /// Whether it shall hold what an original does not say: reasons, counts, who asked for the job (decision 20).
    pub detail: bool,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `stdout`.
    #[default]
    Stdout,
    /// `stderr`.
    Stderr,
}

impl Channel {
    /// As in paths and on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Channel::Stdout => "stdout",
            Channel::Stderr => "stderr",
        }
    }

    /// Reads `stdout` or `stderr` (10.4).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] with knife's text.
    pub fn parse(text: &str) -> Result<Channel> {
        match text {
            "stdout" => Ok(Channel::Stdout),
            "stderr" => Ok(Channel::Stderr),
            _ => Err(Error::new(ErrorCode::InvalidArgument, "Invalid Format please enter stdout or stderr")),
        }
    }
}

/// `GET pushy/jobs/ID/output/NODE/CHANNEL` (2.4.6).
#[derive(Debug, Clone, Copy)]
pub struct GetOutput<'a> {
    /// Which job.
    pub id: &'a JobId,
    /// Which of its nodes.
    pub node: &'a NodeName,
    /// Which stream.
    pub channel: Channel,
}

/// `GET pushy/node_states` (2.4.7), sorted by name (the server promises no order).
#[derive(Debug, Clone, Copy)]
pub struct ListNodeStates;

/// `GET pushy/node_states/NODE` (2.4.8).
#[derive(Debug, Clone, Copy)]
pub struct GetNodeState<'a>(pub &'a NodeName);

/// `GET pushy/config/NODE` (2.4.2); the document is read by the node's side.
#[derive(Debug, Clone, Copy)]
pub struct GetConfig<'a> {
    /// Which node.
    pub node: &'a NodeName,
    /// Its CURVE public key: 40 characters of Z85.
    pub ccpk: &'a str,
}

/// One page of a node search on the Chef server, `GET search/node`.
#[derive(Debug, Clone, Copy)]
pub struct SearchNodes<'a> {
    /// The query, in the Chef server's language.
    pub query: &'a str,
    /// First row wanted.
    pub start: u64,
    /// Rows wanted.
    pub rows: u32,
}

/// A job that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its id: the last 32 characters of `uri` (2.4.4).
    pub id: JobId,
    /// Where the server says it is.
    pub uri: String,
    /// Whether the server is of the 1.x line and was spoken to in its way ([`V1_NOTICE`]).
    pub v1: bool,
}

impl Started {
    /// The first line of a wait, in knife's words (10.2).
    pub fn line(&self) -> String {
        format!("Started.  Job ID: {}", self.id)
    }
}

/// A job as the server shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    id: JobId,
    status: JobStatus,
    document: Value,
}

impl JobView {
    /// Reads a job's document (2.4.5). Members that are not known are kept in [`JobView::document`].
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] naming the member that is missing or wrong.
    pub fn from_document(document: Value) -> Result<JobView> {
        let text = |key: &str| {
            document
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| bad_answer(format!("a job without `{key}`")))
        };
        let id = JobId::new(text("id")?)
            .map_err(|_| bad_answer("a job whose `id` is not 32 hex digits".to_owned()))?;
        let status = text("status")?;
        let status = JobStatus::from_text(status)
            .ok_or_else(|| bad_answer(format!("job status {status:?}, which this version does not know")))?;
        let nodes_are_lists = document.get("nodes").is_none_or(|nodes| {
            nodes.as_object().is_some_and(|by_status| by_status.values().all(Value::is_array))
        });
        if !nodes_are_lists {
            return Err(bad_answer("a job whose `nodes` are not lists".to_owned()));
        }
        Ok(JobView { id, status, document })
    }

    /// Its id.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// Where it stands.
    pub fn status(&self) -> JobStatus {
        self.status
    }

    /// Everything the server said, for presenters; members in the server's order.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The document itself.
    pub fn into_document(self) -> Value {
        self.document
    }

    /// The node statuses that occur, with the names in each; a status unknown to this version is `None`.
    pub fn nodes(&self) -> impl Iterator<Item = (Option<NodeStatus>, &[Value])> {
        self.document.get("nodes").and_then(Value::as_object).into_iter().flatten().map(|(status, names)| {
            (NodeStatus::from_text(status), names.as_array().map(Vec::as_slice).unwrap_or_default())
        })
    }

    /// How many nodes the job has.
    pub fn node_count(&self) -> usize {
        self.nodes().map(|(_, names)| names.len()).sum()
    }

    /// How many of them are `new`, `ready` or `running` (D-73).
    pub fn in_progress(&self) -> usize {
        self.nodes()
            .filter(|(status, _)| status.is_some_and(|s| !s.is_terminal()))
            .map(|(_, names)| names.len())
            .sum()
    }
}

/// A node's availability (2.4.7, 2.4.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Which node.
    pub node_name: String,
    /// `available`, `unavailable` or, from the original server only, `undefined` (D-19).
    pub availability: String,
    /// `online` or `offline`; only in the answer about one node.
    pub status: Option<String>,
}

/// One page of a search's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPage {
    /// Matches in all.
    pub total: u64,
    /// Rows in this page, before those without a name are left out.
    pub rows: u64,
    /// Names of the nodes in this page.
    pub names: Vec<String>,
}

impl Call for StartJob<'_> {
    type Answer = Started;

    fn request(&self) -> Request {
        request::start_job(self.0)
    }

    fn answer(&self, body: &[u8]) -> Result<Started> {
        let document = json(body)?;
        let uri = document.get("uri").and_then(Value::as_str).unwrap_or_default();
        let id = uri
            .len()
            .checked_sub(32)
            .and_then(|at| uri.get(at..))
            .and_then(|id| JobId::new(id).ok())
            .ok_or_else(|| bad_answer("no `uri` that ends in a job id".to_owned()))?;
        Ok(Started { id, uri: uri.to_owned(), v1: false })
    }
}

impl Call for ListJobs {
    type Answer = Vec<JobView>;

    fn request(&self) -> Request {
        Request::get("pushy/jobs".to_owned())
    }

    fn answer(&self, body: &[u8]) -> Result<Vec<JobView>> {
        let Value::Array(documents) = json(body)? else {
            return Err(bad_answer("no list of jobs".to_owned()));
        };
        let mut jobs = documents.into_iter().map(JobView::from_document).collect::<Result<Vec<_>>>()?;
        jobs.sort_by_cached_key(|job| {
            job.document.get("created_at").and_then(Value::as_str).and_then(Wall::parse_http_date)
        });
        Ok(jobs)
    }
}

impl Call for GetJob<'_> {
    type Answer = JobView;

    fn request(&self) -> Request {
        let mut request = Request::get(format!("pushy/jobs/{}", self.id));
        request.query = match (self.include_file, self.detail) {
            (false, false) => "",
            (true, false) => "include_file=true",
            (false, true) => "detail=1",
            (true, true) => "include_file=true&detail=1",
        }
        .to_owned();
        request
    }

    fn answer(&self, body: &[u8]) -> Result<JobView> {
        JobView::from_document(json(body)?)
    }
}

impl Call for GetOutput<'_> {
    type Answer = Vec<u8>;

    fn request(&self) -> Request {
        let mut request = Request::get(format!(
            "pushy/jobs/{}/output/{}/{}",
            self.id,
            escape_segment(self.node.as_str()),
            self.channel.as_str()
        ));
        request.accept = "application/octet-stream";
        request
    }

    fn answer(&self, body: &[u8]) -> Result<Vec<u8>> {
        Ok(body.to_vec())
    }
}

impl Call for ListNodeStates {
    type Answer = Vec<NodeState>;

    fn request(&self) -> Request {
        Request::get("pushy/node_states".to_owned())
    }

    fn answer(&self, body: &[u8]) -> Result<Vec<NodeState>> {
        let Value::Array(documents) = json(body)? else {
            return Err(bad_answer("no list of nodes".to_owned()));
        };
        let mut states = documents.iter().map(|d| node_state(d, None)).collect::<Result<Vec<_>>>()?;
        states.sort_by(|a, b| a.node_name.cmp(&b.node_name));
        Ok(states)
    }
}

impl Call for GetNodeState<'_> {
    type Answer = NodeState;

    fn request(&self) -> Request {
        Request::get(format!("pushy/node_states/{}", escape_segment(self.0.as_str())))
    }

    fn answer(&self, body: &[u8]) -> Result<NodeState> {
        node_state(&json(body)?, Some(self.0))
    }
}

impl Call for GetConfig<'_> {
    type Answer = Value;

    fn request(&self) -> Request {
        let mut request = Request::get(format!("pushy/config/{}", escape_segment(self.node.as_str())));
        request.query = format!("ccpk={}&version=2.0", escape_query(self.ccpk));
        request
    }

    fn answer(&self, body: &[u8]) -> Result<Value> {
        json(body)
    }
}

impl Call for SearchNodes<'_> {
    type Answer = SearchPage;

    fn request(&self) -> Request {
        let mut request = Request::get("search/node".to_owned());
        request.query = format!("q={}&start={}&rows={}", escape_query(self.query), self.start, self.rows);
        request
    }

    fn answer(&self, body: &[u8]) -> Result<SearchPage> {
        let document = json(body)?;
        let rows = document
            .get("rows")
            .and_then(Value::as_array)
            .ok_or_else(|| bad_answer("a search without `rows`".to_owned()))?;
        let names = rows.iter().filter_map(|row| row.get("name")?.as_str().map(str::to_owned)).collect();
        let total = document.get("total").and_then(Value::as_u64).unwrap_or(0);
        Ok(SearchPage { total, rows: rows.len() as u64, names })
    }
}

fn node_state(document: &Value, asked: Option<&NodeName>) -> Result<NodeState> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let availability =
        text("availability").ok_or_else(|| bad_answer("a node without `availability`".to_owned()))?;
    let node_name = text("node_name")
        .or_else(|| asked.map(|name| name.as_str().to_owned()))
        .ok_or_else(|| bad_answer("a node without `node_name`".to_owned()))?;
    Ok(NodeState { node_name, availability, status: text("status") })
}

fn json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).map_err(|_| {
        bad_answer(
            "something that is not JSON; is chef_server_url the address of an organization?".to_owned(),
        )
    })
}

fn bad_answer(what: String) -> Error {
    Error::new(ErrorCode::Protocol, format!("the server answered with {what}"))
}

/// Escapes what may not stand in a path segment and nothing else: the server does not decode paths (2.1), so a name
/// must be sent as it is wherever HTTP allows it.
pub fn escape_segment(text: &str) -> String {
    escape(text, b"-._~!$&'()*+,;=:@")
}

/// Escapes a query value; `+` and `&` included (2.4.2).
pub fn escape_query(text: &str) -> String {
    escape(text, b"-._~")
}

fn escape(text: &str, keep: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
