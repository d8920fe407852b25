//! `jobs`, `jobs/ID` and a job's output (2.4.3 to 2.4.6).

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use pushy_core::ErrorCode;
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::JobRequest;

use super::auth::Caller;
use super::error::Failure;
use super::negotiate;
use super::{Api, json_response, query, wants_detail};

/// What a list shows in place of a value of `env` (decision 43).
const MASK: &str = "***";

pub(super) fn parse(body: &[u8]) -> Result<JobRequest, Failure> {
    JobRequest::from_json(body).map_err(Failure::InvalidJob)
}

pub(super) async fn post(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    job: JobRequest,
) -> Result<Response<Body>, Failure> {
    caller.may_write(api).await?;
    negotiate::acceptable(&parts.headers, "application", "json")?;
    negotiate::is_json(&parts.headers)?;
    let Caller { org, name, .. } = caller;
    // Options are secrets (decision 43); who asked for what on how many nodes is not.
    let (command, nodes) = (job.command.clone(), job.nodes.len());
    let id = api.driver.start_job(org.id, name.clone(), job).await.map_err(|e| match e.code() {
        ErrorCode::Internal => Failure::Internal(e.message().to_owned()),
        _ => Failure::Unavailable(e.message().to_owned()),
    })?;
    tracing::info!(job = id.as_str(), org = org.name.as_str(), user = ?name, ?command, nodes, "job started");
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
    let mut jobs = api.store.jobs(&caller.org.id).await.map_err(unreadable)?;
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

fn unreadable(error: pushy_core::Error) -> Failure {
    Failure::Internal(error.message().to_owned())
}
