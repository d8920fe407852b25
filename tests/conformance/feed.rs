//! An event feed as a client reads it: the stream's lines, taken one event at a time.

use std::io::{BufRead, BufReader, Read};

use pushy_core::time::Wall;
use serde_json::Value;

use crate::call::{Actor, DEADLINE, Stream, parse_head};
use crate::target::{Expect, Target};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) id: String,
    /// The JSON as sent.
    pub(crate) data: String,
}

impl Entry {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {}", self.data))
    }

    /// The event in a few letters: `quorum_vote(one:success)`.
    pub(crate) fn brief(&self) -> String {
        let data = self.json();
        let text = |name: &str| data[name].as_str().map(str::to_owned);
        match (self.name.as_str(), text("node"), text("status")) {
            (name, Some(node), Some(status)) => format!("{name}({node}:{status})"),
            (name, Some(node), None) => format!("{name}({node})"),
            (name, None, Some(status)) if name != "summary" => format!("{name}({status})"),
            (name, _, _) => name.to_owned(),
        }
    }
}

/// The body of an answer that may come in chunks, without end.
struct Body {
    reader: BufReader<Stream>,
    chunked: bool,
    /// Bytes left of the chunk, or of the body.
    left: usize,
    ended: bool,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && self.chunked && !self.ended {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            self.left = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            self.ended = self.left == 0;
        }
        let most = buffer.len().min(self.left);
        let count = self.reader.read(&mut buffer[..most])?;
        self.left -= count;
        if self.chunked && self.left == 0 && count > 0 {
            self.reader.read_exact(&mut [0; 2])?;
        }
        Ok(count)
    }
}

/// A feed that is being read.
pub(crate) struct Feed {
    body: BufReader<Body>,
    pub(crate) headers: Vec<(String, String)>,
    /// Comment lines so far.
    pub(crate) comments: Vec<String>,
    expect: Expect,
}

impl Feed {
    /// Subscribes; the answer must be a stream.
    #[track_caller]
    pub(crate) fn open(t: &Target, actor: &Actor, path: &str, last_id: Option<&str>) -> Feed {
        let mut call = t.call("GET", path).by(actor).header("Accept", "text/event-stream");
        if let Some(id) = last_id {
            call = call.header("Last-Event-ID", id);
        }
        let mut reader = call.open().expect("a connection");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let count = reader.read_line(&mut head).expect("an answer in time");
            assert!(count > 0, "{path}: the answer broke off: {head}");
        }
        let (status, headers) = parse_head(head.trim_end()).expect("an HTTP head");
        assert_eq!(status, 200, "{path}");
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let kind = header("content-type").unwrap_or_default();
        assert_eq!(kind, "text/event-stream", "{path}");
        let chunked = header("transfer-encoding").as_deref() == Some("chunked");
        let left = header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        let body = BufReader::new(Body { reader, chunked, left, ended: false });
        Feed { body, headers, comments: Vec::new(), expect: t.expect }
    }

    /// A job's feed from its beginning, for the administrator.
    #[track_caller]
    pub(crate) fn of_job(t: &Target, id: &str) -> Feed {
        Feed::open(t, t.admin(), &format!("job_status_feed/{id}"), None)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The next event; `None` at the end of the stream. An event without its blank line is none, but the original ends its
    /// last one so (D-30).
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Entry> {
        let mut entry = Entry { name: String::new(), id: String::new(), data: String::new() };
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            let mut line = String::new();
            let count = self.body.read_line(&mut line).expect("an event in time");
            assert!(std::time::Instant::now() < end, "nothing but comments");
            if count == 0 && self.expect == Expect::Original && !entry.data.is_empty() {
                return Some(entry);
            }
            if count == 0 {
                assert_eq!(entry.name, "", "the last event is not ended");
                return None;
            }
            let line = line.strip_suffix('\n').unwrap_or(&line);
            match line.split_once(": ") {
                None if line.is_empty() && !entry.name.is_empty() => return Some(entry),
                None if line.is_empty() => {}
                _ if line.starts_with(':') => self.comments.push(line.to_owned()),
                Some(("event", name)) => entry.name = name.to_owned(),
                Some(("id", id)) => entry.id = id.to_owned(),
                Some(("data", data)) => entry.data = data.to_owned(),
                _ => panic!("not a line of a feed: {line:?}"),
            }
        }
    }

    /// Waits for a comment, in which a silent feed shows that it lives.
    #[track_caller]
    pub(crate) fn comment(&mut self) {
        let mut line = String::new();
        self.body.read_line(&mut line).expect("a comment in time");
        assert!(line.starts_with(':'), "not a comment: {line:?}");
        self.comments.push(line.trim_end().to_owned());
    }

    /// So many events.
    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<Entry> {
        (0..count).map(|_| self.next().expect("another event")).collect()
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<Entry> {
        let mut all = Vec::new();
        while let Some(entry) = self.next() {
            all.push(entry);
        }
        all
    }
}

/// The events in a few letters, one after the other.
pub(crate) fn brief(entries: &[Entry]) -> String {
    entries.iter().map(Entry::brief).collect::<Vec<_>>().join(" ")
}

/// Ids are unique; timestamps are first, read as dates, and rise.
#[track_caller]
pub(crate) fn check_sound(entries: &[Entry]) {
    let mut ids: Vec<&str> = entries.iter().map(|e| e.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), entries.len(), "ids are unique");
    let mut before = String::new();
    for entry in entries {
        let data = entry.json();
        let (first, stamp) = data.as_object().and_then(|o| o.iter().next()).expect("a member");
        assert_eq!(first, "timestamp", "{}", entry.data);
        let stamp = stamp.as_str().expect("a text").to_owned();
        // `YYYY-MM-DD HH:MM:SS.uuuuuuZ`
        let (whole, micros) = stamp.split_once('.').expect("a fraction");
        assert!(Wall::parse_iso8601(&format!("{}Z", whole.replacen(' ', "T", 1))).is_some(), "{stamp}");
        assert!(micros.len() == 7 && micros.ends_with('Z'), "{stamp}");
        assert!(stamp > before, "{stamp} after {before}");
        before = stamp;
    }
}
