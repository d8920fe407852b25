//! Lines of the machine's log.

use std::borrow::Cow;

use pushy_core::server::{LogEntry, LogLevel};

/// Writes a line of the machine. Names come from outside: they are quoted and escaped.
pub(super) fn log(entry: &LogEntry) {
    let node = entry.node.as_ref().map(|name| tracing::field::debug(name.as_str()));
    let job = entry.job.as_ref().map(|id| id.as_str());
    let peer = entry.peer.as_deref();
    let text = printable(&entry.text);
    match entry.level {
        LogLevel::Debug => tracing::debug!(node, job, peer, "{text}"),
        LogLevel::Info => tracing::info!(node, job, peer, "{text}"),
        LogLevel::Warn => tracing::warn!(node, job, peer, "{text}"),
        LogLevel::Error => tracing::error!(node, job, peer, "{text}"),
    }
}

/// The text on one line whatever is in it.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}
