//! A command's output on its way: what a node keeps of it, what goes over the wire and over HTTP (extension `output`).
//!
//! Node, server and client share one form for output of both channels: records of a head of 8 bytes (kind, three zeros,
//! length as 32 bits, most significant first) and as many bytes. The node's spool is such records in the order in which
//! they arrived; channel `both` is the spool as it is, and an offset in it counts the heads too.

use crate::error::{Error, ErrorCode, Result};
use crate::ids::JobId;
use crate::json::Object;

mod label;

pub use label::Labels;

/// Bytes of a record's head.
pub const HEAD: usize = 8;
/// The longest record that a reader takes, in bytes without its head.
pub const MAX_RECORD: u32 = 1 << 20;
/// The most that a node puts into one [`Chunk`], in bytes.
pub const MAX_CHUNK: u32 = 48 << 10;
/// What a server asks for at a time: with its base64 it fits what a node may send by default (63,000 bytes).
pub const CHUNK: u32 = 45 << 10;
/// Requests of one reader that a node may have at a time.
pub const WINDOW: usize = 8;
/// The longest that a node may be asked to wait for more output, in milliseconds.
pub const MAX_WAIT: u32 = 30_000;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputChannel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both, as records in the order in which they arrived.
    Both,
}

impl OutputChannel {
    /// As in paths, messages and on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            OutputChannel::Stdout => "stdout",
            OutputChannel::Stderr => "stderr",
            OutputChannel::Both => "both",
        }
    }

    /// Reads one of the three names.
    pub fn from_text(text: &str) -> Option<OutputChannel> {
        [OutputChannel::Stdout, OutputChannel::Stderr, OutputChannel::Both]
            .into_iter()
            .find(|channel| channel.as_str() == text)
    }

    /// Reads what somebody typed.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] naming the three.
    pub fn parse(text: &str) -> Result<OutputChannel> {
        OutputChannel::from_text(text).ok_or_else(|| {
            Error::new(ErrorCode::InvalidArgument, "Invalid Format please enter stdout, stderr or both")
        })
    }

    /// The kind of its records; none for both.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            OutputChannel::Stdout => Some(Kind::Stdout),
            OutputChannel::Stderr => Some(Kind::Stderr),
            OutputChannel::Both => None,
        }
    }
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: the sender is still there. Over HTTP only.
    KeepAlive,
    /// Bytes of standard output.
    Stdout,
    /// Bytes of standard error.
    Stderr,
    /// A JSON object about the output ([`Word`]). Over HTTP only.
    Word,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Kind::KeepAlive => 0,
            Kind::Stdout => 1,
            Kind::Stderr => 2,
            Kind::Word => 3,
        }
    }

    /// Whether it is output, so that offsets count it.
    pub const fn is_output(self) -> bool {
        matches!(self, Kind::Stdout | Kind::Stderr)
    }
}

/// The head of a record.
pub const fn head(kind: Kind, length: u32) -> [u8; HEAD] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind.code(), 0, 0, 0, a, b, c, d]
}

/// A whole record.
pub fn record(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    // Callers have at most a chunk or a message; what is longer is cut, not lied about.
    let length = u32::try_from(bytes.len()).unwrap_or(MAX_RECORD).min(MAX_RECORD);
    let bytes = bytes.get(..length as usize).unwrap_or(bytes);
    let mut record = Vec::with_capacity(HEAD + bytes.len());
    record.extend_from_slice(&head(kind, length));
    record.extend_from_slice(bytes);
    record
}

/// Reads a head.
///
/// # Errors
/// [`ErrorCode::Protocol`] when it is none, or the record is longer than [`MAX_RECORD`].
pub fn read_head(head: [u8; HEAD]) -> Result<(Kind, u32)> {
    let [code, zeros @ .., a, b, c, d] = head;
    let kind =
        [Kind::KeepAlive, Kind::Stdout, Kind::Stderr, Kind::Word].into_iter().find(|k| k.code() == code);
    let length = u32::from_be_bytes([a, b, c, d]);
    match kind {
        Some(kind) if zeros == [0; 3] && length <= MAX_RECORD => Ok((kind, length)),
        _ => Err(Error::new(
            ErrorCode::Protocol,
            "the output is not made of records; read it from its beginning",
        )),
    }
}

/// Takes records apart as they arrive, in pieces of any size.
#[derive(Debug, Default)]
pub struct Unframer {
    head: [u8; HEAD],
    have: usize,
    record: Option<(Kind, u32)>,
    /// Bytes of the record that were given out.
    given: u32,
}

/// A piece of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What it is.
    pub kind: Kind,
    /// The bytes; may be empty.
    pub bytes: &'a [u8],
    /// Whether the record ends with it.
    pub ends: bool,
}

impl Unframer {
    /// The next piece of `bytes`, which is moved on; `None` when they are used up.
    ///
    /// # Errors
    /// As [`read_head`].
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>> {
        let (kind, length) = match self.record {
            Some(record) => record,
            None => {
                while self.have < HEAD {
                    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
                    if let Some(place) = self.head.get_mut(self.have) {
                        *place = *first;
                    }
                    self.have += 1;
                    *bytes = rest;
                }
                let record = read_head(self.head)?;
                self.record = Some(record);
                record
            }
        };
        let left = (length - self.given) as usize;
        if left > 0 && bytes.is_empty() {
            return Ok(None);
        }
        let (piece, rest) = bytes.split_at(left.min(bytes.len()));
        *bytes = rest;
        let ends = piece.len() == left;
        if ends {
            *self = Unframer::default();
        } else {
            // At most what was left of 32 bits.
            self.given += piece.len() as u32;
        }
        Ok(Some(Piece { kind, bytes: piece, ends }))
    }

    /// Whether everything taken so far was whole records.
    pub fn is_between(&self) -> bool {
        self.have == 0
    }
}

/// `output_request`: a node is to send a piece of a job's output (decision 37).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Which job.
    pub job: JobId,
    /// Which of its output.
    pub channel: OutputChannel,
    /// From which byte on.
    pub offset: u64,
    /// At most so many bytes.
    pub max: u32,
    /// When there is nothing more yet: how long to wait for it before answering so, in milliseconds.
    pub wait: u32,
}

/// `output_chunk`: a piece of a job's output. Output is a secret: `Debug` shows lengths only.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which job.
    pub job: JobId,
    /// Which of its output.
    pub channel: OutputChannel,
    /// Where the piece begins.
    pub offset: u64,
    /// How much there is so far.
    pub total: u64,
    /// Whether nothing will come after `total`.
    pub done: bool,
    /// How many bytes the node could not keep: its limit was reached or its disk full.
    pub lost: u64,
    /// The node has nothing of this job: it was not captured, or the time to keep it is over.
    pub missing: bool,
    /// The bytes.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("job", &self.job)
            .field("channel", &self.channel)
            .field("offset", &self.offset)
            .field("total", &self.total)
            .field("done", &self.done)
            .field("lost", &self.lost)
            .field("missing", &self.missing)
            .field("data", &self.data.len())
            .finish()
    }
}

impl Chunk {
    /// Whether it answers this.
    pub fn answers(&self, wanted: &Wanted) -> bool {
        self.job == wanted.job && self.channel == wanted.channel && self.offset == wanted.offset
    }
}

/// Where streamed output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// From the node, all of it.
    Spool,
    /// From the server's store: head and tail of what was printed.
    Stored,
}

impl Source {
    /// As in queries and words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Spool => "spool",
            Source::Stored => "stored",
        }
    }

    /// Reads one of the two names.
    pub fn from_text(text: &str) -> Option<Source> {
        [Source::Spool, Source::Stored].into_iter().find(|source| source.as_str() == text)
    }
}

/// What a stream says of itself: the JSON object of a record of [`Kind::Word`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Where what follows comes from; once, before the first byte.
    From(Source),
    /// That was all there is so far. The body ends.
    End {
        /// Whether the output is complete: nothing will be added to it.
        done: bool,
        /// How many bytes the node could not keep.
        lost: u64,
    },
    /// It goes no further. The body ends.
    Failed {
        /// Why, one line.
        error: String,
        /// Whether the same may do later.
        retry: bool,
        /// Whether there is nothing at all of this output.
        missing: bool,
    },
}

impl Word {
    /// The record.
    pub fn record(&self) -> Vec<u8> {
        let mut object = Object::with_capacity(64);
        match self {
            Word::From(source) => object.plain("source", source.as_str()),
            Word::End { done, lost } => object.member("done", done).member("lost", lost),
            Word::Failed { error, retry, missing: false } => {
                object.member("error", error).member("retry", retry)
            }
            Word::Failed { error, retry, missing: true } => {
                object.member("error", error).member("retry", retry).member("missing", &true)
            }
        };
        record(Kind::Word, &object.end())
    }

    /// Reads the bytes of a record; `None` when it is a word of another version.
    pub fn read(bytes: &[u8]) -> Option<Word> {
        let object: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| object.get(name).and_then(serde_json::Value::as_str);
        if let Some(error) = text("error") {
            let flag = |name: &str| object.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false);
            let (retry, missing) = (flag("retry"), flag("missing"));
            return Some(Word::Failed { error: error.to_owned(), retry, missing });
        }
        if let Some(done) = object.get("done").and_then(serde_json::Value::as_bool) {
            let lost = object.get("lost").and_then(serde_json::Value::as_u64).unwrap_or(0);
            return Some(Word::End { done, lost });
        }
        text("source").and_then(Source::from_text).map(Word::From)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_apart_however_they_are_cut() {
        let mut bytes = record(Kind::Stdout, b"one\n");
        bytes.extend(record(Kind::KeepAlive, b""));
        bytes.extend(record(Kind::Stderr, &[0, 255, 1]));
        bytes.extend(record(Kind::Stdout, b""));
        for size in 1..=bytes.len() {
            let mut unframer = Unframer::default();
            let mut found: Vec<(Kind, Vec<u8>)> = Vec::new();
            let mut begun = false;
            for mut cut in bytes.chunks(size) {
                while let Some(piece) = unframer.next(&mut cut).expect("records") {
                    if !std::mem::replace(&mut begun, !piece.ends) {
                        found.push((piece.kind, Vec::new()));
                    }
                    found.last_mut().expect("just pushed").1.extend_from_slice(piece.bytes);
                }
            }
            assert!(unframer.is_between());
            let expected = [
                (Kind::Stdout, b"one\n".to_vec()),
                (Kind::KeepAlive, vec![]),
                (Kind::Stderr, vec![0, 255, 1]),
                (Kind::Stdout, vec![]),
            ];
            assert_eq!(found, expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let check = |bytes: [u8; HEAD]| {
            let mut rest = &bytes[..];
            assert!(Unframer::default().next(&mut rest).is_err(), "{bytes:?}");
        };
        check([4, 0, 0, 0, 0, 0, 0, 1]);
        check([1, 0, 1, 0, 0, 0, 0, 1]);
        check([1, 0, 0, 0, 0, 0x10, 0, 1]);
    }

    #[test]
    fn words() {
        let check = |word: Word, text: &str| {
            let record = word.record();
            assert_eq!(&record[HEAD..], text.as_bytes());
            assert_eq!(Word::read(&record[HEAD..]), Some(word));
        };
        check(Word::From(Source::Stored), r#"{"source":"stored"}"#);
        check(Word::End { done: true, lost: 7 }, r#"{"done":true,"lost":7}"#);
        let failed = |retry, missing| Word::Failed { error: "away".into(), retry, missing };
        check(failed(true, false), r#"{"error":"away","retry":true}"#);
        check(failed(false, true), r#"{"error":"away","retry":false,"missing":true}"#);
        assert_eq!(Word::read(b"{}"), None);
        assert_eq!(Word::read(b"x"), None);
    }
}
