//! Nodes and search in Chef's words, for a server that stands alone: `nodes`, `nodes/NAME`, `search/node`, and what
//! agents publish with `PUT pushy/nodes/NAME` (decision 44).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use pushy_core::node_document::{MAX_DOCUMENT, NodeDocument};
use pushy_core::search::{Page, Query, Sort, select};
use pushy_core::{Error, ErrorCode};
use serde_json::{Map, Value, json};

use super::auth::Caller;
use super::error::Failure;
use super::negotiate;
use super::{Api, json_response, query};
use crate::directory::{Change, Directory, Kind};
use crate::nodes::{Node, Published};

/// Rows of a search that names no number, as Chef Infra Server's.
const ROWS: usize = 1000;
/// A document that says the same is written again after this, so that `ohai_time` stays meaningful.
const REWRITE: Duration = Duration::from_secs(600);
/// Members of a partial search at most.
const MAX_MEMBERS: usize = 1000;

/// `nodes`: names with their addresses.
pub(super) async fn list(api: &Api, parts: &Parts, caller: Caller) -> Result<Response<Body>, Failure> {
    let nodes = nodes(api, parts, &caller).await?;
    Ok(names(&nodes, &base(api, parts, &caller)))
}

/// `environments/NAME/nodes`, which `knife node list -E NAME` asks for.
pub(super) async fn of_environment(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    environment: &str,
) -> Result<Response<Body>, Failure> {
    let mut nodes = nodes(api, parts, &caller).await?;
    nodes.retain(|node| node.merged["chef_environment"] == environment);
    Ok(names(&nodes, &base(api, parts, &caller)))
}

fn names(nodes: &[Arc<Node>], base: &str) -> Response<Body> {
    let list: Map<String, Value> =
        nodes.iter().map(|node| (node.name.clone(), Value::from(url(base, node)))).collect();
    json_response(StatusCode::OK, Value::Object(list).to_string())
}

/// `nodes/NAME`.
pub(super) async fn get(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    name: &str,
) -> Result<Response<Body>, Failure> {
    let directory = readable(api, parts, &caller).await?;
    let node = {
        let directory = directory.read().unwrap_or_else(PoisonError::into_inner);
        directory.org(caller.org.name.as_str()).and_then(|org| org.nodes.get(name)).cloned()
    };
    match node {
        Some(node) => Ok(json_response(StatusCode::OK, node.chef_node.clone())),
        None => Err(Failure::Refused(StatusCode::NOT_FOUND, format!("node '{}' not found", shown(name)))),
    }
}

/// `search`: what can be searched.
pub(super) async fn indexes(api: &Api, parts: &Parts, caller: Caller) -> Result<Response<Body>, Failure> {
    readable(api, parts, &caller).await?;
    let base = base(api, parts, &caller);
    Ok(json_response(StatusCode::OK, json!({ "node": format!("{base}/search/node") }).to_string()))
}

/// `search/INDEX`: whole nodes, or with a body the members that it names.
pub(super) async fn search(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    index: &str,
    filter: Option<&[u8]>,
) -> Result<Response<Body>, Failure> {
    if index != "node" {
        readable(api, parts, &caller).await?;
        let text = format!("I don't know how to search for {} data objects.", shown(index));
        return Err(Failure::Refused(StatusCode::NOT_FOUND, text));
    }
    let nodes = nodes(api, parts, &caller).await?;
    let asked = Asked::read(parts)?;
    let filter = filter.map(Filter::read).transpose()?;
    let base = base(api, parts, &caller);
    // Off the thread that answers everybody else: a large fleet takes milliseconds.
    let work = move || {
        let found = asked.of(&nodes);
        found_json(&found, asked.start, &base, filter.as_ref())
    };
    let body =
        tokio::task::spawn_blocking(work).await.map_err(|e| Failure::Internal(format!("search: {e}")))?;
    Ok(json_response(StatusCode::OK, body))
}

/// `PUT pushy/nodes/NAME`: the node itself says what it is.
pub(super) async fn publish(
    api: &Api,
    parts: &Parts,
    caller: Caller,
    name: &str,
    body: &[u8],
) -> Result<Response<Body>, Failure> {
    let directory = api.principals.directory().ok_or_else(chef_has_them)?;
    if caller.kind != Kind::Client || caller.name != name {
        return Err(Failure::NotItself);
    }
    negotiate::acceptable(&parts.headers, "application", "json")?;
    negotiate::is_json(&parts.headers)?;
    NodeDocument::from_json(body, name).map_err(|e| match e.code() {
        ErrorCode::TooLarge => Failure::Refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("JSON must be no more than {MAX_DOCUMENT} bytes."),
        ),
        _ => Failure::Refused(StatusCode::BAD_REQUEST, e.message().to_owned()),
    })?;
    // Reading it as JSON has shown that it is UTF-8.
    let text: Arc<str> = String::from_utf8_lossy(body).into();
    let published = Published { text, at: crate::clock::wall() };
    let (known, turn) = {
        let directory = directory.read().unwrap_or_else(PoisonError::into_inner);
        let org = directory.org(caller.org.name.as_str());
        let known = org.and_then(|org| org.nodes.get(name)).and_then(|node| node.published.clone());
        (known, directory.turn())
    };
    let same = known.is_some_and(|old| {
        old.text == published.text && published.at.0 - old.at.0 < REWRITE.as_micros() as i64
    });
    if !same {
        let (store, directory) = (Arc::clone(&api.store), Arc::clone(directory));
        let (org, node) = (caller.org.name.clone(), name.to_owned());
        // Stored and applied, or neither, whether or not the node waits for the answer.
        let change = async move {
            let _turn = turn.lock_owned().await;
            tracing::debug!(?node, org = org.as_str(), "publishes what it is");
            let change = Change::PublishNode { org, node, document: published };
            store.change_directory(vec![change.clone()]).await?;
            directory.write().unwrap_or_else(PoisonError::into_inner).apply(change);
            Ok::<_, Error>(())
        };
        let changed = tokio::spawn(change).await.map_err(|e| Failure::Internal(format!("publish: {e}")))?;
        changed.map_err(|e| Failure::Internal(e.message().to_owned()))?;
    }
    let uri = format!("{}/nodes/{name}", base(api, parts, &caller));
    Ok(json_response(StatusCode::OK, json!({ "uri": uri }).to_string()))
}

/// Where the nodes are, for somebody who may read them.
async fn readable<'a>(
    api: &'a Api,
    parts: &Parts,
    caller: &Caller,
) -> Result<&'a RwLock<Directory>, Failure> {
    let directory = api.principals.directory().ok_or_else(chef_has_them)?;
    caller.may_read(api).await?;
    negotiate::acceptable(&parts.headers, "application", "json")?;
    Ok(directory)
}

/// The organization's nodes, for somebody who may read.
async fn nodes(api: &Api, parts: &Parts, caller: &Caller) -> Result<Vec<Arc<Node>>, Failure> {
    let directory = readable(api, parts, caller).await?;
    let directory = directory.read().unwrap_or_else(PoisonError::into_inner);
    Ok(directory.org(caller.org.name.as_str()).map(|org| org.nodes.all()).unwrap_or_default())
}

fn chef_has_them() -> Failure {
    let text = "this push server keeps no nodes and no search: it works with a Chef server, which has them";
    Failure::Refused(StatusCode::NOT_FOUND, text.into())
}

fn base(api: &Api, parts: &Parts, caller: &Caller) -> String {
    let base = negotiate::base_uri(&parts.headers, api.scheme, &api.authority);
    format!("{base}/organizations/{}", caller.org.name)
}

fn url(base: &str, node: &Node) -> String {
    format!("{base}/nodes/{}", node.name)
}

/// A name from a path, fit for an answer.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(255).collect()
}

/// The parameters of a search.
struct Asked {
    query: Query,
    sort: Option<Sort>,
    start: usize,
    rows: usize,
}

impl Asked {
    fn read(parts: &Parts) -> Result<Asked, Failure> {
        let bad = |text: String| Failure::Refused(StatusCode::BAD_REQUEST, text);
        let text = query(parts, "q").unwrap_or_else(|| "*:*".to_owned());
        let number = |name: &str, default: usize| match query(parts, name) {
            None => Ok(default),
            Some(text) if text.is_empty() => Ok(default),
            Some(text) => {
                text.parse().map_err(|_| bad(format!("invalid '{name}' value: '{}'", shown(&text))))
            }
        };
        Ok(Asked {
            query: Query::parse(&text)
                .map_err(|e| bad(format!("invalid search query: '{}': {e}", shown(&text))))?,
            sort: query(parts, "sort").and_then(|text| Sort::parse(&text)),
            start: number("start", 0)?,
            rows: number("rows", ROWS)?,
        })
    }

    fn of(&self, nodes: &[Arc<Node>]) -> Page<Arc<Node>> {
        let nodes = nodes.iter().map(|node| (node, &node.document));
        let page = select(nodes, &self.query, self.sort.as_ref(), self.start, self.rows);
        Page { total: page.total, rows: page.rows.into_iter().cloned().collect() }
    }
}

/// The body of a partial search: names in the answer, each with the path to its value.
#[derive(Debug)]
struct Filter(Vec<(String, Vec<String>)>);

impl Filter {
    fn read(body: &[u8]) -> Result<Filter, Failure> {
        let bad = || {
            let text = "invalid partial search request: the body must be a hash of names and paths, {\"ip\": [\"ipaddress\"]}";
            Failure::Refused(StatusCode::BAD_REQUEST, text.into())
        };
        let members: Map<String, Value> = serde_json::from_slice(body).map_err(|_| bad())?;
        if members.len() > MAX_MEMBERS {
            return Err(bad());
        }
        let path = |(name, path): (String, Value)| {
            let path =
                path.as_array()?.iter().map(|part| Some(part.as_str()?.to_owned())).collect::<Option<_>>()?;
            Some((name, path))
        };
        members.into_iter().map(path).collect::<Option<_>>().map(Filter).ok_or_else(bad)
    }

    fn of(&self, node: &Node) -> Value {
        let value = |path: &[String]| {
            let found = path.iter().try_fold(&node.merged, |value, part| value.get(part));
            if path.is_empty() { Value::Null } else { found.cloned().unwrap_or_default() }
        };
        self.0.iter().map(|(name, path)| (name.clone(), value(path))).collect::<Map<_, _>>().into()
    }
}

fn found_json(found: &Page<Arc<Node>>, start: usize, base: &str, filter: Option<&Filter>) -> String {
    let mut body = format!("{{\"total\":{},\"start\":{start},\"rows\":[", found.total);
    for (index, node) in found.rows.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        match filter {
            None => body.push_str(&node.chef_node),
            Some(filter) => {
                body.push_str(&json!({ "url": url(base, node), "data": filter.of(node) }).to_string())
            }
        }
    }
    body.push_str("]}");
    body
}
