//! Requests that can be signed wrongly in every way, as bytes. A module of each test program that sends them, which adds how.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pushy_core::auth::{Request, SigningKey, Version, sign};
use pushy_core::time::Wall;

/// Somebody who signs requests.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) key: Arc<SigningKey>,
}

#[derive(Default)]
struct Signed {
    by: Option<Actor>,
    version: Version,
    seconds: i64,
    method: Option<String>,
    path: Option<String>,
    body: Option<Vec<u8>>,
}

/// A request being put together. What is signed can differ from what is sent.
pub(crate) struct Draft<'a, To> {
    pub(crate) to: &'a To,
    pub(crate) method: &'a str,
    pub(crate) path: String,
    signed: Signed,
    body: Vec<u8>,
    edits: Vec<(String, Option<String>)>,
    chunked: bool,
}

impl<'a, To> Draft<'a, To> {
    pub(crate) fn new(to: &'a To, method: &'a str, path: String) -> Self {
        let (signed, body, edits) = (Signed::default(), Vec::new(), Vec::new());
        Draft { to, method, path, signed, body, edits, chunked: false }
    }

    pub(crate) fn by(mut self, actor: &Actor) -> Self {
        self.signed.by = Some(actor.clone());
        self
    }

    pub(crate) fn version(mut self, version: Version) -> Self {
        self.signed.version = version;
        self
    }

    /// Signed so many seconds from now.
    pub(crate) fn seconds(mut self, seconds: i64) -> Self {
        self.signed.seconds = seconds;
        self
    }

    pub(crate) fn sign_method(mut self, method: &str) -> Self {
        self.signed.method = Some(method.into());
        self
    }

    pub(crate) fn sign_path(mut self, path: &str) -> Self {
        self.signed.path = Some(path.into());
        self
    }

    pub(crate) fn sign_body(mut self, body: &str) -> Self {
        self.signed.body = Some(body.into());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.body(body).header("Content-Type", "application/json")
    }

    /// The body in two chunks, its length not said beforehand.
    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Sets a header, in place of a signed one of this name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.edits.push((name.into(), Some(value.into())));
        self
    }

    /// Leaves a header out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.edits.push((name.into(), None));
        self
    }

    fn headers(&self) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = Vec::new();
        if let Some(by) = &self.signed.by {
            let path = self.path.split('?').next().unwrap_or_default();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
            let request = Request {
                version: self.signed.version,
                method: self.signed.method.as_deref().unwrap_or(self.method),
                path: self.signed.path.as_deref().unwrap_or(path),
                body: self.signed.body.as_deref().unwrap_or(&self.body),
                user: &by.name,
                at: Wall::from_secs(now + self.signed.seconds),
                api_version: None,
            };
            let signed = sign(&by.key, &request).expect("a signature");
            headers.extend(signed.into_iter().map(|(name, value)| (name.into_owned(), value)));
        }
        for (name, value) in &self.edits {
            headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
            headers.extend(value.clone().map(|value| (name.clone(), value)));
        }
        headers
    }

    /// Head and body as sent; `host` unless a header names another.
    pub(crate) fn bytes(self, host: &str) -> (String, Vec<u8>) {
        let mut text = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        let headers = self.headers();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text += &format!("Host: {host}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut body = self.body;
        if self.chunked {
            text += "Transfer-Encoding: chunked\r\n";
            let (one, two) = body.split_at(body.len() / 2);
            let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
            body = [chunk(one), chunk(two), chunk(b"")].concat();
        } else if !body.is_empty() || self.method == "POST" {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        (text, body)
    }
}
