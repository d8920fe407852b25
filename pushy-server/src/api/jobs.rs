//! `jobs`, `jobs/ID` and a job's output (2.4.3 to 2.4.6).

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{JobRequest, JobStatus};
use pushy_core::{Error, ErrorCode};

use super::auth::Caller;
use super::error::Failure;
use super::negotiate;
use super::{Api, json_response, query, wants_detail};
use crate::ops::audit;
use crate::ops::health::DRAINING;
use crate::store::JobFilter;

/// What a list shows in place of a value of `env` (decision 43).
const MASK: &str = "***";
/// A list that is asked for in pages has at most so many jobs on each.
const MAX_LIMIT: u32 = 10_000;

pub(super) fn parse(body: &[u8]) -> Result<JobRequest, Failure> {
    JobRequest::from_json(body).map_err(Failure::InvalidJob)
}

pub(super) async fn post(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    job: JobRequest,
) -> Result<Response<Body>, Failure> {
    let mut about = audit::job(&job.command, &job.nodes);
    if let Err(failure) = caller.may_write(api).await {
        if matches!(failure, Failure::Auth(_)) {
            caller.audit(api, parts, "job_denied", about);
        }
        return Err(failure);
    }
    negotiate::acceptable(&parts.headers, "application", "json")?;
    negotiate::is_json(&parts.headers)?;
    if api.ops.health.is_draining() {
        return Err(Failure::Unavailable(DRAINING.into()));
    }
    let org = caller.org.clone();
    let (driver, ops) = (api.driver.clone(), Arc::clone(&api.ops));
    caller.describe(api, parts, &mut about);
    // A job runs whether or not its requester waits for the answer: nor does what is written about it.
    let start = async move {
        // Options are secrets (decision 43); who asked for what on how many nodes is not.
        let (command, nodes) = (job.command.clone(), job.nodes.len());
        let id = driver.start_job(caller.org.id, caller.name.clone(), job).await?;
        about["job"] = id.as_str().into();
        ops.audit_line("job_started", about);
        let (org, user) = (caller.org.name, caller.name);
        tracing::info!(job = id.as_str(), org = org.as_str(), ?user, ?command, nodes, "job started");
        Ok::<_, Error>(id)
    };
    let started = tokio::spawn(start).await.map_err(|e| Failure::Internal(format!("start: {e}")))?;
    let id = started.map_err(|e| match e.code() {
        ErrorCode::Internal => Failure::Internal(e.message().to_owned()),
        _ => Failure::Unavailable(e.message().to_owned()),
    })?;
    let base = negotiate::base_uri(&parts.headers, api.scheme, &api.authority);
    let uri = if super::names_org(parts.uri.path()) {
        format!("{base}/organizations/{}/pushy/jobs/{id}", org.name)
    } else {
        format!("{base}/pushy/jobs/{id}")
    };
    let mut response = json_response(StatusCode::CREATED, serde_json::json!({ "uri": uri }).to_string());
    if let Ok(location) = HeaderValue::from_str(&uri) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn list(api: &Api, parts: &Parts, caller: Caller) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "application", "json")?;
    let filter = filter(parts)?;
    let jobs = api.store.jobs(&caller.org.id, filter).await.map_err(unreadable)?;
    let mut jobs = jobs.ok_or_else(|| Failure::BadQuery("before: there is no such job".into()))?;
    let mut list = String::with_capacity(2 + 256 * jobs.len());
    for job in &mut jobs {
        for (_, value) in job.options.env.iter_mut().flatten() {
            MASK.clone_into(value);
        }
        list.push(if list.is_empty() { '[' } else { ',' });
        list.push_str(&job.to_list_json());
    }
    list.push_str(if list.is_empty() { "[]" } else { "]" });
    Ok(json_response(StatusCode::OK, list))
}

/// The parameters of a list; without any of them it is that of 2.4.4.
fn filter(parts: &Parts) -> Result<JobFilter, Failure> {
    if parts.uri.query().is_none() {
        return Ok(JobFilter::default());
    }
    let bad = |text: String| Failure::BadQuery(text);
    let limit = match query(parts, "limit") {
        Some(text) => match text.parse() {
            Ok(limit @ 1..=MAX_LIMIT) => Some(limit),
            _ => return Err(bad(format!("limit: must be a number from 1 to {MAX_LIMIT}"))),
        },
        None => None,
    };
    let before = query(parts, "before").map(|id| JobId::new(&id)).transpose();
    let status = match query(parts, "status") {
        Some(text) => Some(JobStatus::from_text(&text).ok_or_else(|| {
            let known: Vec<&str> = JobStatus::ALL.iter().map(|status| status.as_str()).collect();
            bad(format!("status: must be one of {}", known.join(", ")))
        })?),
        None => None,
    };
    let node = query(parts, "node").map(|name| NodeName::new(&name)).transpose();
    Ok(JobFilter {
        limit,
        before: before.map_err(|_| bad("before: must be a job ID of 32 hexadecimal digits".into()))?,
        status,
        command: query(parts, "command"),
        user: query(parts, "user"),
        node: node.map_err(|_| bad("node: is not a node name".into()))?,
    })
}

pub(super) async fn get(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    id: &str,
) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "application", "json")?;
    let id = JobId::new(id).map_err(|_| Failure::NotFound)?;
    let job = api.store.job(&caller.org.id, &id).await.map_err(unreadable)?.ok_or(Failure::NotFound)?;
    let include_file = parts.uri.query().is_some() && query(parts, "include_file").as_deref() == Some("true");
    let text = if wants_detail(parts) { job.to_detail_json(include_file) } else { job.to_json(include_file) };
    Ok(json_response(StatusCode::OK, text))
}

pub(super) async fn output(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    id: &str,
    node: &str,
    stderr: bool,
) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "application", "octet-stream")?;
    let (Ok(id), Ok(node)) = (JobId::new(id), NodeName::new(node)) else { return Err(Failure::NotFound) };
    let found = api.store.output(&caller.org.id, &id, &node).await.map_err(unreadable)?;
    let output = found.ok_or(Failure::NotFound)?;
    let mut response = Response::new(Body::from(if stderr { output.stderr } else { output.stdout }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// A store that cannot be read now, be it away or damaged, may be readable later.
pub(super) fn unreadable(error: pushy_core::Error) -> Failure {
    tracing::error!("cannot read: {error}");
    Failure::Unavailable("the store cannot be read; try again when it has recovered".into())
}
