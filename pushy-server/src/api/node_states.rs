//! `node_states` and `node_states/NODE` (2.4.7, 2.4.8).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use pushy_core::ids::{NodeName, NodeRef, OrgId};
use pushy_core::server::NodeState;
use serde_json::{Value, json};

use super::auth::Caller;
use super::error::Failure;
use super::negotiate;
use super::{Api, detail, json_response, wants_detail};

pub(super) async fn list(api: &Api, parts: &Parts, caller: Caller) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "application", "json")?;
    if wants_detail(parts) {
        let org = caller.org.id;
        let details = api.driver.look(move |server, _| server.node_details(&org)).await.map_err(stopping)?;
        let list: Vec<Value> = details.iter().map(detail::node).collect();
        return Ok(json_response(StatusCode::OK, Value::from(list).to_string()));
    }
    let org = caller.org.id;
    // Taken first: what changes while the machine is asked makes the next one ask again.
    let views = api.driver.views();
    let body = match api.node_states.find(&org, views) {
        Some(body) => body,
        None => {
            let states = api.driver.node_states(org.clone()).await.map_err(stopping)?;
            api.node_states.keep(org, views, document(&states))
        }
    };
    Ok(json_response(StatusCode::OK, body))
}

fn document(states: &[(NodeName, NodeState)]) -> Bytes {
    let mut text = Vec::with_capacity(2 + 64 * states.len());
    text.push(b'[');
    for (number, (name, state)) in states.iter().enumerate() {
        let separator: &[u8] = if number == 0 { b"" } else { b"," };
        text.extend_from_slice(separator);
        text.extend_from_slice(b"{\"node_name\":");
        text.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
        text.extend_from_slice(b",\"availability\":\"");
        text.extend_from_slice(availability(*state).as_bytes());
        text.extend_from_slice(b"\"}");
    }
    text.push(b']');
    text.into()
}

/// The last answer of each organization, given again until a node's state changes.
#[derive(Debug, Default)]
pub struct NodeStates {
    kept: Mutex<HashMap<OrgId, (u64, Bytes)>>,
}

impl NodeStates {
    fn lock(&self) -> MutexGuard<'_, HashMap<OrgId, (u64, Bytes)>> {
        // Single operations leave nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, org: &OrgId, views: u64) -> Option<Bytes> {
        self.lock().get(org).filter(|(of, _)| *of == views).map(|(_, body)| body.clone())
    }

    fn keep(&self, org: OrgId, views: u64, body: Bytes) -> Bytes {
        self.lock().insert(org, (views, body.clone()));
        body
    }
}

pub(super) async fn get(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    node: &str,
) -> Result<Response<Body>, Failure> {
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "application", "json")?;
    let state = match NodeName::new(node) {
        Ok(name) if wants_detail(parts) => {
            let at = NodeRef { org: caller.org.id, node: name };
            let found = api.driver.look(move |server, _| server.node_detail(&at)).await.map_err(stopping)?;
            return Ok(json_response(StatusCode::OK, detail::node(&found).to_string()));
        }
        Ok(name) => {
            api.driver.node_state(NodeRef { org: caller.org.id, node: name }).await.map_err(stopping)?
        }
        // A name that no node can have is a node that was never seen.
        Err(_) => NodeState { online: false, available: false },
    };
    let status = if state.online { "online" } else { "offline" };
    let body = json!({ "node_name": node, "status": status, "availability": availability(state) });
    Ok(json_response(StatusCode::OK, body.to_string()))
}

pub(super) fn availability(state: NodeState) -> &'static str {
    if state.available { "available" } else { "unavailable" }
}

fn stopping(error: pushy_core::Error) -> Failure {
    Failure::Unavailable(error.message().to_owned())
}
