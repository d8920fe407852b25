//! How requests are sent to the target, and their answers compared whole.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use serde_json::{Value, json};

use crate::target::{Expect, Target};

/// No answer may take longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) use crate::draft::Actor;

/// A request to the target.
pub(crate) type Call<'a> = crate::draft::Draft<'a, Target>;

/// Where a server answers.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) tls: bool,
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Whether the certificate must be good.
    pub(crate) verify: bool,
}

/// A connection, encrypted or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Place {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub(crate) fn from_url(url: &str, verify: bool) -> Option<Place> {
        let url = url.trim_end_matches('/');
        let (tls, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if tls { 443 } else { 80 };
        let address = if has_port { rest.to_owned() } else { format!("{rest}:{port}") };
        (!rest.is_empty() && !rest.contains('/')).then_some(Place { tls, address, verify })
    }

    pub(crate) fn connect(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        if !self.tls {
            return Ok(Stream::Plain(stream));
        }
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let mut connector = SslConnector::builder(SslMethod::tls()).map_err(io::Error::other)?;
        if !self.verify {
            connector.set_verify(SslVerifyMode::NONE);
        }
        let connected = connector.build().connect(host, stream).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(connected)))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(buffer),
            Stream::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl Call<'_> {
    /// Sends it on a connection of its own, which stands when this returns.
    pub(crate) fn open(self) -> io::Result<BufReader<Stream>> {
        let place = self.to.place();
        let (text, body) = self.bytes(&place.address);
        let mut stream = place.connect()?;
        stream.write_all(text.as_bytes())?;
        // A server that refuses a long body may close before it has read it.
        let _ = stream.write_all(&body);
        Ok(BufReader::new(stream))
    }

    /// Sends it and reads the whole answer.
    pub(crate) fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        let (expect, org) = (self.to.expect, self.to.org.clone());
        let head = self.method == "HEAD";
        let mut reader = self.open().unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut bytes = Vec::new();
        // Reading ends badly when a refused body was still under way.
        let _ = reader.read_to_end(&mut bytes);
        Answer::parse(&bytes, head, expect, org, &what)
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    expect: Expect,
    org: String,
    what: String,
}

/// Status and headers of an answer's head.
pub(crate) fn parse_head(head: &str) -> Option<(u16, Vec<(String, String)>)> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()));
    Some((status, headers.collect()))
}

fn join_chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && end + 2 + size <= rest.len()) else { break };
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    body
}

impl Answer {
    fn parse(bytes: &[u8], head: bool, expect: Expect, org: String, what: &str) -> Answer {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{what}: no answer: {:?}", String::from_utf8_lossy(bytes)));
        let text = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
        let (status, headers) = parse_head(text).expect("an HTTP head");
        let body = bytes[end + 4..].to_vec();
        let mut answer = Answer { status, headers, body, expect, org, what: what.to_owned() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = join_chunks(&answer.body);
        } else if let Some(length) = answer.header("content-length").filter(|_| !head) {
            assert_eq!(length, answer.body.len().to_string(), "{what}: the answer broke off");
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.check_status(200);
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{}: {e}: {}", self.what, self.text()))
    }

    /// Status only.
    #[track_caller]
    pub(crate) fn check_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}: {}", self.what, self.text());
    }

    /// Status and whole body, and that JSON says it is JSON: of errors ours do, the original's have no type (2.2, D-38).
    #[track_caller]
    pub(crate) fn check(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.text().as_str()), (status, body), "{}", self.what);
        if status < 400 || self.expect == Expect::Ours {
            assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.what);
        }
    }

    /// An error of authentication or authorization (2.3).
    #[track_caller]
    pub(crate) fn check_error(&self, status: u16, text: &str) {
        self.check(status, &json!({ "error": [text] }).to_string());
    }

    /// An error of a job's body (2.5).
    #[track_caller]
    pub(crate) fn check_invalid(&self, text: &str) {
        self.check(400, &json!({ "error": text }).to_string());
    }

    /// An error that is the HTTP framework's in the original.
    ///
    /// Exception of decision 18: JSON in place of HTML.
    #[track_caller]
    pub(crate) fn check_framework(&self, status: u16) {
        let text = match status {
            404 => "not found",
            405 => "method not allowed",
            406 => "not acceptable",
            415 => "unsupported media type",
            501 => "not implemented",
            other => panic!("{other} is not one of these"),
        };
        match self.expect {
            Expect::Ours => self.check_error(status, text),
            Expect::Original => {
                self.check_status(status);
                let kind = self.header("content-type").unwrap_or_default();
                assert!(kind.starts_with("text/html"), "{}: {kind}", self.what);
            }
        }
    }

    /// 405 with the methods that are allowed (2.4).
    #[track_caller]
    pub(crate) fn check_not_allowed(&self, allow: &str) {
        self.check_framework(405);
        assert_eq!(self.header("allow"), Some(allow), "{}", self.what);
    }

    #[track_caller]
    fn check_unauthorized(&self, text: &str) {
        self.check_error(401, text);
        let asked = self.header("www-authenticate");
        assert_eq!(asked, Some(r#"X-Ops-Sign version="1.0" version="1.1""#), "{}", self.what);
    }

    #[track_caller]
    pub(crate) fn check_unknown(&self, actor: &Actor) {
        self.check_unauthorized(&format!(
            "Failed to authenticate as '{}'. Ensure that your node_name and client key are correct.",
            actor.name
        ));
    }

    #[track_caller]
    pub(crate) fn check_bad_signature(&self, name: &str) {
        self.check_unauthorized(&format!("Invalid signature for user or client '{name}'"));
    }

    #[track_caller]
    pub(crate) fn check_not_associated(&self, actor: &Actor) {
        self.check_error(
            403,
            &format!("'{}' is not associated with organization '{}'", actor.name, self.org),
        );
    }

    #[track_caller]
    pub(crate) fn check_no_access(&self, actor: &Actor) {
        self.check_error(
            403,
            &format!("User or client '{}' does not have access to that action on this server.", actor.name),
        );
    }

    /// The id in a 201.
    #[track_caller]
    pub(crate) fn job_id(&self) -> String {
        self.check_status(201);
        let body: Value = serde_json::from_slice(&self.body).expect("JSON");
        let uri = body["uri"].as_str().expect("a uri");
        uri[uri.len() - 32..].to_owned()
    }
}
