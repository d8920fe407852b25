//! `pushy node status` (10.4).

use pushy_core::api::{NodeState, node_names};
use pushy_core::client::Client;
use pushy_core::watch::Exit;
use pushy_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::{Global, NodeStatus};
use crate::config::Config;
use crate::names;
use crate::ui::Ui;

/// From so many names on, one list costs less than a look-up each.
const LIST_FROM: usize = 5;

pub(crate) async fn status(global: &Global, args: &NodeStatus, ui: &Ui) -> Outcome {
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let client = config.client()?;
    let states = if args.nodes.is_empty() {
        client.node_states().await?
    } else {
        let wanted = wanted(&client, &names::expand(&args.nodes)?).await?;
        states_of(&client, &wanted).await?
    };
    if ui.is_document() {
        let document = states
            .iter()
            .map(|state| json!({"node_name": state.node_name, "availability": state.availability}))
            .collect();
        ui.document(&Value::Array(document));
    } else {
        let lines: String =
            states.iter().map(|state| format!("{}\t{}\n", state.node_name, state.availability)).collect();
        ui.raw(lines.as_bytes());
    }
    Ok(Exit::Success)
}

/// Names as they are, queries (which have a colon) by what they find (D-75).
async fn wanted(client: &Client, arguments: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for argument in arguments {
        if argument.contains(':') {
            names.extend(search(client, argument).await?);
        } else {
            names.push(argument.clone());
        }
    }
    Ok(names)
}

/// Names of the nodes that a query finds.
pub(crate) async fn search(client: &Client, query: &str) -> Result<Vec<String>> {
    client.search_nodes(query).await.map_err(|error| match error.code() {
        ErrorCode::NotFound => Error::new(
            ErrorCode::NotFound,
            "this server has no node search; name the nodes, or list them in a file and give @FILE",
        ),
        _ => error.context("search"),
    })
}

async fn states_of(client: &Client, names: &[String]) -> Result<Vec<NodeState>> {
    let nodes = node_names(names)?;
    let mut states = Vec::with_capacity(nodes.len());
    if nodes.len() < LIST_FROM {
        for node in &nodes {
            states.push(client.node_state(node).await?);
        }
        return Ok(states);
    }
    let known = client.node_states().await?;
    for node in &nodes {
        let found = known.binary_search_by(|state| state.node_name.as_str().cmp(node.as_str()));
        states.push(match found {
            Ok(at) => known[at].clone(),
            Err(_) => NodeState {
                node_name: node.as_str().to_owned(),
                availability: "unavailable".to_owned(),
                status: Some("offline".to_owned()),
            },
        });
    }
    Ok(states)
}
