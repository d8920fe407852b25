//! Reading a feed as it arrives, in pieces of any size: the event stream format as browsers read it, and, for the
//! original server, a last event that nothing ends (D-30).

use std::collections::VecDeque;

use serde_json::Value;

use crate::error::{Error, ErrorCode, Result};
use crate::time::Wall;

/// The longest line, and the longest `data` of one event, in bytes. A job request has at most a megabyte, and escaping
/// makes six bytes of one at worst.
pub const MAX_ENTRY: usize = 8 << 20;

/// One event of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What happened (8.3); `message` when the server does not say.
    pub name: String,
    /// What to resume after, with `Last-Event-ID`; opaque (8.2).
    pub id: Option<String>,
    /// One JSON object (8.3).
    pub data: String,
}

impl Entry {
    /// The JSON object.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] when it is none.
    pub fn json(&self) -> Result<Value> {
        match serde_json::from_str(&self.data) {
            Ok(Value::Object(members)) => Ok(Value::Object(members)),
            Ok(_) | Err(_) => {
                Err(Error::new(ErrorCode::Protocol, "the feed has an event that is no JSON object"))
            }
        }
    }

    /// When it happened (8.4).
    pub fn at(&self) -> Option<Wall> {
        let value: Value = serde_json::from_str(&self.data).ok()?;
        Wall::parse_feed_timestamp(value.get("timestamp")?.as_str()?)
    }
}

/// Turns bytes into [`Entry`]s. Any way of cutting the bytes into pieces gives the same entries.
#[derive(Debug, Default)]
pub struct Reader {
    /// The line that has no end yet.
    line: Vec<u8>,
    /// The last byte was a CR: a LF belongs to it.
    after_cr: bool,
    /// The first line is behind us, and with it the byte order mark that is allowed before it.
    begun: bool,
    name: String,
    id: Option<String>,
    data: String,
    has_data: bool,
    ready: VecDeque<Entry>,
}

impl Reader {
    /// Takes what has arrived; ask [`Reader::next_entry`] afterwards.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`] when a line or an event is longer than [`MAX_ENTRY`]: give the connection up.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let (piece, end) = rest.split_at(at);
            self.add(piece)?;
            let line = std::mem::take(&mut self.line);
            self.take_line(&line)?;
            // The buffer is kept for the next line.
            self.line = line;
            self.line.clear();
            rest = match end {
                [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
        }
        self.add(rest)
    }

    /// The next whole event.
    pub fn next_entry(&mut self) -> Option<Entry> {
        self.ready.pop_front()
    }

    /// The body has ended as HTTP ends it: an event that has all but its blank line counts (D-30). Not to be called when the
    /// connection broke: half an event must be asked for again.
    pub fn finish(&mut self) -> Result<Option<Entry>> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line)?;
        }
        self.dispatch();
        let last = self.next_entry();
        let whole = last.filter(|entry| entry.json().is_ok());
        *self = Reader::default();
        Ok(whole)
    }

    fn add(&mut self, piece: &[u8]) -> Result<()> {
        if self.line.len() + piece.len() > MAX_ENTRY {
            return Err(too_large());
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) -> Result<()> {
        let line = if self.begun { line } else { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(at) => {
                let (field, value) = line.split_at(at);
                let value = value.get(1..).unwrap_or_default();
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.data.len() + value.len() > MAX_ENTRY {
                    return Err(too_large());
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(&String::from_utf8_lossy(value));
            }
            b"id" if !value.contains(&0) => self.id = Some(String::from_utf8_lossy(value).into_owned()),
            // Comments have an empty name; `retry` is never sent (8.1); the rest is for others.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        let name = std::mem::take(&mut self.name);
        let id = self.id.take();
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.ready.push_back(Entry { name, id, data });
        }
    }
}

fn too_large() -> Error {
    Error::new(ErrorCode::TooLarge, format!("the feed has an event of more than {MAX_ENTRY} bytes"))
}
