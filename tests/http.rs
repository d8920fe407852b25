//! A small HTTP/1.1 client with Chef's signature, for tests and benches that must not measure a larger one.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pushy_core::auth::{Request, SigningKey, Version, sign};
use pushy_core::time::Wall;

/// The system's clock.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A connection that is kept open, and made again when the server has closed it.
pub struct Http {
    host: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Http {
    /// A client of `HOST:PORT`; connects with its first request.
    pub fn new(host: &str) -> Http {
        Http { host: host.to_owned(), stream: None }
    }

    /// Sends one signed request; the status and the body.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not answer in HTTP with a length.
    pub fn call(
        &mut self,
        (user, key): (&str, &SigningKey),
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<(u16, Vec<u8>)> {
        let request = Request {
            version: Version::V1_1,
            method,
            path,
            body: body.as_bytes(),
            user,
            at: wall(),
            api_version: None,
        };
        let headers = sign(key, &request).map_err(io::Error::other)?;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n", self.host);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        let kept = self.stream.is_some();
        match self.exchange(text.as_bytes()) {
            // A kept connection may have been closed meanwhile.
            Err(_) if kept => self.exchange(text.as_bytes()),
            other => other,
        }
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.host)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(request)?;
        let answer = read_answer(&mut stream)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

fn read_answer(stream: &mut impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad("no HTTP status"))?;
    let mut length = None;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok();
            }
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => return Err(bad("not an HTTP header")),
        }
    }
    let mut body = vec![0; length.ok_or_else(|| bad("an answer without Content-Length"))?];
    stream.read_exact(&mut body)?;
    Ok((status, body))
}
