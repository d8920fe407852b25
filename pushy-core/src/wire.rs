//! Two frames ↔ (header, body): size limits, signatures, clock window (4.3 to 4.6).
//!
//! The header frame signs the body frame's bytes. A node and the server share a [`SessionKey`] for HMAC; the
//! server's heartbeats to everybody carry an RSA signature. What cannot be trusted is dropped without
//! an answer, for a reason that [`WireError`] names.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::sha::{Sha256, sha1};
use subtle::ConstantTimeEq as _;
use zeroize::ZeroizeOnDrop;

use crate::auth::{PublicKey, SigningKey};
use crate::error::Result;
use crate::message::{DecodeError, FromNode, FromServer};
use crate::time::Wall;

/// The longest header frame taken, in bytes (4.3).
pub const MAX_HEADER: usize = 2048;

/// The longest body a node takes from the server, in bytes: a job request has at most 1,000,000, and JSON may
/// escape some of it differently.
pub const MAX_SERVER_BODY: usize = 2 * 1024 * 1024;

/// The key that signs the messages between one node and the server, both ways: 32 random bytes.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct SessionKey(pub [u8; 32]);

impl SessionKey {
    /// A new key.
    pub fn generate(random: &mut (impl rand_core::RngCore + rand_core::CryptoRng + ?Sized)) -> SessionKey {
        let mut key = [0u8; 32];
        random.fill_bytes(&mut key);
        SessionKey(key)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The header is longer than [`MAX_HEADER`].
    #[error("the header frame has {0} bytes, more than 2048")]
    HeaderTooLarge(usize),
    /// The body is longer than its limit.
    #[error("the body frame has {size} bytes, more than {limit}")]
    BodyTooLarge {
        /// Its length, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Field `Version` is missing or neither `1.0` nor `2.0`.
    #[error("the header's version is missing or unknown")]
    Version,
    /// Field `SigningMethod` is missing, unknown, or not the one of this channel (D-17).
    #[error("the header's signing method is missing or not the one of this channel")]
    Method,
    /// The signature is missing or does not fit.
    #[error("the signature does not fit")]
    Signature,
    /// The signed body makes no sense.
    #[error("{0}")]
    Body(#[from] DecodeError),
    /// The timestamp lies outside the window (D-53): so many seconds behind this host's clock, ahead when negative.
    #[error("the timestamp is {} s away from this host's clock", .0.saturating_abs())]
    Skew(i64),
}

/// HMAC-SHA-256 (RFC 2104) of `body`, for keys of any length.
pub fn hmac_sha256(key: &[u8], body: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut pad = [0u8; BLOCK];
    if key.len() > BLOCK {
        pad[..32].copy_from_slice(&openssl::sha::sha256(key));
    } else {
        pad[..key.len()].copy_from_slice(key);
    }
    for byte in &mut pad {
        *byte ^= 0x36;
    }
    let mut inner = Sha256::new();
    inner.update(&pad);
    inner.update(body);
    let inner = inner.finish();
    for byte in &mut pad {
        *byte ^= 0x36 ^ 0x5c;
    }
    let mut outer = Sha256::new();
    outer.update(&pad);
    outer.update(&inner);
    zeroize::Zeroize::zeroize(&mut pad);
    outer.finish()
}

const HMAC_HEADER: &str = "Version:2.0;SigningMethod:hmac_sha256;Signature:";
const RSA_HEADER: &str = "Version:2.0;SigningMethod:rsa2048_sha1;Signature:";

/// The header frame for `body`, signed with a session key of any length.
pub fn hmac_header(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = String::with_capacity(HMAC_HEADER.len() + 44);
    header.push_str(HMAC_HEADER);
    STANDARD.encode_string(hmac_sha256(key, body), &mut header);
    header.into_bytes()
}

/// What the RSA block of a server heartbeat holds: 28 characters (4.4).
fn digest(body: &[u8]) -> String {
    STANDARD.encode(sha1(body))
}

/// Signs the server's heartbeats. The parsed key is kept.
#[derive(Debug, Clone)]
pub struct RsaSigner {
    key: SigningKey,
}

impl RsaSigner {
    /// From a private key in PEM.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidKey`].
    pub fn from_pem(pem: &str) -> Result<RsaSigner> {
        Ok(RsaSigner { key: SigningKey::from_pem(pem)? })
    }

    /// The public half as PEM `PUBLIC KEY`: member `public_key` of a node's configuration.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Internal`] when OpenSSL cannot write it.
    pub fn public_pem(&self) -> Result<String> {
        self.key.public_pem()
    }

    /// The header frame for `body`; its signature is one unbroken line.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidKey`] when OpenSSL refuses.
    pub fn header(&self, body: &[u8]) -> Result<Vec<u8>> {
        let mut signature = Vec::new();
        self.key.seal(digest(body).as_bytes(), &mut signature)?;
        let mut header = String::with_capacity(RSA_HEADER.len() + signature.len() / 3 * 4 + 4);
        header.push_str(RSA_HEADER);
        STANDARD.encode_string(signature, &mut header);
        Ok(header.into_bytes())
    }
}

/// Checks the server's heartbeats. The parsed key is kept.
#[derive(Debug, Clone)]
pub struct RsaVerifier {
    key: PublicKey,
}

impl RsaVerifier {
    /// From the PEM of the configuration.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidKey`].
    pub fn from_pem(pem: &str) -> Result<RsaVerifier> {
        Ok(RsaVerifier { key: PublicKey::from_pem(pem.trim_ascii())? })
    }
}

/// The fields of a header frame (4.3). The last of a repeated field counts; unknown, empty and colonless
/// fields are skipped; names are case-sensitive and nothing is trimmed.
#[derive(Default)]
struct Header<'a> {
    version: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    signature: Option<&'a [u8]>,
}

/// Which receiver's rules a header is read by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiver {
    /// A value is everything after the first colon; `SignedChecksum` means `Signature`.
    Server,
    /// A value ends at a second colon; only `Signature`.
    Node,
}

impl<'a> Header<'a> {
    fn parse(header: &'a [u8], receiver: Receiver) -> Header<'a> {
        let mut fields = Header::default();
        for field in header.split(|b| *b == b';') {
            let Some(colon) = field.iter().position(|b| *b == b':') else { continue };
            let (name, mut value) = (&field[..colon], &field[colon + 1..]);
            if receiver == Receiver::Node {
                value = value.split(|b| *b == b':').next().unwrap_or(value);
            }
            match name {
                b"Version" => fields.version = Some(value),
                b"SigningMethod" => fields.method = Some(value),
                b"Signature" => fields.signature = Some(value),
                b"SignedChecksum" if receiver == Receiver::Server => fields.signature = Some(value),
                _ => {}
            }
        }
        fields
    }
}

/// Checks a header frame as the server does: `hmac_sha256` of Version 2.0 only; the Base64 text is compared in
/// constant time, so no other spelling of it fits.
///
/// # Errors
/// The first rule that is broken.
pub fn check_from_node(key: &[u8], header: &[u8], body: &[u8]) -> std::result::Result<(), WireError> {
    if header.len() > MAX_HEADER {
        return Err(WireError::HeaderTooLarge(header.len()));
    }
    let fields = Header::parse(header, Receiver::Server);
    match (fields.version, fields.method) {
        (Some(b"2.0"), Some(b"hmac_sha256")) => {}
        (Some(b"1.0" | b"2.0"), _) => return Err(WireError::Method),
        _ => return Err(WireError::Version),
    }
    let mut expected = [0u8; 44];
    // 32 bytes are 44 characters of Base64; if that ever failed, zeros would match nothing.
    let _ = STANDARD.encode_slice(hmac_sha256(key, body), &mut expected);
    match fields.signature {
        Some(signature) if bool::from(signature.ct_eq(&expected)) => Ok(()),
        _ => Err(WireError::Signature),
    }
}

/// Which of a node's two sockets a message came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The encrypted one: signed with the session key.
    Command,
    /// The server's heartbeats, readable by anybody: signed with the server's RSA key.
    Heartbeat,
}

/// Checks a header frame as the original node does, whatever the channel: either method, the version is not
/// looked at, Base64 is decoded leniently.
///
/// # Errors
/// The first rule that is broken.
pub fn check_from_server(
    key: &[u8],
    server: &RsaVerifier,
    header: &[u8],
    body: &[u8],
) -> std::result::Result<Channel, WireError> {
    if header.len() > MAX_HEADER {
        return Err(WireError::HeaderTooLarge(header.len()));
    }
    let fields = Header::parse(header, Receiver::Node);
    let signature = decode_base64_leniently(fields.signature.ok_or(WireError::Signature)?);
    match fields.method {
        Some(b"hmac_sha256") => {
            if bool::from(signature.ct_eq(&hmac_sha256(key, body))) {
                Ok(Channel::Command)
            } else {
                Err(WireError::Signature)
            }
        }
        Some(b"rsa2048_sha1") => {
            if server.key.opens_to(&signature, &[], digest(body).as_bytes()) {
                Ok(Channel::Heartbeat)
            } else {
                Err(WireError::Signature)
            }
        }
        _ => Err(WireError::Method),
    }
}

/// Base64 as Ruby's `unpack('m')`: characters outside the alphabet are skipped, `=` ends it, missing padding is fine.
pub fn decode_base64_leniently(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0u32, 0u32);
    for c in text {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// What a receiver allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest body, in bytes.
    pub max_body: usize,
    /// The largest difference between a timestamp and the clock, either way, in seconds.
    pub max_skew: u32,
}

/// Opens a node's two frames on the server: sizes, header, signature, JSON, timestamp, in this order (4.7). The
/// difference to the clock must be less than `max_skew`.
///
/// # Errors
/// The first check that fails; the frames are to be dropped without an answer.
pub fn open_from_node<'a>(
    key: &SessionKey,
    limits: Limits,
    now: Wall,
    header: &[u8],
    body: &'a [u8],
) -> std::result::Result<FromNode<'a>, WireError> {
    check_size(limits, body)?;
    check_from_node(&key.0, header, body)?;
    let message = FromNode::decode(body)?;
    let skew = skew(now, message.timestamp);
    if skew.saturating_abs() >= i64::from(limits.max_skew) { Err(WireError::Skew(skew)) } else { Ok(message) }
}

/// Opens the server's two frames on a node. A channel takes only its own method: the originals never send another, and
/// whoever can write to the open heartbeat channel must not be believed on the strength of a session key.
/// The difference to the clock must not exceed `max_skew` either way (D-53).
///
/// # Errors
/// The first check that fails; the frames are to be logged and dropped.
pub fn open_from_server(
    key: &SessionKey,
    server: &RsaVerifier,
    channel: Channel,
    limits: Limits,
    now: Wall,
    header: &[u8],
    body: &[u8],
) -> std::result::Result<FromServer, WireError> {
    check_size(limits, body)?;
    if check_from_server(&key.0, server, header, body)? != channel {
        return Err(WireError::Method);
    }
    let message = FromServer::decode(body)?;
    let skew = skew(now, message.timestamp);
    if skew.saturating_abs() > i64::from(limits.max_skew) { Err(WireError::Skew(skew)) } else { Ok(message) }
}

fn check_size(limits: Limits, body: &[u8]) -> std::result::Result<(), WireError> {
    if body.len() > limits.max_body {
        return Err(WireError::BodyTooLarge { size: body.len(), limit: limits.max_body });
    }
    Ok(())
}

/// How far a stamp is behind, in whole seconds; a message carries whole seconds, so the clock is cut to them too.
fn skew(now: Wall, then: Wall) -> i64 {
    now.secs().saturating_sub(then.secs())
}
