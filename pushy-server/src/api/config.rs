//! `config/NODE`: what a node is told to be (2.4.2).

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, header};
use pushy_core::ids::{NodeName, NodeRef};
use pushy_core::server::CurveKey;

use super::auth::Caller;
use super::error::Failure;
use super::negotiate;
use super::{Api, json_response, query};
use crate::directory::Kind;
use crate::driver::ConfigRequest;

/// The CURVE key of the query; looked at before the signature, used only after it (D-10).
pub(super) fn requested_key(parts: &Parts) -> Result<CurveKey, Failure> {
    let text = query(parts, "ccpk").ok_or(Failure::MissingKey)?;
    CurveKey::from_z85(&text).map_err(|_| Failure::BadKey)
}

pub(super) async fn get(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    node: &str,
    key: CurveKey,
) -> Result<Response<Body>, Failure> {
    let itself = caller.kind == Kind::Client && caller.name == node;
    match caller.kind {
        Kind::User => caller.may_read(api).await?,
        Kind::Client if itself || !api.validate_client_node_name => {}
        Kind::Client => return Err(Failure::NotItself),
    }
    negotiate::acceptable(&parts.headers, "application", "json")?;
    let name = NodeName::new(node).map_err(|_| Failure::NotFound)?;
    let request = ConfigRequest {
        node: NodeRef { org: caller.org.id, node: name },
        org_name: caller.org.name,
        key,
        public_key: caller.public_key,
        is_node: itself,
        client: client_text(parts),
        address: api.ops.audit.origin(parts).address.map(|address| address.to_string()).unwrap_or_default(),
    };
    let body = api.driver.config(request).await.map_err(|e| Failure::Unavailable(e.message().to_owned()))?;
    Ok(json_response(StatusCode::OK, body))
}

/// What the program at the other end calls itself.
fn client_text(parts: &Parts) -> String {
    let text = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}
