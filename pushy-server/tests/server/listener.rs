//! Somebody who listens to an event feed.

use std::time::Duration;

use pushy_core::feed::{Entry, Reader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::lab::{Actor, Call, DEADLINE, Lab};

/// One connection to a feed.
pub(crate) struct Listener {
    stream: TcpStream,
    /// What has come and is not looked at.
    buffer: Vec<u8>,
    pub(crate) head: String,
    reader: Reader,
    /// The body so far.
    pub(crate) body: Vec<u8>,
}

impl Listener {
    /// Asks and waits for the head of the answer, which must be a stream's.
    pub(crate) async fn open(lab: &Lab, actor: &Actor, path: &str, after: Option<&str>) -> Listener {
        let mut call = lab.call("GET", path).by(actor);
        if let Some(id) = after {
            call = call.header("Last-Event-ID", id);
        }
        Listener::send(call).await
    }

    pub(crate) async fn send(call: Call<'_>) -> Listener {
        let mut listener = Listener {
            stream: call.start().await,
            buffer: Vec::new(),
            head: String::new(),
            reader: Reader::default(),
            body: Vec::new(),
        };
        let end = loop {
            let end = listener.buffer.windows(4).position(|w| w == b"\r\n\r\n");
            match end {
                Some(end) => break end,
                None => assert!(listener.read().await, "no answer"),
            }
        };
        let rest = listener.buffer.split_off(end + 4);
        listener.head = String::from_utf8(std::mem::replace(&mut listener.buffer, rest)).expect("ASCII");
        assert!(listener.head.starts_with("HTTP/1.1 200 "), "{}", listener.head);
        listener
    }

    async fn read(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        let count = tokio::time::timeout(DEADLINE, read).await.expect("something in time");
        count.is_ok_and(|count| count > 0)
    }

    /// The next piece of the body; `None`: the body has ended as it should, `Err`: the connection broke.
    pub(crate) async fn piece(&mut self) -> Result<Option<Vec<u8>>, ()> {
        loop {
            if let Some(line) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let size = std::str::from_utf8(&self.buffer[..line]).expect("a size");
                let size = usize::from_str_radix(size, 16).expect("a size");
                if self.buffer.len() >= line + 2 + size + 2 {
                    let chunk: Vec<u8> = self.buffer.drain(..line + 2 + size + 2).collect();
                    let chunk = chunk[line + 2..line + 2 + size].to_vec();
                    self.body.extend(&chunk);
                    return Ok((!chunk.is_empty()).then_some(chunk));
                }
            }
            if !self.read().await {
                return Err(());
            }
        }
    }

    /// The next event; `None`: the feed has ended as it should.
    pub(crate) async fn try_next(&mut self) -> Result<Option<Entry>, ()> {
        loop {
            if let Some(entry) = self.reader.next_entry() {
                return Ok(Some(entry));
            }
            match self.piece().await? {
                Some(piece) => self.reader.push(&piece).expect("a readable feed"),
                None => return Ok(None),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Entry {
        self.try_next().await.expect("an open feed").expect("another event")
    }

    /// Everything until the end.
    pub(crate) async fn rest(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Some(entry) = self.try_next().await.expect("an open feed") {
            entries.push(entry);
        }
        entries
    }

    /// Nothing more comes for a while.
    pub(crate) async fn is_silent(&mut self) {
        let more = self.within_a_while().await;
        assert!(more.is_none(), "{more:?}");
    }

    /// What comes within a while.
    pub(crate) async fn within_a_while(&mut self) -> Option<Result<Option<Entry>, ()>> {
        tokio::time::timeout(Duration::from_millis(50), self.try_next()).await.ok()
    }
}

/// An entry in one word: its name and its status, and which node.
pub(crate) fn word(entry: &Entry) -> String {
    let data = entry.json().expect("a JSON object");
    let shown = ["node", "status"].into_iter().filter_map(|member| data[member].as_str());
    let shown: Vec<&str> = shown.collect();
    if shown.is_empty() { entry.name.clone() } else { format!("{}({})", entry.name, shown.join(":")) }
}

/// Every entry in one word, and that ids are unique and stamps rise (8.6, H16).
pub(crate) fn words(entries: &[Entry]) -> Vec<String> {
    let mut ids: Vec<_> = entries.iter().map(|entry| entry.id.as_deref().expect("an id")).collect();
    let stamps: Vec<_> = entries.iter().map(|entry| entry.at().expect("a stamp")).collect();
    assert!(stamps.windows(2).all(|two| two[0] < two[1]), "{stamps:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), entries.len());
    entries.iter().map(word).collect()
}
