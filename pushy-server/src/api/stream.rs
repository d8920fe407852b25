//! `jobs/ID/stream/NODE/CHANNEL`: what a command prints, while it prints it and afterwards, all of it (decision 37).

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Response, header};
use pushy_core::ids::{JobId, NodeName, NodeRef};
use pushy_core::output::{OutputChannel, Source};

use super::auth::Caller;
use super::error::Failure;
use super::{Api, negotiate, query};
use crate::outputs::Ask;

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) async fn get(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    id: &str,
    node: &str,
    channel: OutputChannel,
) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "application", "octet-stream")?;
    let (Ok(job), Ok(node)) = (JobId::new(id), NodeName::new(node)) else { return Err(Failure::NotFound) };
    let from = match query(parts, "from") {
        None => 0,
        Some(text) => {
            text.parse().map_err(|_| Failure::BadQuery("from: must be a number of bytes".into()))?
        }
    };
    let org = caller.org.id;
    let at = NodeRef { org, node };
    let (node, id) = (at.clone(), job.clone());
    let view = api.driver.look(move |server, _| server.output_view(&node, &id)).await;
    let captured = match view.map_err(|e| Failure::Unavailable(e.message().to_owned()))?.capture {
        Some(capture) => capture,
        None => {
            let found = api.store.job(&at.org, &job).await.map_err(super::jobs::unreadable)?;
            let found = found.ok_or(Failure::NotFound)?;
            found.options.capture && found.nodes.iter().any(|(name, _)| *name == at.node)
        }
    };
    // Without capture nothing is kept anywhere, and there is nothing to wait for.
    if !captured {
        return Err(Failure::NotFound);
    }
    let ask = Ask {
        node: at,
        job,
        channel,
        from,
        follow: query(parts, "follow").as_deref() == Some("1"),
        stored: query(parts, "source").as_deref() == Some(Source::Stored.as_str()),
    };
    let body = api.streams.open(ask, api.driver.clone(), Arc::clone(&api.store)).ok_or_else(|| {
        Failure::Unavailable("too many streams of output; try again, or raise max_output_streams".into())
    })?;
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // nginx in front must not collect what is meant to arrive at once.
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}
