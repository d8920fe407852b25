//! What a status other than 2xx means, in knife's words (10.2) and with the server's own text kept.

use serde_json::Value;

use super::Request;
use crate::error::{Error, ErrorCode};

/// Who asked whom: what a message must name so that its reader knows what to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// The server URL of the configuration.
    pub url: &'a str,
    /// The name that requests are signed as.
    pub user: &'a str,
    /// Where its key was read.
    pub key: &'a str,
}

/// Longest text of a server's that is shown, in characters.
const MAX_TEXT: usize = 500;

/// Turns an answer that is no success into an error; `date` is the server's `Date` header, for a clock that is off.
pub fn refusal(who: Who<'_>, request: &Request, status: u16, body: &[u8], date: Option<&str>) -> Error {
    let text = server_text(body);
    let Who { url, user, key } = who;
    let (code, headline) = match status {
        401 if is_clock(text.as_deref()) => (
            ErrorCode::ClockSkew,
            format!(
                "Failed to authenticate to {url} as {user}: the clock of this host is off by 15 minutes or more{}; \
                 set it and try again",
                date.map(|d| format!(" (the server's says {})", printable(d))).unwrap_or_default()
            ),
        ),
        401 => (ErrorCode::Unauthorized, format!("Failed to authenticate to {url} as {user} with key {key}")),
        403 => (
            ErrorCode::Forbidden,
            format!(
                "You authenticated successfully to {url} as {user} but you are not authorized for this action."
            ),
        ),
        404 => (
            ErrorCode::NotFound,
            format!("The object you are looking for could not be found ({})", request.path),
        ),
        400 => (ErrorCode::Server, "The data in your request was invalid".to_owned()),
        406 => {
            (ErrorCode::Server, format!("{url} does not speak a version of the API that this program knows"))
        }
        409 => (ErrorCode::InvalidState, "That cannot be done now".to_owned()),
        413 => (ErrorCode::TooLarge, "The request is larger than the server accepts".to_owned()),
        500 => (ErrorCode::Server, "internal server error".to_owned()),
        502 => (ErrorCode::Server, "bad gateway".to_owned()),
        503 => (ErrorCode::Server, "Service temporarily unavailable".to_owned()),
        504 => (ErrorCode::Server, "gateway timeout".to_owned()),
        300..=399 => {
            (ErrorCode::Server, format!("{url} answered with a redirect ({status}) that cannot be followed"))
        }
        _ => (ErrorCode::Server, format!("{url} answered with HTTP status {status}")),
    };
    match text {
        Some(text) if code != ErrorCode::ClockSkew => {
            Error::new(code, format!("{}: {text}", headline.trim_end_matches('.')))
        }
        _ => Error::new(code, headline),
    }
}

/// Whether a 400 is that of a 1.x server that does not know the newer members (D-70: nothing else is).
pub fn is_v1_server(status: u16, body: &[u8]) -> bool {
    status == 400 && server_text(body).is_some_and(|text| text == "invalid key supplied")
}

/// The text of `{"error":"…"}` or `{"error":["…"]}`; HTML pages have none worth showing.
fn server_text(body: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let text = match document.get("error")? {
        Value::String(text) => text.clone(),
        // The original sends one of its texts as an array of character codes (D-02).
        Value::Array(parts) if parts.iter().all(Value::is_u64) => {
            parts.iter().filter_map(|c| char::from_u32(u32::try_from(c.as_u64()?).ok()?)).collect()
        }
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => return None,
    };
    Some(printable(&text)).filter(|t| !t.is_empty())
}

/// One line without control characters, cut to a length that fits a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Servers say "synchronize the clock" for a wrong clock and only then (chef-auth 6.2).
fn is_clock(text: Option<&str>) -> bool {
    text.is_some_and(|t| t.to_ascii_lowercase().contains("synchronize the clock"))
}
