//! `pushy job cancel`.

use pushy_core::api;
use pushy_core::watch::Exit;
use serde_json::json;

use crate::args::{Cancel, Global};
use crate::config::Config;
use crate::job::job_id;
use crate::ui::Ui;
use crate::{Outcome, names};

/// So many names are said, more are counted.
const NAMED: usize = 10;

pub(crate) async fn cancel(global: &Global, args: &Cancel, ui: &Ui) -> Outcome {
    let id = job_id(&args.id)?;
    // A file without names is a mistake, not the whole job.
    let nodes = match args.nodes.is_empty() {
        true => None,
        false => Some(api::node_names(names::expand(&args.nodes)?)?),
    };
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let cancelled = config.client()?.cancel_job(&id, nodes.as_deref()).await?;
    if ui.is_document() {
        ui.document(&json!({ "id": id.as_str(), "nodes": cancelled.nodes }));
    } else {
        ui.line(&match cancelled.nodes.len() {
            0 => "There was nothing left to cancel.".to_owned(),
            1..=NAMED => format!("Cancelled on {}.", cancelled.nodes.join(", ")),
            count => format!("Cancelled on {count} nodes."),
        });
    }
    Ok(Exit::Success)
}
