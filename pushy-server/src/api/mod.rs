//! The REST API: routes, methods, limits; every request goes through the checks of 2.1 in their order.

mod auth;
mod cancel;
mod config;
pub(crate) mod detail;
mod error;
mod feeds;
mod jobs;
mod negotiate;
mod node_states;
mod nodes;
mod status;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use pushy_core::ids::OrgName;
use pushy_core::output::OutputChannel;

use crate::driver::Handle;
use crate::feeds::Hub;
use crate::ops::{self, Ops};
use crate::outputs::Streams;
use crate::principals::Principals;
use crate::store::Store;
use error::Failure;
pub use node_states::NodeStates;

/// The longest request body, in bytes (2.1).
const MAX_BODY: usize = 1_000_000;
/// How long a body may take to arrive.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// What the handlers need.
pub struct Api {
    /// Who is who.
    pub principals: Principals,
    /// Jobs and output.
    pub store: Arc<dyn Store>,
    /// The organization whose paths may leave it out (decision 33).
    pub only_org: Option<OrgName>,
    /// The machine.
    pub driver: Handle,
    /// What happens to jobs.
    pub feeds: Arc<Hub>,
    /// Who listens to output.
    pub streams: Streams,
    /// The last answers about all nodes.
    pub node_states: NodeStates,
    /// `http` or `https`: what the listener speaks.
    pub scheme: &'static str,
    /// Host and port for absolute URIs when a request names no host.
    pub authority: String,
    /// Whether a node may fetch only its own configuration (3.3).
    pub validate_client_node_name: bool,
    /// Id of the server's keys, for `_status`.
    pub incarnation: String,
    /// Counters, health, audit log.
    pub ops: Arc<Ops>,
}

/// What a path leads to. Segments are taken as sent, not decoded (2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource<'a> {
    Status,
    Health,
    Ready,
    Config { org: &'a str, node: &'a str },
    Jobs { org: &'a str },
    Job { org: &'a str, id: &'a str },
    Cancel { org: &'a str, id: &'a str },
    Output { org: &'a str, id: &'a str, node: &'a str, stderr: bool },
    Stream { org: &'a str, id: &'a str, node: &'a str, channel: OutputChannel },
    NodeStates { org: &'a str },
    NodeState { org: &'a str, node: &'a str },
    Feed { org: &'a str },
    JobFeed { org: &'a str, id: &'a str },
    Publish { org: &'a str, node: &'a str },
    Nodes { org: &'a str },
    Node { org: &'a str, node: &'a str },
    EnvironmentNodes { org: &'a str, environment: &'a str },
    Indexes { org: &'a str },
    Search { org: &'a str, index: &'a str },
}

/// Whether a path begins with an organization.
fn names_org(path: &str) -> bool {
    path.trim_start_matches('/').starts_with("organizations/")
}

impl<'a> Resource<'a> {
    /// `only_org`: the organization of a path that names none.
    fn of(path: &'a str, only_org: Option<&'a str>) -> Option<Resource<'a>> {
        let mut segments = [""; 8];
        let mut count = 0;
        if let Some(org) = only_org.filter(|_| !names_org(path)) {
            (segments[0], segments[1], count) = ("organizations", org, 2);
        }
        for segment in path.split('/').filter(|s| !s.is_empty()) {
            *segments.get_mut(count)? = segment;
            count += 1;
        }
        Some(match segments[..count] {
            ["pushy", "_status"] | ["organizations", _, "pushy", "_status"] if !names_org(path) => {
                Resource::Status
            }
            ["healthz"] | ["organizations", _, "healthz"] if !names_org(path) => Resource::Health,
            ["readyz"] | ["organizations", _, "readyz"] if !names_org(path) => Resource::Ready,
            ["organizations", org, "pushy", "config", node] => Resource::Config { org, node },
            ["organizations", org, "pushy", "jobs"] => Resource::Jobs { org },
            ["organizations", org, "pushy", "jobs", id] => Resource::Job { org, id },
            ["organizations", org, "pushy", "jobs", id, "cancel"] => Resource::Cancel { org, id },
            ["organizations", org, "pushy", "jobs", id, "output", node, channel @ ("stdout" | "stderr")] => {
                Resource::Output { org, id, node, stderr: channel == "stderr" }
            }
            ["organizations", org, "pushy", "jobs", id, "stream", node, channel] => {
                Resource::Stream { org, id, node, channel: OutputChannel::from_text(channel)? }
            }
            ["organizations", org, "pushy", "node_states"] => Resource::NodeStates { org },
            ["organizations", org, "pushy", "node_states", node] => Resource::NodeState { org, node },
            ["organizations", org, "pushy", "job_status_feed"] => Resource::Feed { org },
            ["organizations", org, "pushy", "job_status_feed", id] => Resource::JobFeed { org, id },
            ["organizations", org, "pushy", "nodes", node] => Resource::Publish { org, node },
            ["organizations", org, "nodes"] => Resource::Nodes { org },
            ["organizations", org, "nodes", node] => Resource::Node { org, node },
            ["organizations", org, "environments", environment, "nodes"] => {
                Resource::EnvironmentNodes { org, environment }
            }
            ["organizations", org, "search"] => Resource::Indexes { org },
            ["organizations", org, "search", index] => Resource::Search { org, index },
            _ => return None,
        })
    }

    fn allow(self) -> &'static str {
        match self {
            Resource::Jobs { .. } | Resource::Search { .. } => "POST, GET",
            Resource::Publish { .. } => "PUT",
            Resource::Cancel { .. } => "POST",
            Resource::Status
            | Resource::Health
            | Resource::Ready
            | Resource::Config { .. }
            | Resource::Job { .. }
            | Resource::Output { .. }
            | Resource::Stream { .. }
            | Resource::NodeStates { .. }
            | Resource::NodeState { .. }
            | Resource::Feed { .. }
            | Resource::JobFeed { .. }
            | Resource::Nodes { .. }
            | Resource::Node { .. }
            | Resource::EnvironmentNodes { .. }
            | Resource::Indexes { .. } => "GET",
        }
    }

    fn org(self) -> Option<&'a str> {
        match self {
            Resource::Status | Resource::Health | Resource::Ready => None,
            Resource::Config { org, .. }
            | Resource::Jobs { org }
            | Resource::Job { org, .. }
            | Resource::Cancel { org, .. }
            | Resource::Output { org, .. }
            | Resource::Stream { org, .. }
            | Resource::NodeStates { org }
            | Resource::NodeState { org, .. }
            | Resource::Feed { org }
            | Resource::JobFeed { org, .. }
            | Resource::Publish { org, .. }
            | Resource::Nodes { org }
            | Resource::Node { org, .. }
            | Resource::EnvironmentNodes { org, .. }
            | Resource::Indexes { org }
            | Resource::Search { org, .. } => Some(org),
        }
    }
}

impl Resource<'_> {
    /// What metrics call it.
    fn route(self) -> &'static str {
        match self {
            Resource::Status => "status",
            Resource::Health => "healthz",
            Resource::Ready => "readyz",
            Resource::Config { .. } => "config",
            Resource::Jobs { .. } => "jobs",
            Resource::Job { .. } => "job",
            Resource::Cancel { .. } => "cancel",
            Resource::Output { .. } => "output",
            Resource::Stream { .. } => "stream",
            Resource::NodeStates { .. } => "node_states",
            Resource::NodeState { .. } => "node_state",
            Resource::Feed { .. } => "feed",
            Resource::JobFeed { .. } => "job_feed",
            Resource::Publish { .. } => "publish",
            Resource::Nodes { .. } | Resource::EnvironmentNodes { .. } => "nodes",
            Resource::Node { .. } => "node",
            Resource::Indexes { .. } | Resource::Search { .. } => "search",
        }
    }
}

/// The service. Paths are matched here and not by the router, which knows 404 only after the method.
pub fn router(api: Arc<Api>) -> Router {
    Router::new().fallback(serve).with_state(api)
}

async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let started = std::time::Instant::now();
    let (parts, body) = request.into_parts();
    let resource = Resource::of(parts.uri.path(), api.only_org.as_ref().map(OrgName::as_str));
    let response = match answer(&api, resource, &parts, body).await {
        Ok(response) => response,
        Err(failure) => failure.response(number),
    };
    let route = resource.map_or("other", Resource::route);
    api.ops.metrics.request(route, response.status().as_u16(), started.elapsed());
    tracing::debug!(
        request = number,
        method = parts.method.as_str(),
        path = ?parts.uri.path(),
        status = response.status().as_u16(),
        us = started.elapsed().as_micros() as u64,
        "request"
    );
    response
}

async fn answer(
    api: &Api,
    resource: Option<Resource<'_>>,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>, Failure> {
    let resource = resource.ok_or(Failure::NotFound)?;
    let write = match (&parts.method, resource) {
        (&Method::PUT, Resource::Publish { .. }) => true,
        (&Method::GET, resource)
            if !matches!(resource, Resource::Publish { .. } | Resource::Cancel { .. }) =>
        {
            false
        }
        (&Method::POST, Resource::Jobs { .. } | Resource::Cancel { .. } | Resource::Search { .. }) => true,
        (
            &(Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::TRACE
            | Method::OPTIONS),
            _,
        ) => {
            return Err(Failure::MethodNotAllowed(resource.allow()));
        }
        _ => return Err(Failure::UnknownMethod),
    };
    let Some(org) = resource.org() else {
        return match resource {
            Resource::Health => Ok(ops::http::healthz(&api.driver).await),
            Resource::Ready => Ok(ops::http::readyz(&api.ops)),
            _ => status::get(api, parts, body).await,
        };
    };
    let head = auth::read(parts)?;
    let body = read_body(body).await?;
    // These two come before the look-ups, so that a bad body is 400 for anybody (2.1).
    let job = match resource {
        Resource::Jobs { .. } if write => Some(jobs::parse(&body)?),
        _ => None,
    };
    let key = match resource {
        Resource::Config { .. } => Some(config::requested_key(parts)?),
        _ => None,
    };
    let caller = auth::authenticate(api, &head, org, parts, &body).await?;
    match resource {
        Resource::Status | Resource::Health | Resource::Ready => Err(Failure::NotFound),
        Resource::Config { node, .. } => {
            let key = key.ok_or_else(|| Failure::Internal("the key was not read".into()))?;
            config::get(api, parts, caller, node, key).await
        }
        Resource::Jobs { .. } => match job {
            Some(job) => jobs::post(api, parts, caller, job).await,
            None => jobs::list(api, parts, caller).await,
        },
        Resource::Job { id, .. } => jobs::get(api, parts, caller, id).await,
        Resource::Cancel { id, .. } => cancel::post(api, parts, caller, id, &body).await,
        Resource::Output { id, node, stderr, .. } => jobs::output(api, parts, caller, id, node, stderr).await,
        Resource::Stream { id, node, channel, .. } => {
            stream::get(api, parts, caller, id, node, channel).await
        }
        Resource::NodeStates { .. } => node_states::list(api, parts, caller).await,
        Resource::NodeState { node, .. } => node_states::get(api, parts, caller, node).await,
        Resource::Feed { .. } => feeds::organization(api, parts, caller).await,
        Resource::JobFeed { id, .. } => feeds::job(api, parts, caller, id).await,
        Resource::Publish { node, .. } => nodes::publish(api, parts, caller, node, &body).await,
        Resource::Nodes { .. } => nodes::list(api, parts, caller).await,
        Resource::Node { node, .. } => nodes::get(api, parts, caller, node).await,
        Resource::EnvironmentNodes { environment, .. } => {
            nodes::of_environment(api, parts, caller, environment).await
        }
        Resource::Indexes { .. } => nodes::indexes(api, parts, caller).await,
        Resource::Search { index, .. } => {
            nodes::search(api, parts, caller, index, write.then_some(&body[..])).await
        }
    }
}

/// The whole body: at most [`MAX_BODY`] bytes, within [`BODY_TIME`].
async fn read_body(body: Body) -> Result<axum::body::Bytes, Failure> {
    let whole = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, MAX_BODY)).await;
    whole.map_err(|_| Failure::Slow)?.map_err(|_| Failure::TooLarge)
}

/// The value of the first query parameter of this name, decoded.
fn query(parts: &Parts, name: &str) -> Option<String> {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).ok()?;
    pairs.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Whether the extra members are asked for (decision 20).
fn wants_detail(parts: &Parts) -> bool {
    parts.uri.query().is_some() && query(parts, "detail").as_deref() == Some("1")
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expected: Option<Resource<'_>>| {
            assert_eq!(Resource::of(path, None), expected, "{path}")
        };
        check("/pushy/_status", Some(Resource::Status));
        check("//pushy/_status/", Some(Resource::Status));
        check("/organizations/a/pushy/config", None);
        check("/organizations/a/pushy/config/", None);
        check("/organizations/a/pushy/config/n", Some(Resource::Config { org: "a", node: "n" }));
        check("/organizations/a/pushy/config/n%2D1/", Some(Resource::Config { org: "a", node: "n%2D1" }));
        check("/organizations/a/pushy/jobs/", Some(Resource::Jobs { org: "a" }));
        check("/organizations/a/pushy/jobs/1/cancel", Some(Resource::Cancel { org: "a", id: "1" }));
        check("/organizations/a/pushy/jobs/1/cancel/n", None);
        check("/organizations/a/pushy/jobs/1/output/n/stdin", None);
        check(
            "/organizations/a/pushy/jobs/1/output/n/stderr",
            Some(Resource::Output { org: "a", id: "1", node: "n", stderr: true }),
        );
        check("/organizations/a/pushy/jobs/1/output/n/stdout/x", None);
        check("/organizations/a/pushy/jobs/1/output/n/both", None);
        let channel = OutputChannel::Both;
        check(
            "/organizations/a/pushy/jobs/1/stream/n/both",
            Some(Resource::Stream { org: "a", id: "1", node: "n", channel }),
        );
        check("/organizations/a/pushy/jobs/1/stream/n/all", None);
        check("/organizations/a/pushy/jobs/1/output/n/stdout/x/y/z", None);
        check("/organizations/a/pushy/node_states/n", Some(Resource::NodeState { org: "a", node: "n" }));
        check("/organizations//pushy/jobs", None);
        check("/", None);
        check("/pushy/jobs", None);
        check("/organizations/a/pushy/_status", None);
        let check = |path: &str, expected: Option<Resource<'_>>| {
            assert_eq!(Resource::of(path, Some("a")), expected, "{path}");
        };
        check("/pushy/_status", Some(Resource::Status));
        check("//pushy//jobs/", Some(Resource::Jobs { org: "a" }));
        check("/pushy/config/n", Some(Resource::Config { org: "a", node: "n" }));
        check("/organizations/b/pushy/jobs", Some(Resource::Jobs { org: "b" }));
        check("/organizations/a/pushy/_status", None);
        check("/organizations/jobs", None);
    }
}
