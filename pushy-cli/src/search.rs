//! `pushy search`, `pushy node list` and `pushy node show`, in knife's words.

use pushy_core::api::{FindNodes, GetNode, ListNodes, fuzzy_query, node_attribute, node_summary};
use pushy_core::client::Client;
use pushy_core::ids::NodeName;
use pushy_core::search::merged;
use pushy_core::watch::Exit;
use pushy_core::{Error, ErrorCode, Result};
use serde_json::{Map, Value, json};

use crate::args::{Global, Search, Show};
use crate::config::Config;
use crate::ui::Ui;
use crate::{Outcome, Stop};

/// Nodes in one answer; more are asked for page by page.
const PAGE: u32 = 1000;

pub(crate) async fn list(global: &Global, ui: &Ui) -> Outcome {
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let names = config.client()?.call(&ListNodes).await.map_err(not_here)?;
    if ui.is_document() {
        ui.document(&Value::from(names));
    } else {
        ui.raw(names.iter().map(|name| format!("{name}\n")).collect::<String>().as_bytes());
    }
    Ok(Exit::Success)
}

pub(crate) async fn show(global: &Global, args: &Show, ui: &Ui) -> Outcome {
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let name = NodeName::new(&args.node).map_err(|e| e.context(format!("{:?}", args.node)))?;
    let node = config.client()?.call(&GetNode(&name)).await?;
    if !args.attributes.is_empty() {
        ui.document(&attributes(&node, &args.attributes));
    } else if args.long {
        ui.document(&merged(&node));
    } else if ui.is_document() {
        ui.document(&node);
    } else {
        ui.raw(summary(&node).as_bytes());
    }
    Ok(Exit::Success)
}

pub(crate) async fn search(global: &Global, args: &Search, ui: &Ui) -> Outcome {
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let nodes = find(&config.client()?, args).await?;
    let rows = nodes.iter().map(|node| match args.attributes.is_empty() {
        true if args.id_only => json!({ "id": name(node) }),
        true => node.clone(),
        false => attributes(node, &args.attributes),
    });
    if ui.is_document() {
        ui.document(&json!({ "results": nodes.len(), "rows": rows.collect::<Vec<_>>() }));
    } else {
        ui.line(&format!("{} items found\n", nodes.len()));
        for (node, row) in nodes.iter().zip(rows) {
            if args.id_only {
                ui.line(name(node));
                continue;
            }
            if args.attributes.is_empty() {
                ui.raw(summary(node).as_bytes());
            } else {
                ui.document(&row);
            }
            ui.line("");
        }
    }
    // As with grep: nothing found is told by the status.
    if nodes.is_empty() { Err(Stop::Exit(Exit::Usage)) } else { Ok(Exit::Success) }
}

async fn find(client: &Client, args: &Search) -> Result<Vec<Value>> {
    let query = fuzzy_query(&args.query);
    let mut nodes: Vec<Value> = Vec::new();
    loop {
        let wanted = args.rows.map_or(PAGE, |rows| (rows - nodes.len() as u32).min(PAGE));
        let start = args.start + nodes.len() as u64;
        let page = client.call(&FindNodes { query: &query, start, rows: wanted }).await.map_err(not_here)?;
        let count = page.nodes.len() as u64;
        nodes.extend(page.nodes);
        let enough = args.rows.is_some_and(|rows| nodes.len() as u64 >= u64::from(rows));
        if enough || count == 0 || start + count >= page.total {
            return Ok(nodes);
        }
    }
}

fn not_here(error: Error) -> Error {
    match error.code() {
        ErrorCode::NotFound => error.context("this server has no nodes to search"),
        _ => error,
    }
}

fn name(node: &Value) -> &str {
    node.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The node's name with the attributes that were asked for.
fn attributes(node: &Value, wanted: &[String]) -> Value {
    let merged = merged(node);
    let found: Map<String, Value> =
        wanted.iter().map(|path| (path.clone(), node_attribute(&merged, path))).collect();
    json!({ name(node): found })
}

fn summary(node: &Value) -> String {
    let lines = node_summary(node).into_iter().map(|(label, text)| {
        let label = format!("{label}:");
        format!("{}\n", format!("{label:<12} {text}").trim_end())
    });
    lines.collect()
}
