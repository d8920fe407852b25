//! Signing a request.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{HashText, Parts, SHA256_INFO, SigningKey, Version, canonical_path, without_query};
use crate::error::{Error, ErrorCode, Result};
use crate::time::Wall;

/// A request about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Version of the protocol to sign with.
    pub version: Version,
    /// `GET`, `POST` …; signed in upper case.
    pub method: &'a str,
    /// The path as it goes on the request line, escaped; a query is cut off. Turn an empty path into `/` before:
    /// that is what will be requested (auth 2.2).
    pub path: &'a str,
    /// The body; empty for none.
    pub body: &'a [u8],
    /// The name of the user or client.
    pub user: &'a str,
    /// The time of signing.
    pub at: Wall,
    /// The value of the header `X-Ops-Server-API-Version`, which the caller sends; `None` when it is not sent. Only 1.3
    /// signs it.
    pub api_version: Option<&'a str>,
}

/// Characters of the signature on one header line.
const LINE: usize = 60;

/// The text of a request and what its headers need beside the signature, for signers outside this crate (an agent).
#[derive(Debug, Clone)]
pub struct Unsigned<'a> {
    version: Version,
    user: &'a str,
    timestamp: String,
    content_hash: String,
    text: Vec<u8>,
}

impl<'a> Unsigned<'a> {
    /// Makes the text to sign.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidName`] for an empty user name, [`ErrorCode::InvalidArgument`] for a path; both
    /// when they contain control characters.
    pub fn new(request: &Request<'a>) -> Result<Unsigned<'a>> {
        if request.user.is_empty() || request.user.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorCode::InvalidName,
                "the user name is empty or has control characters",
            ));
        }
        let path = without_query(request.path);
        let values = [path, request.method, request.api_version.unwrap_or("")];
        if values.iter().any(|v| v.chars().any(char::is_control)) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "the request has control characters in its path",
            ));
        }
        let scheme = request.version.into();
        let content_hash = HashText::content(scheme, request.body);
        let timestamp = request.at.iso8601();
        let text = Parts {
            scheme,
            method: request.method,
            path: &canonical_path(path),
            content_hash: &content_hash,
            timestamp: &timestamp,
            user: request.user,
            api_version: request.api_version.unwrap_or("0"),
        }
        .text();
        Ok(Unsigned {
            version: request.version,
            user: request.user,
            timestamp,
            content_hash: content_hash.as_str().to_owned(),
            text,
        })
    }

    /// The text to sign (auth 3).
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The request's headers, names as the originals write them, in their order (auth 4.5, 4.6).
    pub fn headers(self, signature: &[u8]) -> Vec<(Cow<'static, str>, String)> {
        let signature = STANDARD.encode(signature);
        let mut headers = Vec::with_capacity(4 + signature.len().div_ceil(LINE));
        let description = match self.version {
            Version::V1_0 => "algorithm=sha1;version=1.0;",
            Version::V1_1 => "algorithm=sha1;version=1.1;",
            Version::V1_3 => "algorithm=sha256;version=1.3;",
        };
        headers.push((Cow::Borrowed("X-Ops-Sign"), description.to_owned()));
        headers.push((Cow::Borrowed("X-Ops-Userid"), self.user.to_owned()));
        headers.push((Cow::Borrowed("X-Ops-Timestamp"), self.timestamp));
        headers.push((Cow::Borrowed("X-Ops-Content-Hash"), self.content_hash));
        let mut rest = signature.as_str();
        while !rest.is_empty() {
            // Base64 is ASCII: any place is a boundary.
            let (line, tail) = rest.split_at(rest.len().min(LINE));
            headers.push((authorization(headers.len() - 3), line.to_owned()));
            rest = tail;
        }
        headers
    }
}

/// The names of the first twelve signature lines: enough for 4096-bit keys.
const AUTHORIZATION: [&str; 12] = [
    "X-Ops-Authorization-1",
    "X-Ops-Authorization-2",
    "X-Ops-Authorization-3",
    "X-Ops-Authorization-4",
    "X-Ops-Authorization-5",
    "X-Ops-Authorization-6",
    "X-Ops-Authorization-7",
    "X-Ops-Authorization-8",
    "X-Ops-Authorization-9",
    "X-Ops-Authorization-10",
    "X-Ops-Authorization-11",
    "X-Ops-Authorization-12",
];

/// The name of signature line `number`, counted from 1.
pub(super) fn authorization(number: usize) -> Cow<'static, str> {
    match AUTHORIZATION.get(number.wrapping_sub(1)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("X-Ops-Authorization-{number}")),
    }
}

/// Signs a request: the headers to send beside `X-Ops-Server-API-Version`.
///
/// # Errors
/// As [`Unsigned::new`]; [`ErrorCode::InvalidArgument`] when the text is too long for the key, which only 1.0 and 1.1 know
/// (auth 4.4).
pub fn sign(key: &SigningKey, request: &Request<'_>) -> Result<Vec<(Cow<'static, str>, String)>> {
    let unsigned = Unsigned::new(request)?;
    let mut signature = Vec::new();
    match request.version {
        Version::V1_0 | Version::V1_1 => key.seal(unsigned.text(), &mut signature)?,
        Version::V1_3 => {
            let mut info = [0u8; SHA256_INFO.len() + 32];
            info[..SHA256_INFO.len()].copy_from_slice(SHA256_INFO);
            info[SHA256_INFO.len()..].copy_from_slice(&openssl::sha::sha256(unsigned.text()));
            key.seal(&info, &mut signature)?;
        }
    }
    Ok(unsigned.headers(&signature))
}
