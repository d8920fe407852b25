//! `node_states` and `node_states/NODE` (2.4.7, 2.4.8).

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use pushy_core::ids::{NodeName, NodeRef};
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
    let states = api.driver.node_states(caller.org.id).await.map_err(stopping)?;
    let list: Vec<Value> = states
        .iter()
        .map(|(name, state)| json!({ "node_name": name.as_str(), "availability": availability(*state) }))
        .collect();
    Ok(json_response(StatusCode::OK, Value::from(list).to_string()))
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
