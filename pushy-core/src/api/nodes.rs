//! Chef's part of the API: nodes and their search, and what a node says of itself (decision 44).

use std::borrow::Cow;

use serde_json::Value;

use super::{Call, Method, Request, bad_answer, escape_query, escape_segment, json};
use crate::error::Result;
use crate::ids::NodeName;
use crate::node_document::NodeDocument;
use crate::search::merged;

/// `PUT pushy/nodes/NAME`: a node says what it is.
#[derive(Debug, Clone, Copy)]
pub struct PublishNode<'a> {
    /// Which node.
    pub node: &'a NodeName,
    /// What it says.
    pub document: &'a NodeDocument,
}

impl Call for PublishNode<'_> {
    type Answer = ();

    fn request(&self) -> Request {
        Request {
            method: Method::Put,
            body: self.document.to_json(self.node.as_str()).into_bytes(),
            ..Request::get(format!("pushy/nodes/{}", escape_segment(self.node.as_str())))
        }
    }

    fn answer(&self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// `GET nodes`: the names of the organization's nodes, sorted.
#[derive(Debug, Clone, Copy)]
pub struct ListNodes;

impl Call for ListNodes {
    type Answer = Vec<String>;

    fn request(&self) -> Request {
        Request::get("nodes".to_owned())
    }

    fn answer(&self, body: &[u8]) -> Result<Vec<String>> {
        let Value::Object(nodes) = json(body)? else { return Err(bad_answer("no list of nodes".to_owned())) };
        let mut names: Vec<String> = nodes.into_iter().map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }
}

/// `GET nodes/NAME`: a node as Chef has it.
#[derive(Debug, Clone, Copy)]
pub struct GetNode<'a>(pub &'a NodeName);

impl Call for GetNode<'_> {
    type Answer = Value;

    fn request(&self) -> Request {
        Request::get(format!("nodes/{}", escape_segment(self.0.as_str())))
    }

    fn answer(&self, body: &[u8]) -> Result<Value> {
        json(body)
    }
}

/// One page of a node search, `GET search/node`, with the nodes as Chef has them.
#[derive(Debug, Clone, Copy)]
pub struct FindNodes<'a> {
    /// The query.
    pub query: &'a str,
    /// First row wanted.
    pub start: u64,
    /// Rows wanted.
    pub rows: u32,
}

/// One page of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct NodesPage {
    /// Matches in all.
    pub total: u64,
    /// The nodes of this page.
    pub nodes: Vec<Value>,
}

impl Call for FindNodes<'_> {
    type Answer = NodesPage;

    fn request(&self) -> Request {
        let mut request = Request::get("search/node".to_owned());
        request.query = format!("q={}&start={}&rows={}", escape_query(self.query), self.start, self.rows);
        request
    }

    fn answer(&self, body: &[u8]) -> Result<NodesPage> {
        let mut document = json(body)?;
        let total = document.get("total").and_then(Value::as_u64).unwrap_or(0);
        match document.get_mut("rows").map(Value::take) {
            Some(Value::Array(nodes)) => Ok(NodesPage { total, nodes }),
            _ => Err(bad_answer("a search without `rows`".to_owned())),
        }
    }
}

/// What knife makes of a query that names no field, a part of a tag, a role or a full host name; and of the node's name.
pub fn fuzzy_query(text: &str) -> Cow<'_, str> {
    if text.contains(':') {
        return Cow::Borrowed(text);
    }
    let fields = ["name", "tags", "roles", "fqdn", "addresses", "policy_name", "policy_group"];
    Cow::Owned(fields.map(|field| format!("{field}:*{text}*")).join(" OR "))
}

/// What knife shows of a node at first sight: labels and texts, in its order.
pub fn node_summary(node: &Value) -> Vec<(&'static str, String)> {
    let merged = merged(node);
    let text = |name: &str| match merged.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(elements)) => {
            elements.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    };
    let platform = format!("{} {}", text("platform"), text("platform_version")).trim().to_owned();
    vec![
        ("Node Name", text("name")),
        ("Environment", text("chef_environment")),
        ("FQDN", text("fqdn")),
        ("IP", text("ipaddress")),
        ("Run List", text("run_list")),
        ("Roles", text("roles")),
        ("Platform", platform),
        ("Tags", text("tags")),
    ]
}

/// The value of a node at a path like `push_jobs.whitelist`, all levels of attributes in one; `null` when there is none.
pub fn node_attribute(merged: &Value, path: &str) -> Value {
    path.split('.').try_fold(merged, |value, part| value.get(part)).cloned().unwrap_or_default()
}
