//! Load on the REST API: requests signed beforehand, many connections, one thread.

use std::time::{Duration, Instant};

use pushy_core::auth::{Request, SigningKey, Version, sign};
use pushy_core::time::Wall;
use pushy_tests::http::wall;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::lab::{Outcome, text};

/// A runtime of one thread: the other core is the server's.
pub(crate) fn runtime() -> Outcome<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)
}

/// Who signs, and where it is sent.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) host: &'a str,
    pub(crate) user: &'a str,
    pub(crate) key: &'a SigningKey,
}

impl Sender<'_> {
    /// A whole request as bytes; `number` makes its signature another than its neighbours'.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str, number: usize) -> Outcome<Vec<u8>> {
        let at = Wall::from_secs(wall().secs() - (number % 300) as i64);
        let request = Request {
            version: Version::V1_1,
            method,
            path,
            body: body.as_bytes(),
            user: self.user,
            at,
            api_version: None,
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n", self.host);
        for (name, value) in sign(self.key, &request).map_err(text)? {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.push_str(body);
        Ok(head.into_bytes())
    }
}

/// A kept connection with a buffer that is used again.
pub(crate) struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    pub(crate) async fn open(host: &str) -> Outcome<Line> {
        let stream = TcpStream::connect(host).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        Ok(Line { stream, buffer: Vec::with_capacity(1 << 17) })
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> Outcome<()> {
        self.stream.write_all(request).await.map_err(text)
    }

    async fn read(&mut self) -> Outcome<()> {
        match self.stream.read_buf(&mut self.buffer).await.map_err(text)? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }

    /// The length of the head of the answer, which must have this status.
    pub(crate) async fn head(&mut self, status: &str) -> Outcome<usize> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..at]);
                let good = head.split(' ').nth(1) == Some(status);
                return if good { Ok(at + 4) } else { Err(head.into_owned()) };
            }
            self.read().await?;
        }
    }

    /// Sends a request and reads an answer of this status; the length of its body.
    pub(crate) async fn exchange(&mut self, request: &[u8], status: &str) -> Outcome<usize> {
        self.buffer.clear();
        self.send(request).await?;
        let head = self.head(status).await?;
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1).and_then(|t| t.split("\r\n").next()?.parse().ok());
        let length: usize = length.ok_or("an answer without a length")?;
        while self.buffer.len() < head + length {
            self.read().await?;
        }
        Ok(length)
    }

    /// Reads a stream to its end; how many bytes of body, chunk headers included.
    pub(crate) async fn read_to_end(&mut self) -> Outcome<usize> {
        let mut read = 0;
        loop {
            if self.buffer.ends_with(b"\r\n0\r\n\r\n") {
                return Ok(read + self.buffer.len());
            }
            // Enough is kept to recognise the end.
            let keep = self.buffer.len().saturating_sub(16);
            read += keep;
            self.buffer.drain(..keep);
            self.read().await?;
        }
    }

    /// Drops what was read, and room that is not needed.
    pub(crate) fn forget(&mut self) {
        self.buffer = Vec::with_capacity(4096);
    }
}

/// Sends requests as fast as these connections go until the time is up; how many were answered 200.
pub(crate) async fn closed_loop(
    host: &str,
    connections: usize,
    requests: &[Vec<u8>],
    span: Duration,
) -> Outcome<usize> {
    let mut tasks = JoinSet::new();
    let end = Instant::now() + span;
    for number in 0..connections {
        let mine: Vec<Vec<u8>> = requests.iter().skip(number).step_by(connections).cloned().collect();
        let mut line = Line::open(host).await?;
        tasks.spawn(async move {
            let mut count = 0;
            while Instant::now() < end {
                line.exchange(&mine[count % mine.len()], "200").await?;
                count += 1;
            }
            Ok(count)
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// Sends each request at its time, whatever became of those before; latencies from that time on, in milliseconds, sorted.
pub(crate) async fn open_loop(
    host: &str,
    connections: usize,
    requests: &[Vec<u8>],
    every: Duration,
) -> Outcome<Vec<f64>> {
    let mut tasks = JoinSet::new();
    let mut lines = Vec::new();
    for _ in 0..connections {
        lines.push(Line::open(host).await?);
    }
    let start = Instant::now() + Duration::from_millis(100);
    for (number, mut line) in lines.into_iter().enumerate() {
        let mine: Vec<(usize, Vec<u8>)> = requests
            .iter()
            .enumerate()
            .skip(number)
            .step_by(connections)
            .map(|(i, r)| (i, r.clone()))
            .collect();
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(mine.len());
            for (number, request) in mine {
                let due = start + every * number as u32;
                tokio::time::sleep_until(due.into()).await;
                line.exchange(&request, "201").await?;
                latencies.push(due.elapsed().as_secs_f64() * 1000.0);
            }
            Outcome::Ok(latencies)
        });
    }
    let mut all = Vec::with_capacity(requests.len());
    for latencies in tasks.join_all().await {
        all.extend(latencies?);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}
