//! `job_status_feed` and `job_status_feed/ID` (section 8).

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Response, header};
use pushy_core::feed::Frame;
use pushy_core::ids::{JobId, OrgId};

use super::auth::Caller;
use super::error::Failure;
use super::jobs::unreadable;
use super::negotiate;
use super::{Api, wants_detail};
use crate::clock;
use crate::feeds::JobFeed;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) async fn job(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    id: &str,
) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "text", "event-stream")?;
    let id = JobId::new(id).map_err(|_| Failure::NotFound)?;
    let org = caller.org.id;
    if let Some(response) = in_memory(api, parts, &org, &id, false)? {
        return Ok(response);
    }
    let job = api.store.job(&org, &id).await.map_err(unreadable)?.ok_or(Failure::NotFound)?;
    if !job.status.is_terminal() {
        // It was stored a moment ago and the machine does not know that yet.
        if let Some(response) = in_memory(api, parts, &org, &id, true)? {
            return Ok(response);
        }
    }
    let summary = Frame::summary(&job, clock::wall());
    Ok(event_stream(Body::from(summary.as_bytes().to_vec())))
}

fn in_memory(
    api: &Api,
    parts: &Parts,
    org: &OrgId,
    id: &JobId,
    expected: bool,
) -> Result<Option<Response<Body>>, Failure> {
    match api.feeds.job(org, id, last_event_id(parts), expected) {
        JobFeed::Open(body) => Ok(Some(event_stream(Body::new(body.with_detail(wants_detail(parts)))))),
        JobFeed::Unknown => Ok(None),
        JobFeed::Stopping => Err(stopping()),
    }
}

pub(super) async fn organization(
    api: &Api,
    parts: &Parts,
    caller: Caller,
) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "text", "event-stream")?;
    let body = api.feeds.organization(&caller.org.id, last_event_id(parts), clock::wall());
    Ok(event_stream(Body::new(body.ok_or_else(stopping)?)))
}

/// Where to go on; an empty or unreadable one is an unknown one, not none (8.2).
fn last_event_id(parts: &Parts) -> Option<&str> {
    parts.headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default())
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx in front must not collect what is meant to arrive at once.
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn stopping() -> Failure {
    Failure::Unavailable("the server is stopping".to_owned())
}
