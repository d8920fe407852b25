//! What a job's command prints, passed on from its node to whoever listens (extension `output`, decision 37).
//!
//! A listener has a window of requests at the node. New ones are made only as the listener takes what it is sent, so a
//! slow listener costs a window and no more, and nothing of the output is kept here.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body::Frame;
use pushy_core::Error;
use pushy_core::ids::{JobId, NodeRef};
use pushy_core::output::{
    CHUNK, Chunk, Kind, OutputChannel, Source, Unframer, WINDOW, Wanted, Word, head, record,
};
use pushy_core::server::{OutputRead, OutputView};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::driver::Handle;
use crate::store::{JobOutput, Store};

/// A listener is told so often that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A node may hold a request for so long while there is nothing more, in milliseconds.
const WAIT: u32 = 20_000;
/// Between two looks at a node that is away or has not begun.
const LOOK: Duration = Duration::from_millis(500);
/// What is not stored yet is looked for so often.
const STORED_TRIES: u32 = 6;
/// A node that was asked and is gone may take so long to come back.
const BACK: Duration = Duration::from_secs(60);
/// Requests beyond the first of each listener, in all: what bounds the memory of many.
const EXTRA: usize = 128;

/// The listeners to output.
#[derive(Debug)]
pub struct Streams {
    places: Arc<Semaphore>,
    extra: Arc<Semaphore>,
}

impl Streams {
    /// Room for so many listeners.
    pub fn new(most: usize) -> Streams {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Streams { places, extra: Arc::new(Semaphore::new(EXTRA)) }
    }

    /// Starts to pass output on. `None`: there are too many listeners.
    pub fn open(&self, ask: Ask, driver: Handle, store: Arc<dyn Store>) -> Option<OutputBody> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let (records, body) = mpsc::channel(1);
        let stream = Stream {
            at: ask.from,
            ask,
            driver,
            store,
            records,
            extra: Arc::clone(&self.extra),
            window: VecDeque::new(),
            frames: Unframer::default(),
            told: false,
            _place: place,
        };
        tokio::spawn(stream.run());
        Some(OutputBody(body))
    }
}

/// What is listened to.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whose output.
    pub node: NodeRef,
    /// Which job.
    pub job: JobId,
    /// Which of its output.
    pub channel: OutputChannel,
    /// From which byte on.
    pub from: u64,
    /// Whether to wait for what is still to come.
    pub follow: bool,
    /// Only what is stored here: the listener goes on with what it began.
    pub stored: bool,
}

/// The body of an HTTP answer: records.
#[derive(Debug)]
pub struct OutputBody(mpsc::Receiver<Bytes>);

impl HttpBody for OutputBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.get_mut().0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// One request to the node: from where, how much, and the answer.
struct Asked {
    offset: u64,
    max: u32,
    answer: oneshot::Receiver<OutputRead>,
    _extra: Option<OwnedSemaphorePermit>,
}

struct Stream {
    ask: Ask,
    driver: Handle,
    store: Arc<dyn Store>,
    records: mpsc::Sender<Bytes>,
    extra: Arc<Semaphore>,
    window: VecDeque<Asked>,
    /// What goes out of both channels is checked: heads are the node's.
    frames: Unframer,
    /// The byte that the listener wants next.
    at: u64,
    /// Where it comes from was told.
    told: bool,
    _place: OwnedSemaphorePermit,
}

/// The stream ends: with a word, or because nobody listens any more.
enum End {
    Word(Word),
    Gone,
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        // The driver is stopping, or the store cannot be read now.
        failed(error.message(), true)
    }
}

fn failed(error: impl Into<String>, retry: bool) -> End {
    End::Word(Word::Failed { error: error.into(), retry, missing: false })
}

impl Stream {
    async fn run(mut self) {
        // Within a record a word would pass for output: the listener finds the stream cut and asks again.
        if let End::Word(word) = self.pass_on().await
            && self.frames.is_between()
        {
            let _ = self.records.send(word.record().into()).await;
        }
    }

    async fn pass_on(&mut self) -> End {
        match self.try_pass_on().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn try_pass_on(&mut self) -> Result<End, End> {
        if self.ask.stored {
            return self.stored().await;
        }
        let mut away_since = None;
        let mut total = None;
        loop {
            let view = self.look().await?;
            let ended = view.status.is_none_or(|status| status.is_terminal());
            if view.able == Some(true) {
                let missing = loop {
                    match self.read(&mut total).await? {
                        OutputRead::Chunk(chunk) if chunk.missing => break true,
                        OutputRead::Chunk(chunk) => {
                            away_since = None;
                            if let Some(end) = self.take(chunk, &mut total).await? {
                                return Ok(end);
                            }
                        }
                        OutputRead::Away | OutputRead::Silent | OutputRead::Busy | OutputRead::Unable => {
                            break false;
                        }
                    }
                };
                self.window.clear();
                if missing && ended {
                    return self.not_on_node().await;
                }
            } else if ended && (view.able == Some(false) || !view.connected) && !self.told {
                return self.not_on_node().await;
            }
            if !self.ask.follow && !ended {
                // What a node away has is not known now; what was begun is to be gone on with.
                return match self.told {
                    false => Ok(End::Word(Word::End { done: false, lost: 0 })),
                    true => Err(failed(format!("{} does not answer any more", self.ask.node.node), true)),
                };
            }
            let since = *away_since.get_or_insert_with(Instant::now);
            if ended && since.elapsed() >= BACK {
                return Err(failed(
                    format!(
                        "{} is not connected or does not answer; its output is kept there: ask again when it is back",
                        self.ask.node.node
                    ),
                    false,
                ));
            }
            self.pause(LOOK).await?;
        }
    }

    async fn look(&self) -> Result<OutputView, End> {
        let (node, job) = (self.ask.node.clone(), self.ask.job.clone());
        Ok(self.driver.look(move |server, _| server.output_view(&node, &job)).await?)
    }

    /// Fills the window and waits for the first answer in it.
    async fn read(&mut self, total: &mut Option<u64>) -> Result<OutputRead, End> {
        loop {
            let next = self.window.back().map_or(self.at, |last| last.offset + u64::from(last.max));
            let first = self.window.is_empty();
            if !first && (self.window.len() >= WINDOW || total.is_none_or(|total| next >= total)) {
                break;
            }
            let extra = match first {
                true => None,
                false => match Arc::clone(&self.extra).try_acquire_owned() {
                    Ok(extra) => Some(extra),
                    Err(_) => break,
                },
            };
            let wanted = Wanted {
                job: self.ask.job.clone(),
                channel: self.ask.channel,
                offset: next,
                max: CHUNK,
                wait: if self.ask.follow { WAIT } else { 0 },
            };
            let answer = self.driver.read_output(self.ask.node.clone(), wanted);
            self.window.push_back(Asked { offset: next, max: CHUNK, answer, _extra: extra });
        }
        let Some(mut asked) = self.window.pop_front() else { return Ok(OutputRead::Silent) };
        loop {
            tokio::select! {
                biased;
                read = &mut asked.answer => return read.map_err(|_| failed("the server is stopping", true)),
                () = self.records.closed() => return Err(End::Gone),
                () = tokio::time::sleep(KEEP_ALIVE) => self.keep_alive().await?,
            }
        }
    }

    /// Passes a piece on; answers how the stream ends, if it does.
    async fn take(&mut self, chunk: Chunk, total: &mut Option<u64>) -> Result<Option<End>, End> {
        *total = Some(chunk.total);
        self.tell(Source::Spool).await?;
        let length = chunk.data.len() as u64;
        if length > 0 {
            self.output(chunk.data).await?;
            self.at += length;
            // The node sends less than it was asked for: the rest of the window does not fit on to it.
            if self.window.front().is_some_and(|next| next.offset != self.at) {
                self.window.clear();
            }
        }
        let reached = self.at >= chunk.total;
        Ok((reached && (chunk.done || !self.ask.follow))
            .then_some(End::Word(Word::End { done: chunk.done, lost: chunk.lost })))
    }

    /// The node has nothing, or cannot be asked: what was stored at the end of the job.
    async fn not_on_node(&mut self) -> Result<End, End> {
        if self.told || self.at > 0 {
            return Err(failed(
                format!(
                    "{} does not have the rest of the output any more, or is not connected",
                    self.ask.node.node
                ),
                false,
            ));
        }
        self.stored().await
    }

    async fn stored(&mut self) -> Result<End, End> {
        let NodeRef { org, node } = self.ask.node.clone();
        let mut tries = 0;
        let JobOutput { stdout, stderr } = loop {
            if let Some(stored) = self.store.output(&org, &self.ask.job, &node).await? {
                break stored;
            }
            // Of a node that has ended this moment it may be on its way to the store.
            tries += 1;
            if tries > STORED_TRIES || self.look().await?.status.is_none() {
                let error = format!("nothing of this job's output on {node} is kept");
                return Err(End::Word(Word::Failed { error, retry: false, missing: true }));
            }
            self.pause(LOOK).await?;
        };
        self.tell(Source::Stored).await?;
        let bytes = match self.ask.channel {
            OutputChannel::Stdout => stdout,
            OutputChannel::Stderr => stderr,
            OutputChannel::Both => {
                let both = [(Kind::Stdout, stdout), (Kind::Stderr, stderr)];
                both.iter().filter(|(_, bytes)| !bytes.is_empty()).flat_map(|(k, b)| record(*k, b)).collect()
            }
        };
        let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(bytes.len());
        for piece in bytes.get(from..).unwrap_or_default().chunks(CHUNK as usize) {
            self.output(piece.to_vec()).await?;
        }
        Ok(End::Word(Word::End { done: true, lost: 0 }))
    }

    async fn tell(&mut self, source: Source) -> Result<(), End> {
        if std::mem::replace(&mut self.told, true) {
            return Ok(());
        }
        self.send(Word::From(source).record()).await
    }

    /// Output as records.
    async fn output(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let Some(kind) = self.ask.channel.kind() else {
            let mut rest = &bytes[..];
            while let Some(piece) = self.frames.next(&mut rest).map_err(|e| failed(e.message(), false))? {
                if !piece.kind.is_output() {
                    return Err(failed("the node sends something that is no output", false));
                }
            }
            return self.send(bytes).await;
        };
        // At most a chunk or what is stored.
        self.send(head(kind, bytes.len() as u32).to_vec()).await?;
        self.send(bytes).await
    }

    async fn send(&self, bytes: Vec<u8>) -> Result<(), End> {
        self.records.send(bytes.into()).await.map_err(|_| End::Gone)
    }

    /// Waits, and says now and then that it is still there.
    async fn pause(&mut self, time: Duration) -> Result<(), End> {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.records.closed() => return Err(End::Gone),
        }
        self.keep_alive().await
    }

    async fn keep_alive(&self) -> Result<(), End> {
        if self.frames.is_between() {
            self.send(record(Kind::KeepAlive, b"")).await?;
        }
        Ok(())
    }
}
