//! The one number table that Rust, C and Ruby share, and the error that carries it.
//!
//! Modules have error enums of their own where a caller acts on the difference; each converts
//! into [`Error`] at the module's edge.

use std::fmt;

/// What went wrong, as a number that never changes its meaning.
///
/// The numbers are the values of `pushy_status` in C and of `Pushy::Error#code` in Ruby.
/// New codes are appended; none is ever reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorCode {
    /// An argument is out of range, of the wrong form, or contradicts another.
    InvalidArgument = 1,
    /// A name (node, organization, user, job id) breaks the rules for names.
    InvalidName = 2,
    /// A key is missing, unreadable, encrypted, or of the wrong kind.
    InvalidKey = 3,
    /// A signature does not fit.
    BadSignature = 4,
    /// A timestamp lies outside the allowed window.
    ClockSkew = 5,
    /// A message or header is larger than its limit.
    TooLarge = 6,
    /// A message, header or document cannot be parsed.
    Malformed = 7,
    /// A configuration file cannot be used; the message names file, line and column.
    InvalidConfig = 8,
    /// A whitelist entry cannot be used; the message names the entry.
    InvalidWhitelist = 9,
    /// The command is not on the whitelist.
    NotWhitelisted = 10,
    /// The thing asked for does not exist.
    NotFound = 11,
    /// The server knows the requester but does not allow the action (HTTP 403).
    Forbidden = 12,
    /// The server does not accept the requester's credentials (HTTP 401).
    Unauthorized = 13,
    /// No connection could be made, or it broke.
    Connection = 14,
    /// A deadline passed.
    Timeout = 15,
    /// The server answered with an error that has no code of its own; the message has its text.
    Server = 16,
    /// The wait was interrupted by the caller.
    Interrupted = 17,
    /// The peer broke the protocol.
    Protocol = 18,
    /// The operation does not fit the state the object is in.
    InvalidState = 19,
    /// The store could not keep what it was given.
    Storage = 20,
    /// A file could not be read or written; the message names it.
    Io = 21,
    /// A defect of this program.
    Internal = 99,
}

impl ErrorCode {
    /// The number shared with C and Ruby.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// A failure: a code for programs and one line for people.
///
/// The message is lower case, names the thing at fault and the way out, and never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    /// Makes an error. `message` must be one line and free of secrets.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Error {
        Error { code, message: message.into() }
    }

    /// What went wrong.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Puts `context` and a colon before the message, for an outer layer that knows the file or field.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Error {
        Error { code: self.code, message: format!("{context}: {}", self.message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
