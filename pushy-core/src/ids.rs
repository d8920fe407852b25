//! Names and ids as types, so that no two kinds can be mixed up.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use rand_core::RngCore;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};

/// The longest name accepted for a node, organization or principal, in bytes.
pub const MAX_NAME: usize = 255;

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $what:literal, $valid:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rules of the type's description.
            ///
            /// # Errors
            /// [`ErrorCode::InvalidName`] when the text breaks them.
            pub fn new(text: &str) -> Result<$name> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok($name(Arc::from(text)))
                } else {
                    Err(Error::new(ErrorCode::InvalidName, concat!("invalid ", $what)))
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<$name> {
                $name::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

fn is_hex32(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

text_id!(
    /// A node's name: 1 to 255 bytes without control characters (2.5 lets callers name nodes that do not exist).
    NodeName, "node name (1 to 255 bytes, no control characters)", is_name
);
text_id!(
    /// An organization's short name: lower-case letters, digits, `-` and `_` (1.1: what the front end lets through).
    OrgName, "organization name (lower-case letters, digits, - and _)",
    |t| !t.is_empty() && t.len() <= MAX_NAME
        && t.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
);
text_id!(
    /// An organization's GUID: 32 lower-case hex digits (2.2).
    OrgId, "organization id (32 lower-case hex digits)", is_hex32
);
text_id!(
    /// A job's id: 32 lower-case hex digits (2.2).
    JobId, "job id (32 lower-case hex digits)", is_hex32
);
text_id!(
    /// The id of one life of a server's keys or of one agent process (1.5); opaque, usually a UUID.
    IncarnationId, "incarnation id", |t| !t.is_empty() && t.len() <= 64 && !t.chars().any(char::is_control)
);

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text
}

impl JobId {
    /// A new id in the original's shape: the last 12 characters of the organization's GUID and
    /// 20 hex digits (80 random bits).
    pub fn generate(org: &OrgId, random: &mut dyn RngCore) -> JobId {
        let mut bytes = [0u8; 10];
        random.fill_bytes(&mut bytes);
        JobId(Arc::from(format!("{}{}", &org.as_str()[20..], hex(&bytes))))
    }
}

impl OrgId {
    /// A new random GUID.
    pub fn generate(random: &mut dyn RngCore) -> OrgId {
        let mut bytes = [0u8; 16];
        random.fill_bytes(&mut bytes);
        OrgId(Arc::from(hex(&bytes)))
    }
}

impl IncarnationId {
    /// A new random UUID (version 4), lower case.
    pub fn generate(random: &mut dyn RngCore) -> IncarnationId {
        let mut b = [0u8; 16];
        random.fill_bytes(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let h = hex(&b);
        IncarnationId(Arc::from(format!(
            "{}-{}-{}-{}-{}",
            &h[..8],
            &h[8..12],
            &h[12..16],
            &h[16..20],
            &h[20..]
        )))
    }
}

/// A node within its organization: what the server's tables are keyed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRef {
    /// The organization's GUID.
    pub org: OrgId,
    /// The node's name, unique within the organization.
    pub node: NodeName,
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn ids_have_the_original_shape() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let org = OrgId::generate(&mut random);
        let job = JobId::generate(&org, &mut random);
        assert!(is_hex32(org.as_str()) && is_hex32(job.as_str()));
        assert_eq!(&job.as_str()[..12], &org.as_str()[20..]);
        let incarnation = IncarnationId::generate(&mut random);
        assert_eq!(incarnation.as_str().len(), 36);
        assert_eq!(&incarnation.as_str()[14..15], "4");
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert_eq!(NodeName::new(bad).unwrap_err().code(), ErrorCode::InvalidName, "{bad:?}");
        }
        for bad in ["", "Acme", "a b", "a.b"] {
            assert!(OrgName::new(bad).is_err(), "{bad:?}");
        }
        assert!(JobId::new("4BE1d6f0a9c30123456789abcdef0123").is_err());
        assert!(NodeName::new("größe ✓:web/01").is_ok());
    }
}
