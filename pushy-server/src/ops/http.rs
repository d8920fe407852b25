//! `/healthz`, `/readyz` and `/metrics`. The first two are answered on the REST port as well: they tell nobody more
//! than a request that is refused would. Metrics are served on an address of their own, to whoever reaches it.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::text::{self, Seen};
use super::{Ops, database_bytes};
use crate::driver::Handle;
use crate::feeds::Hub;

/// A machine that does not answer within this is not alive.
const ALIVE: Duration = Duration::from_secs(5);

/// What the pages are made of.
pub(crate) struct Source {
    pub(crate) ops: Arc<Ops>,
    pub(crate) driver: Handle,
    pub(crate) feeds: Arc<Hub>,
    /// Where the database is, if it is a file.
    pub(crate) database: Option<std::path::PathBuf>,
}

fn document(ok: bool, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    if !ok {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the process does its work at all.
pub(crate) async fn healthz(driver: &Handle) -> Response<Body> {
    let alive = matches!(tokio::time::timeout(ALIVE, driver.look(|_, _| ())).await, Ok(Ok(())));
    document(alive, &json!({ "status": if alive { "alive" } else { "stuck" } }))
}

/// Whether requests should come here, and why not.
pub(crate) fn readyz(ops: &Ops) -> Response<Body> {
    let reasons = ops.health.reasons();
    match reasons.is_empty() {
        true => document(true, &json!({ "status": "ready" })),
        false => document(false, &json!({ "status": "not ready", "reasons": reasons })),
    }
}

async fn metrics(source: &Source) -> Response<Body> {
    let look = source
        .driver
        .look(|server, broker| (server.node_counts(), server.unfinished_jobs(), broker.traffic()));
    let Ok((nodes, jobs, traffic)) = look.await else {
        return document(false, &json!({ "error": ["the server is stopping"] }));
    };
    let store_bytes = source.database.as_deref().map(database_bytes);
    let seen = Seen { nodes, jobs, traffic, listeners: source.feeds.listeners(), store_bytes };
    let mut response = Response::new(Body::from(text::page(&source.ops, &seen)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
    response
}

async fn answer(State(source): State<Arc<Source>>, request: Request) -> Response<Body> {
    if request.method() != Method::GET {
        let mut response = document(false, &json!({ "error": ["method not allowed"] }));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => metrics(&source).await,
        "/healthz" => healthz(&source.driver).await,
        "/readyz" => readyz(&source.ops),
        _ => {
            let mut response = document(false, &json!({ "error": ["not found"] }));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

/// Serves the pages until dropped.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve(listener: TcpListener, source: Arc<Source>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let service = Router::new().fallback(answer).with_state(source).into_make_service();
    let mut server = axum_server::from_tcp(listener)?;
    let timer = hyper_util::rt::TokioTimer::new();
    server.http_builder().http1().timer(timer).header_read_timeout(Some(crate::IDLE_REST));
    server.http1_only().serve(service).await
}
