//! Chef's signed headers: signing requests and checking them (3.1; "auth 2.2" and the like are sections of the
//! specification of the signed headers).
//!
//! [`sign()`] makes the headers of a request. A server checks in two steps, because looking up keys lies between them:
//! [`Head::read`] takes the headers apart and checks the clock, [`Head::verify`] checks the signature over
//! method, path and body. [`AuthError`] knows the status and body of every refusal (2.3).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, ErrorCode, Result};

mod key;
mod sign;
mod verify;

pub use key::{PublicKey, SigningKey, is_inline_key};
pub use sign::{Request, Unsigned, sign};
pub use verify::{AuthError, Head, MAX_SKEW};

/// A version of the protocol that can be signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// `1.0`: SHA-1, the user's name in the clear; limits its length.
    V1_0,
    /// `1.1`: SHA-1, the user's name hashed. Chef's default.
    #[default]
    V1_1,
    /// `1.3`: SHA-256. Chef's choice in FIPS mode.
    V1_3,
}

impl Version {
    /// The text in configurations and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::V1_0 => "1.0",
            Version::V1_1 => "1.1",
            Version::V1_3 => "1.3",
        }
    }

    /// The version with this text.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for any other text; versions are compared as text.
    pub fn from_text(text: &str) -> Result<Version> {
        [Version::V1_0, Version::V1_1, Version::V1_3].into_iter().find(|v| v.as_str() == text).ok_or_else(
            || {
                Error::new(
                    ErrorCode::InvalidArgument,
                    "unknown authentication protocol version; use 1.0, 1.1 or 1.3",
                )
            },
        )
    }
}

/// What the text and the signature of a version are made of. 1.2, which is only ever received, is the text of 1.1 with
/// the signature scheme of 1.3 over SHA-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

impl From<Version> for Scheme {
    fn from(version: Version) -> Scheme {
        match version {
            Version::V1_0 => Scheme::V1_0,
            Version::V1_1 => Scheme::V1_1,
            Version::V1_3 => Scheme::V1_3,
        }
    }
}

/// The `DigestInfo` before a SHA-1 hash in RSASSA-PKCS1-v1_5 (RFC 8017, 9.2).
const SHA1_INFO: &[u8] = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
/// The same for SHA-256.
const SHA256_INFO: &[u8] = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

/// A hash in Base64, on the stack: 28 characters for SHA-1, 44 for SHA-256.
#[derive(Clone, Copy)]
struct HashText {
    text: [u8; 44],
    length: usize,
}

impl HashText {
    fn of(hash: &[u8]) -> HashText {
        let mut text = [0; 44];
        // 20 and 32 bytes take 28 and 44 characters, which fit.
        let length = STANDARD.encode_slice(hash, &mut text).unwrap_or(0);
        HashText { text, length }
    }

    fn sha1(bytes: &[u8]) -> HashText {
        HashText::of(&openssl::sha::sha1(bytes))
    }

    /// The content hash of `body` (auth 2.5).
    fn content(scheme: Scheme, body: &[u8]) -> HashText {
        match scheme {
            Scheme::V1_0 | Scheme::V1_1 | Scheme::V1_2 => HashText::sha1(body),
            Scheme::V1_3 => HashText::of(&openssl::sha::sha256(body)),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }

    fn as_str(&self) -> &str {
        // Base64 is ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// The path as it is signed: runs of `/` become one, one at the end is dropped unless it is all there is; nothing
/// else changes (auth 2.2). A query is not looked for.
pub fn canonical_path(path: &str) -> Cow<'_, str> {
    let clean = !path.contains("//") && (path.len() <= 1 || !path.ends_with('/'));
    if clean {
        return Cow::Borrowed(path);
    }
    let mut canonical = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !canonical.ends_with('/') {
            canonical.push(c);
        }
    }
    if canonical.len() > 1 && canonical.ends_with('/') {
        canonical.pop();
    }
    Cow::Owned(canonical)
}

/// The path of a request target: everything before the first `?`.
fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// The parts of the text to sign.
struct Parts<'a> {
    scheme: Scheme,
    method: &'a str,
    /// Canonical.
    path: &'a str,
    content_hash: &'a HashText,
    timestamp: &'a str,
    user: &'a str,
    api_version: &'a str,
}

impl Parts<'_> {
    /// The text to sign: lines joined by LF (auth 3).
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(256 + self.path.len() + self.user.len());
        let mut line = |label: &str, value: &[u8]| {
            if !text.is_empty() {
                text.push(b'\n');
            }
            text.extend_from_slice(label.as_bytes());
            text.extend_from_slice(value);
        };
        let mut method = [0u8; 16];
        let upper = match method.get_mut(..self.method.len()) {
            Some(short) => {
                short.copy_from_slice(self.method.as_bytes());
                short.make_ascii_uppercase();
                Cow::Borrowed(&*short)
            }
            None => Cow::Owned(self.method.to_ascii_uppercase().into_bytes()),
        };
        line("Method:", &upper);
        if self.scheme == Scheme::V1_3 {
            line("Path:", self.path.as_bytes());
            line("X-Ops-Content-Hash:", self.content_hash.as_bytes());
            line("X-Ops-Sign:version=1.3", b"");
            line("X-Ops-Timestamp:", self.timestamp.as_bytes());
            line("X-Ops-UserId:", self.user.as_bytes());
            line("X-Ops-Server-API-Version:", self.api_version.as_bytes());
        } else {
            line("Hashed Path:", HashText::sha1(self.path.as_bytes()).as_bytes());
            line("X-Ops-Content-Hash:", self.content_hash.as_bytes());
            line("X-Ops-Timestamp:", self.timestamp.as_bytes());
            if self.scheme == Scheme::V1_0 {
                line("X-Ops-UserId:", self.user.as_bytes());
            } else {
                line("X-Ops-UserId:", HashText::sha1(self.user.as_bytes()).as_bytes());
            }
        }
        text
    }
}
