//! Checking a signed request, in the order of section 2.1 of the protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::sign::authorization;
use super::{HashText, Parts, PublicKey, SHA1_INFO, SHA256_INFO, Scheme, canonical_path, without_query};
use crate::json::Object;
use crate::time::Wall;

/// A request must be signed less than this many seconds away from the server's clock, either way.
pub const MAX_SKEW: u32 = 900;

/// Signature lines read at most: enough for 16384-bit keys.
const MAX_LINES: usize = 46;
/// Characters of Base64 read at most, white space not counted.
const MAX_SIGNATURE: usize = 2732;

/// Why a request is refused, up to and including the look-ups of 3.2, with the answer of 2.3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Headers are missing or empty; their names in the fixed order.
    #[error("missing required authentication header(s) {}", quoted(.0))]
    MissingHeaders(Vec<&'static str>),
    /// `X-Ops-Timestamp` is not `YYYY-MM-DDTHH:MM:SSZ`.
    #[error("bad header(s) 'X-Ops-Timestamp'")]
    BadTimestamp,
    /// The request was signed too long ago or ahead.
    #[error("Failed to authenticate as {user}. Synchronize the clock on your host.")]
    Clock {
        /// Who claims to ask.
        user: String,
    },
    /// `X-Ops-Sign` names no version, or a version or algorithm that is not supported.
    #[error("Unsupported authentication protocol version")]
    Version,
    /// A header that cannot be understood.
    #[error("unexpected malformed request message: {0}")]
    Malformed(&'static str),
    /// The organization does not exist.
    #[error("organization '{org}' does not exist.")]
    UnknownOrganization {
        /// As in the path.
        org: String,
    },
    /// Nobody has this name.
    #[error("Failed to authenticate as '{user}'. Ensure that your node_name and client key are correct.")]
    UnknownPrincipal {
        /// Who claims to ask.
        user: String,
    },
    /// Somebody has this name, but not in this organization.
    #[error("'{user}' is not associated with organization '{org}'")]
    NotAssociated {
        /// Who asks.
        user: String,
        /// The organization.
        org: String,
    },
    /// The signature, or the content hash, does not fit.
    #[error("Invalid signature for user or client '{user}'")]
    BadSignature {
        /// Who claims to ask.
        user: String,
    },
    /// The rules do not allow this requester the action.
    #[error("User or client '{user}' does not have access to that action on this server.")]
    NoAccess {
        /// Who asks.
        user: String,
    },
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ")
}

impl AuthError {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            AuthError::MissingHeaders(_) | AuthError::Version | AuthError::Malformed(_) => 400,
            AuthError::BadTimestamp
            | AuthError::Clock { .. }
            | AuthError::UnknownPrincipal { .. }
            | AuthError::BadSignature { .. } => 401,
            AuthError::NotAssociated { .. } | AuthError::NoAccess { .. } => 403,
            AuthError::UnknownOrganization { .. } => 404,
        }
    }

    /// The JSON body: `{"error":["TEXT"]}`.
    pub fn body(&self) -> String {
        Object::with_capacity(128).member("error", &[self.to_string()]).end_text()
    }

    /// The value of the header `WWW-Authenticate`, where the original sends one.
    pub const fn www_authenticate(&self) -> Option<&'static str> {
        match self {
            AuthError::UnknownPrincipal { .. } | AuthError::BadSignature { .. } => {
                Some("X-Ops-Sign version=\"1.0\" version=\"1.1\"")
            }
            _ => None,
        }
    }
}

/// The authentication headers of a request, understood but not yet believed.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    scheme: Scheme,
    user: &'a str,
    timestamp: &'a str,
    content_hash: &'a [u8],
    api_version: &'a str,
    /// Base64, without white space.
    signature: Vec<u8>,
}

impl<'a> Head<'a> {
    /// Takes the headers apart: presence, timestamp, clock (`skew` in seconds, the bound itself is out), version and
    /// algorithm, in this order. `header` looks a header up by name in any case; of a header that was sent twice
    /// it should give the first.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn read(
        header: impl Fn(&str) -> Option<&'a [u8]>,
        now: Wall,
        skew: u32,
    ) -> Result<Head<'a>, AuthError> {
        let present = |name: &str| header(name).filter(|value| !value.is_empty());
        let names = ["X-Ops-UserId", "X-Ops-Timestamp", "X-Ops-Sign", "X-Ops-Content-Hash"];
        let values = names.map(present);
        let [Some(user), Some(timestamp), Some(description), Some(content_hash)] = values else {
            let missing = names.into_iter().zip(values).filter(|(_, v)| v.is_none()).map(|(name, _)| name);
            return Err(AuthError::MissingHeaders(missing.collect()));
        };
        let timestamp = std::str::from_utf8(timestamp).map_err(|_| AuthError::BadTimestamp)?;
        let signed_at = Wall::parse_iso8601(timestamp).ok_or(AuthError::BadTimestamp)?;
        let user = std::str::from_utf8(user)
            .map_err(|_| AuthError::Malformed("the header 'X-Ops-UserId' is not UTF-8"))?;
        if now.secs().saturating_sub(signed_at.secs()).saturating_abs() >= i64::from(skew) {
            return Err(AuthError::Clock { user: user.to_owned() });
        }
        let scheme = scheme(description).ok_or(AuthError::Version)?;
        let api_version = match present("X-Ops-Server-API-Version") {
            None => "0",
            Some(text) => std::str::from_utf8(text)
                .map_err(|_| AuthError::Malformed("the header 'X-Ops-Server-API-Version' is not UTF-8"))?,
        };
        // A line end in a signed value would add a line to the text: nobody is called that, nobody sent that.
        if [user, api_version].iter().any(|v| v.chars().any(char::is_control)) {
            return Err(AuthError::BadSignature { user: user.to_owned() });
        }
        Ok(Head { scheme, user, timestamp, content_hash, api_version, signature: signature(present) })
    }

    /// Who claims to ask.
    pub fn user(&self) -> &'a str {
        self.user
    }

    /// Checks signature and content hash against the request as received: `target` is the request target, whose query is
    /// cut off. The first of `keys` that fits decides who it was: the answer is its place.
    ///
    /// # Errors
    /// [`AuthError::BadSignature`].
    pub fn verify<'k>(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        keys: impl IntoIterator<Item = &'k PublicKey>,
    ) -> Result<usize, AuthError> {
        self.fitting_key(method, target, body, keys)
            .ok_or_else(|| AuthError::BadSignature { user: self.user.to_owned() })
    }

    fn fitting_key<'k>(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        keys: impl IntoIterator<Item = &'k PublicKey>,
    ) -> Option<usize> {
        let content_hash = HashText::content(self.scheme, body);
        if content_hash.as_bytes() != self.content_hash {
            return None;
        }
        // A request line cannot hold an empty path: what was asked for is `/`.
        let path = match without_query(target) {
            "" => "/",
            path => path,
        };
        let text = Parts {
            scheme: self.scheme,
            method,
            path: &canonical_path(path),
            content_hash: &content_hash,
            timestamp: self.timestamp,
            user: self.user,
            api_version: self.api_version,
        }
        .text();
        let mut bytes = [0u8; MAX_SIGNATURE / 4 * 3];
        let length = STANDARD.decode_slice(&self.signature, &mut bytes).ok()?;
        let signature = &bytes[..length];
        let mut keys = keys.into_iter();
        match self.scheme {
            // Programs that drop leading zeros of these exist.
            Scheme::V1_0 | Scheme::V1_1 => keys.position(|key| key.opens_to(signature, &[], &text)),
            Scheme::V1_2 => {
                let hash = openssl::sha::sha1(&text);
                keys.position(|key| {
                    signature.len() == key.size() && key.opens_to(signature, SHA1_INFO, &hash)
                })
            }
            Scheme::V1_3 => {
                let hash = openssl::sha::sha256(&text);
                keys.position(|key| {
                    signature.len() == key.size() && key.opens_to(signature, SHA256_INFO, &hash)
                })
            }
        }
    }
}

/// What `X-Ops-Sign` describes: items `name=value` between semicolons, nothing trimmed; the first of a repeated item counts,
/// other items are passed over, an empty one is only allowed at the end.
fn scheme(description: &[u8]) -> Option<Scheme> {
    let description = description.strip_suffix(b";").unwrap_or(description);
    let (mut version, mut algorithm) = (None, None);
    for item in description.split(|b| *b == b';') {
        if item.is_empty() {
            return None;
        }
        let mut sides = item.split(|b| *b == b'=');
        let (Some(name), Some(value), None) = (sides.next(), sides.next(), sides.next()) else { continue };
        match name {
            b"version" => version = version.or(Some(value)),
            b"algorithm" => algorithm = algorithm.or(Some(value)),
            _ => {}
        }
    }
    match (version?, algorithm) {
        (b"1.0", None | Some(b"sha1")) => Some(Scheme::V1_0),
        (b"1.1", None | Some(b"sha1")) => Some(Scheme::V1_1),
        (b"1.2", None | Some(b"sha1")) => Some(Scheme::V1_2),
        (b"1.3", None | Some(b"sha256")) => Some(Scheme::V1_3),
        _ => None,
    }
}

/// The signature lines put together, numbered from 1 until one is missing; empty when they hold too much.
fn signature<'a>(present: impl Fn(&str) -> Option<&'a [u8]>) -> Vec<u8> {
    let mut signature = Vec::with_capacity(700);
    for number in 1..=MAX_LINES {
        let Some(line) = present(&authorization(number)) else { break };
        if signature.len() + line.len() > 2 * MAX_SIGNATURE {
            return Vec::new();
        }
        signature.extend(line.iter().filter(|b| !b.is_ascii_whitespace()));
    }
    if signature.len() > MAX_SIGNATURE {
        return Vec::new();
    }
    signature
}
