//! Reading what a node says: one pass over the body, names borrowed from it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Caps, Captured, DecodeError, JobRef, JobState, NodeMessage, cut, output};
use crate::ids::IncarnationId;
use crate::reason::Reason;
use crate::time::Wall;

/// A node's message with what it says of its sender. Nothing here is proven: `node` and `org` are claims, to be
/// compared with the binding of the connection (decision 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromNode<'a> {
    /// The node's name as it claims.
    pub node: Cow<'a, str>,
    /// Its organization's name as it claims.
    pub org: Cow<'a, str>,
    /// Its process; `None` when missing or unusable, which counts as a different one (4.8).
    pub incarnation: Option<IncarnationId>,
    /// Counts up on each connection; `None` when missing or no natural number.
    pub sequence: Option<u64>,
    /// When it was sent, by the node's clock.
    pub timestamp: Wall,
    /// What it says.
    pub message: NodeMessage,
}

impl<'a> FromNode<'a> {
    /// Reads a body frame whose signature has been checked.
    ///
    /// # Errors
    /// [`DecodeError`]: the frame is to be dropped without an answer (4.7).
    pub fn decode(body: &'a [u8]) -> Result<FromNode<'a>, DecodeError> {
        let members: Members<'a> = serde_json::from_slice(body).map_err(|_| DecodeError::NotAnObject)?;
        let Some(Member::Text(node)) = members.node else { return Err(DecodeError::Missing("node")) };
        let Some(Member::Text(org)) = members.org else { return Err(DecodeError::Missing("org")) };
        let timestamp = match members.timestamp {
            Some(Member::Text(text)) => Wall::parse_http_date(&text).ok_or(DecodeError::Timestamp)?,
            _ => return Err(DecodeError::Timestamp),
        };
        let job = match members.job_id {
            Some(Member::Null) => JobRef::None,
            Some(Member::Text(text)) => JobRef::from_text(&text),
            _ => JobRef::Other("".into()),
        };
        let output = Captured { stdout: text(members.stdout), stderr: text(members.stderr) };
        let reason = match members.reason {
            Some(Member::Reason(reason)) => Some(reason),
            _ => None,
        };
        let name = match members.kind {
            Some(Member::Text(name)) => name,
            _ => Cow::Borrowed(""),
        };
        let message = match &*name {
            "heartbeat" => NodeMessage::Heartbeat {
                state: match members.job_state {
                    Some(Member::Text(state)) => JobState::from_text(&state),
                    _ => None,
                },
                job,
                caps: match members.caps {
                    Some(Member::Caps(caps)) => Some(caps),
                    _ => None,
                },
            },
            "ack_commit" => NodeMessage::AckCommit { job },
            "nack_commit" => NodeMessage::NackCommit { job, reason },
            "ack_run" => NodeMessage::AckRun { job },
            "nack_run" => NodeMessage::NackRun { job, reason },
            "succeeded" => NodeMessage::Succeeded { job, output },
            "failed" => NodeMessage::Failed { job, output, reason },
            "aborted" => NodeMessage::Aborted { job, reason },
            "output_chunk" => output::chunk(job, members.piece),
            other => NodeMessage::Unknown { name: cut(other) },
        };
        Ok(FromNode {
            node,
            org,
            incarnation: match members.incarnation_id {
                Some(Member::Text(text)) => IncarnationId::new(&text).ok(),
                _ => None,
            },
            sequence: match members.sequence {
                Some(Member::Number(number)) => Some(number),
                _ => None,
            },
            timestamp,
            message,
        })
    }
}

fn text(member: Option<Member<'_>>) -> Option<String> {
    match member {
        Some(Member::Text(text)) => Some(text.into_owned()),
        _ => None,
    }
}

/// A member's value as far as any member of ours needs it. An array is read for the names of extensions, an object for a
/// reason.
pub(super) enum Member<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(u64),
    True,
    Caps(Caps),
    Reason(Reason),
    Other,
}

impl<'de> Deserialize<'de> for Member<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Member<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }
            fn visit_unit<E>(self) -> Result<Member<'de>, E> {
                Ok(Member::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Member<'de>, E> {
                Ok(if value { Member::True } else { Member::Other })
            }
            fn visit_u64<E>(self, number: u64) -> Result<Member<'de>, E> {
                Ok(Member::Number(number))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Member<'de>, E> {
                Ok(Member::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Member<'de>, E> {
                Ok(Member::Other)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Member<'de>, E> {
                Ok(Member::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Member<'de>, E> {
                Ok(Member::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Member<'de>, A::Error> {
                let mut caps = Caps::NONE;
                while let Some(item) = items.next_element::<Member<'de>>()? {
                    if let Member::Text(name) = item {
                        caps = caps.with(Caps::named(&name));
                    }
                }
                Ok(Member::Caps(caps))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member<'de>, A::Error> {
                let (mut code, mut text) = (None, None);
                while let Some(name) = map.next_key::<Name>()? {
                    let place = match name {
                        Name::Code => &mut code,
                        Name::Text => &mut text,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if let Member::Text(value) = map.next_value()? {
                        place.get_or_insert(value);
                    }
                }
                let reason = code.map(|code| Reason::of_peer(&code, &text.unwrap_or_default()));
                Ok(reason.map_or(Member::Other, Member::Reason))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[derive(Default)]
struct Members<'a> {
    piece: output::Members<'a>,
    node: Option<Member<'a>>,
    org: Option<Member<'a>>,
    kind: Option<Member<'a>>,
    sequence: Option<Member<'a>>,
    timestamp: Option<Member<'a>>,
    incarnation_id: Option<Member<'a>>,
    job_state: Option<Member<'a>>,
    job_id: Option<Member<'a>>,
    caps: Option<Member<'a>>,
    stdout: Option<Member<'a>>,
    stderr: Option<Member<'a>>,
    reason: Option<Member<'a>>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key::<Name>()? {
                    let place = match name {
                        Name::Node => &mut members.node,
                        Name::Org => &mut members.org,
                        Name::Type => &mut members.kind,
                        Name::Sequence => &mut members.sequence,
                        Name::Timestamp => &mut members.timestamp,
                        Name::IncarnationId => &mut members.incarnation_id,
                        Name::JobState => &mut members.job_state,
                        Name::JobId => &mut members.job_id,
                        Name::Caps => &mut members.caps,
                        Name::Stdout => &mut members.stdout,
                        Name::Stderr => &mut members.stderr,
                        Name::Reason => &mut members.reason,
                        Name::Piece(name) => {
                            members.piece.read(name, &mut map)?;
                            continue;
                        }
                        Name::Code | Name::Text | Name::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    let value = map.next_value()?;
                    place.get_or_insert(value);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

enum Name {
    Node,
    Org,
    Type,
    Sequence,
    Timestamp,
    IncarnationId,
    JobState,
    JobId,
    Caps,
    Stdout,
    Stderr,
    Reason,
    Code,
    Text,
    Piece(output::Name),
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(match name {
                    "node" => Name::Node,
                    "org" => Name::Org,
                    "type" => Name::Type,
                    "sequence" => Name::Sequence,
                    "timestamp" => Name::Timestamp,
                    "incarnation_id" => Name::IncarnationId,
                    "job_state" => Name::JobState,
                    "job_id" => Name::JobId,
                    "caps" => Name::Caps,
                    "stdout" => Name::Stdout,
                    "stderr" => Name::Stderr,
                    "reason" => Name::Reason,
                    "code" => Name::Code,
                    "text" => Name::Text,
                    name => output::Name::of(name).map_or(Name::Other, Name::Piece),
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}
