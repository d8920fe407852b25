//! The output of several nodes in one place, ready to be shown.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Client;
use super::output::{OutputEnd, OutputPiece, OutputStream};
use crate::error::{Error, ErrorCode, Result};
use crate::ids::{JobId, NodeName};
use crate::output::{Labels, OutputChannel};

/// Connections at a time. Of more nodes the later ones are read when earlier ones have ended.
const AT_ONCE: usize = 64;
/// Pieces that may wait to be shown: what is shown slowly is read slowly.
const PIECES: usize = 16;

/// What is to be shown.
#[derive(Clone, PartialEq)]
pub enum OutputEvent {
    /// Bytes for standard output or error: of several nodes whole lines under their names, of one as they were written.
    Bytes {
        /// For standard error.
        stderr: bool,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Something to know about a node's output, one line for standard error.
    Notice(String),
    /// A node's output could not be had, or not to its end; the node's name is in the message.
    Failed(Error),
    /// That was all of it. Nothing comes after.
    Over,
}

impl std::fmt::Debug for OutputEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OutputEvent::Bytes { stderr, bytes } => {
                write!(f, "Bytes {{ stderr: {stderr}, {} bytes }}", bytes.len())
            }
            OutputEvent::Notice(text) => f.debug_tuple("Notice").field(text).finish(),
            OutputEvent::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            OutputEvent::Over => f.write_str("Over"),
        }
    }
}

/// Output of some nodes of a job. Dropping it closes the connections.
#[derive(Debug)]
pub struct OutputStreams {
    pieces: mpsc::Receiver<(NodeName, Result<OutputPiece>)>,
    /// None for a single node.
    labels: Option<Labels>,
    ready: VecDeque<OutputEvent>,
    /// Of nodes without output nothing is said.
    quiet: bool,
    _tasks: JoinSet<()>,
}

impl Client {
    /// What the commands of a job print on these nodes: see [`Client::stream_output`]. Must be called inside of a tokio
    /// runtime.
    pub fn stream_outputs(
        &self,
        id: &JobId,
        nodes: &[NodeName],
        channel: OutputChannel,
        follow: bool,
    ) -> OutputStreams {
        OutputStreams::of(nodes.iter().map(|node| self.stream_output(id, node, channel, follow)).collect())
    }

    /// Both channels while the commands run, for whoever waits for a job: without a word on nodes and servers that
    /// keep output at the end only. Must be called inside of a tokio runtime.
    pub fn stream_live(&self, id: &JobId, nodes: &[NodeName]) -> OutputStreams {
        let live = |node| self.stream_output(id, node, OutputChannel::Both, true).only_live();
        let mut streams = OutputStreams::of(nodes.iter().map(live).collect());
        streams.quiet = true;
        streams
    }
}

impl OutputStreams {
    fn of(streams: Vec<OutputStream>) -> OutputStreams {
        let names: Vec<NodeName> = streams.iter().map(|stream| stream.node().clone()).collect();
        let (sender, pieces) = mpsc::channel(PIECES);
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for mut stream in streams {
            let (node, sender, room) = (stream.node().clone(), sender.clone(), Arc::clone(&room));
            tasks.spawn(async move {
                let _place = room.acquire_owned().await;
                loop {
                    let piece = stream.next().await;
                    let last = !matches!(piece, Ok(OutputPiece::Bytes { .. }));
                    if sender.send((node.clone(), piece)).await.is_err() || last {
                        return;
                    }
                }
            });
        }
        let labels = (names.len() > 1).then(|| Labels::new(names.iter().map(NodeName::as_str)));
        OutputStreams { pieces, labels, ready: VecDeque::new(), quiet: false, _tasks: tasks }
    }

    /// The next thing to show. Cancel-safe.
    pub async fn next(&mut self) -> OutputEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let Some((node, piece)) = self.pieces.recv().await else { return OutputEvent::Over };
            match piece {
                Ok(OutputPiece::Bytes { stderr, bytes }) => {
                    let bytes = match &mut self.labels {
                        Some(labels) => labels.push(node.as_str(), stderr, &bytes),
                        None => bytes,
                    };
                    self.show(stderr, bytes);
                }
                Ok(OutputPiece::End(OutputEnd { lost, .. })) => {
                    self.end_lines(&node);
                    if lost > 0 {
                        let text = format!("{node}: {lost} bytes more were printed and could not be kept");
                        self.ready.push_back(OutputEvent::Notice(text));
                    }
                }
                Err(error) if self.quiet && error.code() == ErrorCode::NotFound => self.end_lines(&node),
                Err(error) => {
                    self.end_lines(&node);
                    self.ready.push_back(OutputEvent::Failed(of_node(error, &node)));
                }
            }
        }
    }

    fn show(&mut self, stderr: bool, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.ready.push_back(OutputEvent::Bytes { stderr, bytes });
        }
    }

    fn end_lines(&mut self, node: &NodeName) {
        let Some(labels) = &mut self.labels else { return };
        let [out, err] = labels.finish(node.as_str());
        self.show(false, out);
        self.show(true, err);
    }
}

/// The error with its node, and what to do where that is known.
fn of_node(error: Error, node: &NodeName) -> Error {
    if error.code() == ErrorCode::NotFound {
        let text = format!(
            "{node}: no output is kept of this job; was it started with --capture, and did it run there? ({})",
            error.message()
        );
        return Error::new(ErrorCode::NotFound, text);
    }
    error.context(node)
}
