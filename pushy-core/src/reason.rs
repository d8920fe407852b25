//! Why a node refused a job, failed it or was lost to it: a code for programs and a line for people.
//!
//! Nodes say it with member `reason` to servers that take it (capability `reasons`); the server says it for what it finds
//! out itself, also about original clients, which give no reasons.

use std::fmt;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::Value;

use crate::json::Object;

/// The longest text, in bytes; what is longer is cut.
pub const MAX_TEXT: usize = 512;

macro_rules! codes {
    ($($(#[$meta:meta])* $variant:ident = $text:literal,)*) => {
        /// What kind of reason it is. The texts are those of messages, databases, feeds and REST answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ReasonCode {
            $($(#[$meta])* $variant,)*
        }

        impl ReasonCode {
            /// Every code.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$variant,)*];

            /// Its text.
            pub const fn as_str(self) -> &'static str {
                match self { $(ReasonCode::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// Node: the whitelist has no such command.
    NotWhitelisted = "not_whitelisted",
    /// Node: it has another job, which the text names.
    Busy = "busy",
    /// Node: the user does not exist there.
    NoSuchUser = "no_such_user",
    /// Node: the directory does not exist there.
    NoSuchDir = "no_such_dir",
    /// Node: the delivered file cannot be used.
    BadFile = "bad_file",
    /// Node: somebody else holds the lock of the whitelist's entry.
    LockHeld = "lock_held",
    /// Node: the agent may not do what is asked, such as becoming another user.
    Permission = "permission",
    /// Node: the parameters do not fit the whitelist's entry.
    BadParameters = "bad_parameters",
    /// Node: a pattern of the whitelist takes too long on this command.
    GaveUp = "gave_up",
    /// Node: the message or an option cannot be used.
    BadRequest = "bad_request",
    /// Node: the process could not be started.
    StartFailed = "start_failed",
    /// Node: the process ended with another exit status than 0.
    Exit = "exit",
    /// Node: the process was ended by a signal.
    Signal = "signal",
    /// Node or server: `run_timeout` has passed.
    TimedOut = "timed_out",
    /// Node or server: an operator has cancelled the job.
    Cancelled = "cancelled",
    /// Node: the agent is being stopped.
    ShuttingDown = "shutting_down",
    /// Server: the node was not there when the job started.
    Unavailable = "unavailable",
    /// Server: no vote came in time.
    VoteTimeout = "vote_timeout",
    /// Server: the node said no, and not why.
    Refused = "refused",
    /// Server: the node was lost after its vote.
    Died = "died",
    /// Server: the node was lost before its vote counted.
    Lost = "lost",
    /// Server: the node voted yes and then refused to run.
    RunRefused = "run_refused",
    /// Server: too few nodes voted yes.
    QuorumFailed = "quorum_failed",
    /// Server: so many nodes failed that no more were started.
    MaxFailures = "max_failures",
    /// Server: the node's agent cannot do what the job asks for.
    Unsupported = "unsupported",
    /// Server: it gave the job up.
    ServerGaveUp = "server_gave_up",
    /// A code of another version; the text still says what happened.
    Other = "other",
}

impl ReasonCode {
    /// The code with this text; [`ReasonCode::Other`] for one that this version does not know.
    pub fn from_text(text: &str) -> ReasonCode {
        ReasonCode::ALL.iter().copied().find(|code| code.as_str() == text).unwrap_or(ReasonCode::Other)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why. The text is one line of at most [`MAX_TEXT`] bytes and holds no secret; `Display` is the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reason {
    code: ReasonCode,
    text: Box<str>,
}

impl Reason {
    /// Makes the text one line of at most [`MAX_TEXT`] bytes; an empty one becomes the code's.
    pub fn new(code: ReasonCode, text: impl AsRef<str>) -> Reason {
        let text = text.as_ref().trim_matches(|c: char| c.is_whitespace() || c.is_control());
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        let text: Box<str> = if text.is_empty() {
            code.as_str().into()
        } else if text.contains(char::is_control) {
            let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            shown.into()
        } else {
            text.into()
        };
        Reason { code, text }
    }

    /// What kind it is.
    pub fn code(&self) -> ReasonCode {
        self.code
    }

    /// The line for people.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `{"code":"…","text":"…"}`.
    pub fn to_json(&self) -> Vec<u8> {
        Object::with_capacity(48 + self.text.len())
            .plain("code", self.code.as_str())
            .member("text", &*self.text)
            .end()
    }

    /// Reads an object with `code` and `text`; `None` when there is no code.
    pub fn from_value(value: &Value) -> Option<Reason> {
        let code = value.get("code")?.as_str()?;
        Some(Reason::of_peer(code, value.get("text").and_then(Value::as_str).unwrap_or("")))
    }

    /// A reason in somebody else's words.
    pub fn of_peer(code: &str, text: &str) -> Reason {
        match ReasonCode::from_text(code) {
            ReasonCode::Other if text.trim().is_empty() => Reason::new(ReasonCode::Other, code),
            code => Reason::new(code, text),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Reason", 2)?;
        object.serialize_field("code", self.code.as_str())?;
        object.serialize_field("text", &*self.text)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Reason::from_value(&value).ok_or_else(|| serde::de::Error::custom("a reason has no code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, expected: &str| {
            let reason = Reason::new(ReasonCode::Busy, text);
            assert_eq!(reason.text(), expected, "{text:?}");
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json.as_bytes(), reason.to_json());
            assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), reason);
        };
        check("busy with job 1", "busy with job 1");
        check("  two\nlines\u{85}\u{0}x ", "two lines  x");
        check("", "busy");
        check("\n\u{0}", "busy");
        check("\"quoted\"", "\"quoted\"");
        let long = "ä".repeat(MAX_TEXT);
        check(&long, &long[..MAX_TEXT]);
        check(&format!("x{long}"), &format!("x{}", &long[..MAX_TEXT - 2]));
    }

    #[test]
    fn codes() {
        for code in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_text(code.as_str()), *code);
        }
        let check = |json: &str, expected: Option<Reason>| {
            assert_eq!(Reason::from_value(&serde_json::from_str(json).unwrap()), expected, "{json}");
        };
        check(
            r#"{"code":"exit","text":"exit status 3","more":1}"#,
            Some(Reason::new(ReasonCode::Exit, "exit status 3")),
        );
        check(r#"{"code":"exit"}"#, Some(Reason::new(ReasonCode::Exit, "exit")));
        check(r#"{"code":"of 2031","text":"t"}"#, Some(Reason::new(ReasonCode::Other, "t")));
        check(r#"{"code":"of 2031"}"#, Some(Reason::new(ReasonCode::Other, "of 2031")));
        for none in ["{}", r#"{"text":"t"}"#, r#"{"code":1}"#, "[]", "null", "\"exit\""] {
            check(none, None);
        }
    }
}
