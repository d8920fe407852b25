//! The `/config/NODE` document: built by the server, read by the agent (2.4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand_core::{CryptoRng, RngCore};
use serde_json::Value;

use crate::auth::{PublicKey, SigningKey};
use crate::curve_key::CurveKey;
use crate::error::{Error, ErrorCode, Result};
use crate::ids::IncarnationId;
use crate::json::Object;
use crate::message::Caps;
use crate::time::Millis;
use crate::wire::{RsaVerifier, SessionKey};

/// What a node is told to be. Holds no secret in the clear: the session key is wrapped for the node's RSA key.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Advertised server name.
    pub host: String,
    /// Where the server publishes its heartbeats: `tcp://HOST:10000`.
    pub heartbeat_addr: String,
    /// Where commands are exchanged: `tcp://HOST:10002`.
    pub command_addr: String,
    /// Between two heartbeats.
    pub interval: Millis,
    /// Silent intervals after which the server counts as offline.
    pub offline_threshold: u32,
    /// Server heartbeats after which it counts as online again.
    pub online_threshold: u32,
    /// Node name.
    pub node: String,
    /// Organization name.
    pub organization: String,
    /// The server's public RSA key in PEM: checks its heartbeats.
    pub public_key: String,
    /// The server's CURVE key; `None` from a 1.x server, which this agent does not talk to.
    pub curve_public_key: Option<CurveKey>,
    /// The session key as [`wrap_session_key`] makes it.
    pub encoded_session_key: String,
    /// How long the document may be used, in seconds.
    pub lifetime: u32,
    /// Largest difference between a message's timestamp and the clock, in seconds.
    pub max_message_skew: u32,
    /// The longest body the server takes, in bytes; `None` from a server that does not say.
    pub max_body_size: Option<usize>,
    /// Id of the server's keys.
    pub incarnation: IncarnationId,
    /// The server's extensions; `None` from an original.
    pub caps: Option<Caps>,
}

/// Constants of the original's document.
pub const OFFLINE_THRESHOLD: u32 = 3;
/// See [`OFFLINE_THRESHOLD`].
pub const ONLINE_THRESHOLD: u32 = 2;

impl NodeConfig {
    /// The JSON text, members in the original's order, `caps` last.
    pub fn to_json(&self) -> String {
        let heartbeat = Object::with_capacity(256)
            .member("out_addr", &self.heartbeat_addr)
            .member("command_addr", &self.command_addr)
            .member("interval", &(self.interval.0 as f64 / 1000.0))
            .member("offline_threshold", &self.offline_threshold)
            .member("online_threshold", &self.online_threshold)
            .end();
        let push_jobs = Object::with_capacity(280).raw("heartbeat", &heartbeat).end();
        let session = Object::with_capacity(420)
            .plain("method", "hmac_sha256")
            .member("key", &self.encoded_session_key)
            .end();
        let mut object = Object::with_capacity(1800);
        object
            .plain("type", "config")
            .member("host", &self.host)
            .raw("push_jobs", &push_jobs)
            .member("node", &self.node)
            .member("organization", &self.organization)
            .member("public_key", &self.public_key);
        if let Some(key) = &self.curve_public_key {
            object.member("curve_public_key", &key.to_z85());
        }
        object
            .raw("encoded_session_key", &session)
            .member("lifetime", &self.lifetime)
            .member("max_message_skew", &self.max_message_skew);
        if let Some(size) = &self.max_body_size {
            object.member("max_body_size", size);
        }
        object.member("incarnation_id", self.incarnation.as_str());
        if let Some(caps) = self.caps {
            object.raw("caps", &caps.to_json());
        }
        object.end_text()
    }

    /// Reads the document as a node: every member it needs must be there, with the right type and a value it can use.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`], naming the member.
    pub fn from_json(text: &[u8]) -> Result<NodeConfig> {
        let Ok(Value::Object(root)) = serde_json::from_slice(text) else {
            return Err(malformed("the node's configuration is not a JSON object"));
        };
        let root = Value::Object(root);
        let string = |path: &str| member(&root, path, "a string", |v| v.as_str().map(str::to_owned));
        let seconds = |path: &str| {
            member(&root, path, "a whole number of seconds", |v| {
                v.as_u64().and_then(|n| u32::try_from(n).ok())
            })
        };
        let address = |path: &str| {
            let text = string(path)?;
            match text.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0) => {
                    Ok(text)
                }
                _ => Err(bad(path, "an address like tcp://HOST:PORT")),
            }
        };
        let public_key = string("public_key")?;
        RsaVerifier::from_pem(&public_key).map_err(|e| e.context("member `public_key`"))?;
        let method = string("encoded_session_key.method")?;
        if method != "hmac_sha256" {
            return Err(bad("encoded_session_key.method", "hmac_sha256"));
        }
        let incarnation = string("incarnation_id")?;
        let threshold = |path: &str| {
            member(&root, path, "a natural number", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
        };
        Ok(NodeConfig {
            host: optional(&root, "host").and_then(Value::as_str).unwrap_or("").to_owned(),
            heartbeat_addr: address("push_jobs.heartbeat.out_addr")?,
            command_addr: address("push_jobs.heartbeat.command_addr")?,
            interval: member(&root, "push_jobs.heartbeat.interval", "a number of seconds above 0", |v| {
                let seconds = v.as_f64()?;
                (seconds.is_finite() && (0.001..=86_400.0).contains(&seconds))
                    .then(|| Millis((seconds * 1000.0).round() as u64))
            })?,
            offline_threshold: threshold("push_jobs.heartbeat.offline_threshold")?,
            online_threshold: threshold("push_jobs.heartbeat.online_threshold")?,
            node: optional(&root, "node").and_then(Value::as_str).unwrap_or("").to_owned(),
            organization: optional(&root, "organization").and_then(Value::as_str).unwrap_or("").to_owned(),
            public_key,
            curve_public_key: match optional(&root, "curve_public_key") {
                None => None,
                Some(value) => Some(
                    CurveKey::from_z85(value.as_str().ok_or_else(|| bad("curve_public_key", "a string"))?)
                        .map_err(|_| bad("curve_public_key", "40 characters of Z85"))?,
                ),
            },
            encoded_session_key: string("encoded_session_key.key")?,
            lifetime: seconds("lifetime")?,
            max_message_skew: seconds("max_message_skew")?,
            max_body_size: optional(&root, "max_body_size")
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok()),
            incarnation: IncarnationId::new(&incarnation)
                .map_err(|_| bad("incarnation_id", "1 to 64 characters"))?,
            caps: optional(&root, "caps")
                .and_then(Value::as_array)
                .map(|names| Caps::from_names(names.iter().filter_map(Value::as_str))),
        })
    }

    /// The session key, opened with the node's private key.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidKey`] when it was made for another key or has another length than 32 bytes.
    pub fn session_key(&self, key: &SigningKey) -> Result<SessionKey> {
        let bytes = unwrap_session_key(&self.encoded_session_key, key)?;
        <[u8; 32]>::try_from(bytes.as_slice()).map(SessionKey).map_err(|_| {
            Error::new(
                ErrorCode::InvalidKey,
                format!(
                    "a session key of {} bytes, expected 32; was it made for another client key?",
                    bytes.len()
                ),
            )
        })
    }
}

/// Wraps a session key for the holder of a public key: PKCS#1 v1.5 encryption in unbroken Base64, padding from `random`
/// (decision 13).
///
/// # Errors
/// [`ErrorCode::InvalidKey`] when the public key cannot be used.
pub fn wrap_session_key<R: RngCore + CryptoRng + ?Sized>(
    session: &SessionKey,
    public_key: &PublicKey,
    random: &mut R,
) -> Result<String> {
    Ok(STANDARD.encode(public_key.wrap(&session.0, random)?))
}

/// Opens a wrapped session key of any length.
///
/// # Errors
/// [`ErrorCode::InvalidKey`] when it is not Base64 or was made for another key.
pub fn unwrap_session_key(encoded: &str, key: &SigningKey) -> Result<Vec<u8>> {
    let wrapped = STANDARD
        .decode(encoded.split_ascii_whitespace().collect::<String>())
        .map_err(|_| Error::new(ErrorCode::InvalidKey, "the session key is not Base64"))?;
    key.unwrap(&wrapped).ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidKey,
            "the session key cannot be opened with this client key; does the server know its public half?",
        )
    })
}

fn malformed(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::Malformed, text)
}

fn bad(path: &str, expected: &str) -> Error {
    malformed(format!("member `{path}` of the node's configuration must be {expected}"))
}

fn optional<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(root, |value, name| value.get(name)).filter(|v| !v.is_null())
}

fn member<T>(root: &Value, path: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
    match optional(root, path) {
        None => Err(malformed(format!("member `{path}` of the node's configuration is missing"))),
        Some(value) => read(value).ok_or_else(|| bad(path, expected)),
    }
}
