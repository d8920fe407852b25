//! `pushy job output`, and output while a job runs. Data goes to standard output or, what a command wrote to its standard
//! error, to ours; everything else to standard error.

use std::time::{Duration, Instant};

use pushy_core::api;
use pushy_core::client::{Client, OutputEnd, OutputEvent, OutputPiece, OutputStreams};
use pushy_core::ids::{JobId, NodeName};
use pushy_core::output::OutputChannel;
use pushy_core::watch::Exit;
use pushy_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::args::{Global, Output};
use crate::config::Config;
use crate::job::job_id;
use crate::ui::Ui;
use crate::{Outcome, Stop, names};

pub(crate) async fn output(global: &Global, args: &Output, ui: &Ui) -> Outcome {
    let channel = OutputChannel::parse(&args.channel)?;
    let id = job_id(&args.id)?;
    let named = if args.all_nodes { Vec::new() } else { api::node_names(names::expand(&args.nodes)?)? };
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let client = config.client()?;
    let nodes = if args.all_nodes { client.job(&id).await?.nodes_with_output(args.follow) } else { named };
    if nodes.is_empty() {
        ui.error("The job ran on no node.");
        return Err(Stop::Exit(Exit::Usage));
    }
    if ui.is_document() {
        return documents(&client, &id, &nodes, channel, args.follow, ui).await;
    }
    if args.follow {
        return show(client.stream_outputs(&id, &nodes, channel, true), ui).await;
    }
    let mut exit = Exit::Success;
    for node in &nodes {
        if one(&client, &id, node, channel, nodes.len() > 1, ui).await? != Exit::Success {
            exit = Exit::Http;
        }
    }
    Ok(exit)
}

/// Shows output as it comes, until all of it has ended.
pub(crate) async fn show(mut streams: OutputStreams, ui: &Ui) -> Outcome {
    let mut exit = Exit::Success;
    loop {
        match streams.next().await {
            OutputEvent::Over => return Ok(exit),
            event => {
                if !shown(event, ui) {
                    exit = Exit::Http;
                }
            }
        }
    }
}

/// Shows one thing; false: something is missing.
pub(crate) fn shown(event: OutputEvent, ui: &Ui) -> bool {
    match event {
        OutputEvent::Bytes { stderr: false, bytes } => ui.raw(&bytes),
        OutputEvent::Bytes { stderr: true, bytes } => ui.raw_aside(&bytes),
        OutputEvent::Notice(text) => ui.warn(&text),
        OutputEvent::Failed(error) => {
            ui.error(error.message());
            return false;
        }
        OutputEvent::Over => {}
    }
    true
}

/// Output beside the wait for its job.
pub(crate) struct Live {
    streams: OutputStreams,
    over: bool,
    /// The last line on standard output has no end.
    open_line: bool,
}

/// After the end of a job, the rest of its output may take so long to come.
const REST: Duration = Duration::from_secs(30);

impl Live {
    pub(crate) fn new(streams: OutputStreams) -> Live {
        Live { streams, over: false, open_line: false }
    }

    /// Never comes when all of it has come.
    pub(crate) async fn next(&mut self) -> OutputEvent {
        if self.over {
            return std::future::pending().await;
        }
        self.streams.next().await
    }

    pub(crate) fn show(&mut self, event: OutputEvent, ui: &Ui) {
        match event {
            OutputEvent::Over => self.over = true,
            OutputEvent::Bytes { stderr: false, ref bytes } => {
                self.open_line = !bytes.ends_with(b"\n");
                shown(event, ui);
            }
            event => {
                shown(event, ui);
            }
        }
    }

    /// A line about the job.
    pub(crate) fn line(&self, text: &str, ui: &Ui) {
        ui.aside(text);
    }

    /// The job has ended: what is still on its way.
    pub(crate) async fn finish(&mut self, ui: &Ui) {
        let end = Instant::now() + REST;
        while !self.over {
            let event = tokio::select! {
                biased;
                event = self.streams.next() => event,
                () = tokio::time::sleep_until(end.into()) => {
                    ui.warn("the output is not complete; see `pushy job output`");
                    OutputEvent::Over
                }
                _ = tokio::signal::ctrl_c() => OutputEvent::Over,
            };
            self.show(event, ui);
        }
        if self.open_line {
            ui.raw(b"\n");
        }
    }
}

/// All that a node has, exactly; under a line with its name when there are several.
async fn one(
    client: &Client,
    id: &JobId,
    node: &NodeName,
    channel: OutputChannel,
    several: bool,
    ui: &Ui,
) -> Outcome {
    let mut stream = client.stream_output(id, node, channel, false);
    let (mut begun, mut at_margin) = (false, true);
    loop {
        let piece = match stream.next().await {
            Ok(piece) => piece,
            Err(error) if error.code() == ErrorCode::NotFound => {
                ui.error(&nothing(node, channel, &error));
                return Ok(Exit::Http);
            }
            Err(error) => return Err(error.context(node).into()),
        };
        if several && !std::mem::replace(&mut begun, true) {
            ui.raw(format!("==> {node} <==\n").as_bytes());
        }
        match piece {
            OutputPiece::Bytes { stderr: false, bytes } => {
                at_margin = bytes.ends_with(b"\n");
                ui.raw(&bytes);
            }
            OutputPiece::Bytes { stderr: true, bytes } if channel == OutputChannel::Both => {
                ui.raw_aside(&bytes)
            }
            OutputPiece::Bytes { bytes, .. } => {
                at_margin = bytes.ends_with(b"\n");
                ui.raw(&bytes);
            }
            OutputPiece::End(end) => {
                // Keeps the next name at the margin; a single output is left as it is (D-76).
                if several && !at_margin {
                    ui.raw(b"\n");
                }
                if let Some(text) = gap(node, end) {
                    ui.warn(&text);
                }
                return Ok(Exit::Success);
            }
        }
    }
}

/// One document for each node, when all of it is there.
async fn documents(
    client: &Client,
    id: &JobId,
    nodes: &[NodeName],
    channel: OutputChannel,
    follow: bool,
    ui: &Ui,
) -> Outcome {
    let mut exit = Exit::Success;
    let mut documents = Vec::new();
    for node in nodes {
        match whole(client, id, node, channel, follow).await {
            Ok((sides, end)) => {
                if let Some(text) = gap(node, end) {
                    ui.warn(&text);
                }
                let [out, err] = sides.map(|side| String::from_utf8_lossy(&side).into_owned());
                let mut document = json!({ "node_name": node.as_str(), "channel": channel.as_str() });
                match channel {
                    OutputChannel::Stdout => document["output"] = out.into(),
                    OutputChannel::Stderr => document["output"] = err.into(),
                    OutputChannel::Both => {
                        document["stdout"] = out.into();
                        document["stderr"] = err.into();
                    }
                }
                documents.push(document);
            }
            Err(error) if error.code() == ErrorCode::NotFound => {
                ui.error(&nothing(node, channel, &error));
                exit = Exit::Http;
            }
            Err(error) => return Err(error.context(node).into()),
        }
    }
    ui.document(&Value::Array(documents));
    Ok(exit)
}

async fn whole(
    client: &Client,
    id: &JobId,
    node: &NodeName,
    channel: OutputChannel,
    follow: bool,
) -> Result<([Vec<u8>; 2], OutputEnd)> {
    let mut stream = client.stream_output(id, node, channel, follow);
    let mut sides = [Vec::new(), Vec::new()];
    loop {
        match stream.next().await? {
            OutputPiece::Bytes { stderr, bytes } => sides[usize::from(stderr)].extend(bytes),
            OutputPiece::End(end) => return Ok((sides, end)),
        }
    }
}

/// What is missing of an output, for people.
fn gap(node: &NodeName, end: OutputEnd) -> Option<String> {
    (end.lost > 0).then(|| format!("{node}: {} bytes more were printed and could not be kept", end.lost))
}

fn nothing(node: &NodeName, channel: OutputChannel, error: &Error) -> String {
    let what = if channel == OutputChannel::Both { "output" } else { channel.as_str() };
    format!(
        "{node}: no {what} is kept of this job; was it started with --capture, and has it ended? ({})",
        error.message()
    )
}
