//! `/pushy/_status`: whether the server is there (2.4.1).

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use pushy_core::ids::{JobId, OrgId};
use serde_json::json;

use super::error::Failure;
use super::negotiate;
use super::{Api, auth, json_response};

/// Anyone may ask; job ids are shown only to a user, and only those of the user's organizations (D-08, decision 45).
pub(super) async fn get(api: &Api, parts: &Parts, body: Body) -> Result<Response<Body>, Failure> {
    negotiate::acceptable(&parts.headers, "application", "json")?;
    let body = super::read_body(body).await?;
    let counts = api.driver.counts().await.map_err(|e| Failure::Unavailable(e.message().to_owned()))?;
    // A job's id begins with the end of its organization's (2.2).
    let of = |org: &OrgId, id: &JobId| org.as_str().get(20..) == id.as_str().get(..12);
    let wanted = |org: &OrgId| counts.1.iter().any(|id| of(org, id));
    let orgs = auth::organizations_of_user(api, parts, &body, wanted).await;
    let visible = |id: &&JobId| orgs.iter().any(|org| of(org, id));
    let ids: Vec<&str> = counts.1.iter().filter(visible).map(JobId::as_str).collect();
    let document = json!({
        "status": "it's alive",
        "incarnation_id": api.incarnation,
        "node_fsm_count": counts.0,
        "job_processes": ids,
    });
    Ok(json_response(StatusCode::OK, document.to_string()))
}
