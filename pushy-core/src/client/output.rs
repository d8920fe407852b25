//! What a job's command prints, as it prints it or afterwards, over any number of connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::stream::Stream;
use super::{Client, Failure, is_passing};
use crate::api::{self, Channel, OutputOf, Who};
use crate::error::{Error, ErrorCode, Result};
use crate::ids::{JobId, NodeName};
use crate::output::{HEAD, Kind, OutputChannel, Source, Unframer, Word};

/// A server that has begun to send may be away for so long, for a restart say.
const AWAY: Duration = Duration::from_secs(60);
/// A server says that it is alive every ten seconds; one that does not for so long is gone.
const SILENT: Duration = Duration::from_secs(45);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at a job of a server that keeps output until its end only.
const LOOK: Duration = Duration::from_secs(2);

/// What an [`OutputStream`] gives.
#[derive(Clone, PartialEq, Eq)]
pub enum OutputPiece {
    /// Bytes as the command wrote them.
    Bytes {
        /// Whether they are of standard error.
        stderr: bool,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// That was all. Nothing comes after.
    End(OutputEnd),
}

impl std::fmt::Debug for OutputPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OutputPiece::Bytes { stderr, bytes } => {
                write!(f, "Bytes {{ stderr: {stderr}, {} bytes }}", bytes.len())
            }
            OutputPiece::End(end) => f.debug_tuple("End").field(end).finish(),
        }
    }
}

/// How output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputEnd {
    /// Whether the command has ended; false: it may print more, which was not waited for.
    pub done: bool,
    /// Bytes that the node could not keep.
    pub lost: u64,
    /// Where it came from: what is stored has a gap in the middle when it was long.
    pub source: Source,
}

/// The output of one node. Call [`OutputStream::next`] until it gives [`OutputPiece::End`] or an error.
pub struct OutputStream {
    client: Client,
    of: OutputOf,
    stream: Option<Stream>,
    frames: Unframer,
    source: Option<Source>,
    /// Bytes given out of the record under way, and how many of them come again after a new connection.
    given: u64,
    skip: u64,
    word: Vec<u8>,
    ready: VecDeque<OutputPiece>,
    /// What is kept at the end of the job is not of interest.
    only_live: bool,
    tries: u32,
    failing: Option<Instant>,
    over: bool,
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream").field("of", &self.of).finish_non_exhaustive()
    }
}

impl Client {
    /// What a node's command prints: all that there is or, with `follow`, everything until it ends. From a server or
    /// a node that keeps output only at the end of a job, what they keep. Opens nothing yet.
    pub fn stream_output(
        &self,
        id: &JobId,
        node: &NodeName,
        channel: OutputChannel,
        follow: bool,
    ) -> OutputStream {
        let of = OutputOf { id: id.clone(), node: node.clone(), channel, from: 0, follow, stored: false };
        OutputStream {
            client: self.clone(),
            of,
            stream: None,
            frames: Unframer::default(),
            source: None,
            given: 0,
            skip: 0,
            word: Vec::new(),
            ready: VecDeque::new(),
            only_live: false,
            tries: 0,
            failing: None,
            over: false,
        }
    }
}

/// What a try came to.
enum Outcome {
    Ready,
    /// The server does not stream.
    Old(Error),
}

impl OutputStream {
    /// Whose output it is.
    pub fn node(&self) -> &NodeName {
        &self.of.node
    }

    /// Gives up with [`ErrorCode::NotFound`] where output is kept only at the end of a job.
    #[must_use]
    pub fn only_live(mut self) -> OutputStream {
        self.only_live = true;
        self
    }

    /// The next piece. Cancel-safe. Connections that break are made again, and nothing is given twice.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ErrorCode::NotFound`] when nothing is kept; [`ErrorCode::Server`] with the server's words when
    /// the node cannot be asked.
    pub async fn next(&mut self) -> Result<OutputPiece> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(piece);
            }
            if self.over {
                return Err(Error::new(ErrorCode::InvalidState, "the output has ended"));
            }
            match self.advance().await {
                Ok(Outcome::Ready) => {}
                Ok(Outcome::Old(refused)) => self.ask_old_server(refused).await?,
                Err(failure) => self.again(failure).await?,
            }
        }
    }

    /// One step: opens the stream, or takes what has come.
    async fn advance(&mut self) -> std::result::Result<Outcome, Failure> {
        let limit = self.client.shared.settings.timeout.min(SILENT);
        let silent = || {
            let text = format!("no word of the output within {} s", limit.as_secs());
            Failure::sent(Error::new(ErrorCode::Timeout, text))
        };
        let Some(stream) = &mut self.stream else {
            let request = self.of.request();
            let opened = timeout(limit, self.client.open_stream(&request)).await.map_err(|_| silent())?;
            let mut stream = opened?;
            if (200..300).contains(&stream.status) {
                self.frames = Unframer::default();
                self.skip = std::mem::take(&mut self.given);
                self.stream = Some(stream);
                return Ok(Outcome::Ready);
            }
            let mut body = Vec::new();
            while let Some(bytes) = timeout(limit, stream.next()).await.map_err(|_| silent())?? {
                body.extend_from_slice(&bytes);
                if body.len() > 64 << 10 {
                    break;
                }
            }
            let settings = &self.client.shared.settings;
            let who = Who { url: &settings.server_url, user: &settings.user, key: &settings.key_source };
            let date = stream.headers.get(hyper::header::DATE).and_then(|d| d.to_str().ok());
            let error = api::refusal(who, &request, stream.status, &body, date);
            if matches!(stream.status, 404 | 405) && self.source.is_none() {
                return Ok(Outcome::Old(error));
            }
            return Err(Failure { error, transient: is_passing(stream.status), sent: true });
        };
        match timeout(limit, stream.next()).await.map_err(|_| silent())?? {
            Some(bytes) => self.take(&bytes)?,
            // Without its last word a body is not whole, however HTTP ends it.
            None => {
                let text = "the server ended the output before its end";
                return Err(Failure::sent(Error::new(ErrorCode::Connection, text)));
            }
        }
        Ok(Outcome::Ready)
    }

    fn take(&mut self, mut bytes: &[u8]) -> std::result::Result<(), Failure> {
        let fatal = |error| Failure { error, transient: false, sent: true };
        while let Some(piece) = self.frames.next(&mut bytes).map_err(fatal)? {
            match piece.kind {
                Kind::KeepAlive => {}
                Kind::Stdout | Kind::Stderr => {
                    self.tries = 0;
                    self.failing = None;
                    let length = piece.bytes.len() as u64;
                    let known = self.skip.min(length);
                    self.skip -= known;
                    let new = piece.bytes.get(known as usize..).unwrap_or_default();
                    if !new.is_empty() {
                        let stderr = piece.kind == Kind::Stderr;
                        self.ready.push_back(OutputPiece::Bytes { stderr, bytes: new.to_vec() });
                    }
                    self.given += length;
                    if self.of.channel != OutputChannel::Both {
                        self.of.from += std::mem::take(&mut self.given);
                    } else if piece.ends {
                        // Records are asked for as a whole again.
                        self.of.from += HEAD as u64 + std::mem::take(&mut self.given);
                    }
                }
                Kind::Word => {
                    self.word.extend_from_slice(piece.bytes);
                    if piece.ends {
                        let word = std::mem::take(&mut self.word);
                        self.heard(Word::read(&word))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn heard(&mut self, word: Option<Word>) -> std::result::Result<(), Failure> {
        match word {
            // A word of a later version.
            None => {}
            Some(Word::From(source)) => {
                self.source = Some(source);
                self.of.stored = source == Source::Stored;
            }
            Some(Word::End { done, lost }) => {
                let source = self.source.unwrap_or(Source::Spool);
                self.end(OutputEnd { done, lost, source });
            }
            Some(Word::Failed { error, retry, missing }) => {
                let error = Error::new(if missing { ErrorCode::NotFound } else { ErrorCode::Server }, error);
                return Err(Failure { error, transient: retry, sent: true });
            }
        }
        Ok(())
    }

    fn end(&mut self, end: OutputEnd) {
        self.over = true;
        self.stream = None;
        self.ready.push_back(OutputPiece::End(end));
    }

    /// Waits before the next try, or gives up.
    async fn again(&mut self, failure: Failure) -> Result<()> {
        self.stream = None;
        self.word.clear();
        // It may have broken before everything known had come again.
        self.given += std::mem::take(&mut self.skip);
        let settings = &self.client.shared.settings;
        let now = instant();
        let since = *self.failing.get_or_insert(now);
        let begun = self.source.is_some();
        let patient = if begun { now.duration_since(since) < AWAY } else { self.tries < settings.retries };
        if !failure.transient || !patient {
            self.over = true;
            return Err(failure.error);
        }
        let pause = settings.retry_delay.saturating_mul(1 << self.tries.min(8)).min(LONGEST_PAUSE);
        self.tries += 1;
        sleep(pause).await;
        Ok(())
    }

    /// The server has no such resource: what it keeps at the end of the job is all there is.
    async fn ask_old_server(&mut self, refused: Error) -> Result<()> {
        if self.only_live {
            self.over = true;
            return Err(refused);
        }
        let channels: &[Channel] = match self.of.channel {
            OutputChannel::Stdout => &[Channel::Stdout],
            OutputChannel::Stderr => &[Channel::Stderr],
            OutputChannel::Both => &[Channel::Stdout, Channel::Stderr],
        };
        for channel in channels {
            let bytes = loop {
                match self.client.output(&self.of.id, &self.of.node, *channel).await {
                    Ok(bytes) => break bytes,
                    Err(error) if error.code() == ErrorCode::NotFound && self.of.follow => {
                        // Nothing yet, or nothing ever: the job knows.
                        if self.client.job(&self.of.id).await?.status().is_terminal() {
                            self.over = true;
                            return Err(error);
                        }
                        sleep(LOOK).await;
                    }
                    Err(error) => {
                        self.over = true;
                        let told = error.code() == ErrorCode::NotFound;
                        return Err(if told { refused } else { error });
                    }
                }
            };
            if !bytes.is_empty() {
                let stderr = *channel == Channel::Stderr;
                self.ready.push_back(OutputPiece::Bytes { stderr, bytes });
            }
        }
        self.end(OutputEnd { done: true, lost: 0, source: Source::Stored });
        Ok(())
    }
}

fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the client is the part of the core that does I/O")]
    Instant::now()
}
