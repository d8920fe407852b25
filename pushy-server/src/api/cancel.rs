//! `POST jobs/ID/cancel`: an operator gives a job up, or some of its nodes.

use std::collections::HashSet;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::JobStatus;
use pushy_core::server::CancelAnswer;
use serde_json::Value;

use super::auth::Caller;
use super::error::Failure;
use super::jobs::unreadable;
use super::negotiate;
use super::{Api, json_response};

pub(super) async fn post(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    id: &str,
    body: &[u8],
) -> Result<Response<Body>, Failure> {
    let mut about = serde_json::json!({ "job": id });
    if let Err(failure) = caller.may_write(api).await {
        if matches!(failure, Failure::Auth(_)) {
            caller.audit(api, parts, "cancel_denied", about);
        }
        return Err(failure);
    }
    negotiate::acceptable(&parts.headers, "application", "json")?;
    let nodes = if body.is_empty() {
        Vec::new()
    } else {
        negotiate::is_json(&parts.headers)?;
        nodes(body).map_err(|why| Failure::Told(StatusCode::BAD_REQUEST, why))?
    };
    let id = JobId::new(id).map_err(|_| Failure::NotFound)?;
    let cancelled = cancel(api, &caller, &id, nodes).await?;
    let names: Vec<&str> = cancelled.iter().map(NodeName::as_str).collect();
    about["nodes"] = names.len().into();
    if !names.is_empty() {
        caller.audit(api, parts, "job_cancelled", about);
        let (org, user) = (caller.org.name.as_str(), &caller.name);
        tracing::info!(job = id.as_str(), org, ?user, nodes = names.len(), "job cancelled");
    }
    let answer = serde_json::json!({ "id": id.as_str(), "nodes": names });
    Ok(json_response(StatusCode::ACCEPTED, answer.to_string()))
}

async fn cancel(
    api: &Api,
    caller: &Caller,
    id: &JobId,
    nodes: Vec<NodeName>,
) -> Result<Vec<NodeName>, Failure> {
    let ended = |status: JobStatus| match status {
        JobStatus::Aborted => Ok(Vec::new()),
        status => Err(Failure::Told(StatusCode::CONFLICT, format!("the job has ended: {status}"))),
    };
    // The machine forgets a job soon after its end: what it does not know has ended meanwhile, or is nowhere.
    for _ in 0..2 {
        let found = api.store.job(&caller.org.id, id).await.map_err(unreadable)?;
        let job = found.ok_or(Failure::NotFound)?;
        let members: HashSet<&NodeName> = job.nodes.iter().map(|(name, _)| name).collect();
        if let Some(stranger) = nodes.iter().find(|name| !members.contains(name)) {
            return Err(not_of_job(stranger));
        }
        if job.status.is_terminal() {
            return ended(job.status);
        }
        let by = caller.name.clone();
        let answer = api.driver.cancel_job(caller.org.id.clone(), id.clone(), nodes.clone(), by).await;
        match answer.map_err(|e| Failure::Unavailable(e.message().to_owned()))? {
            CancelAnswer::Cancelled(nodes) => return Ok(nodes),
            CancelAnswer::Ended(status) => return ended(status),
            CancelAnswer::NotOfJob(name) => return Err(not_of_job(&name)),
            CancelAnswer::Unknown => {}
        }
    }
    Err(Failure::Unavailable("the job is neither running nor stored as ended; try again".into()))
}

fn not_of_job(name: &NodeName) -> Failure {
    Failure::Told(StatusCode::BAD_REQUEST, format!("the job has no node {:?}", name.as_str()))
}

/// Which nodes are meant; none: all of them.
fn nodes(body: &[u8]) -> Result<Vec<NodeName>, String> {
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err("invalid JSON supplied (expected an object)".into());
    };
    if members.keys().any(|name| name != "nodes") {
        return Err("invalid key supplied (there is only nodes)".into());
    }
    let Some(names) = members.get("nodes") else { return Ok(Vec::new()) };
    let names = names.as_array().filter(|names| !names.is_empty());
    let names =
        names.ok_or("invalid nodes supplied (expected a list of at least one name; leave it out for all)")?;
    let name = |value: &Value| NodeName::new(value.as_str()?).ok();
    names.iter().map(|value| name(value).ok_or_else(|| "invalid node name supplied".into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let check = |body: &str, expected: Result<&[&str], &str>| {
            let found = nodes(body.as_bytes());
            let found = found.map(|names| names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{body}"),
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{body}: {found}"),
                (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
            }
        };
        check("{}", Ok(&[]));
        check(r#"{"nodes":["a","b"]}"#, Ok(&["a", "b"]));
        for bad in ["", "[]", "null", "{", r#""a""#] {
            check(bad, Err("invalid JSON"));
        }
        check(r#"{"node":["a"]}"#, Err("invalid key"));
        for bad in [r#"{"nodes":[]}"#, r#"{"nodes":"a"}"#, r#"{"nodes":null}"#] {
            check(bad, Err("invalid nodes"));
        }
        check(r#"{"nodes":[1]}"#, Err("invalid node name"));
        check(r#"{"nodes":[""]}"#, Err("invalid node name"));
    }
}
