//! The audit log: who started what where, and who changed what. One JSON object a line, in a file for its owner only.
//!
//! Never in it: values of `env`, contents of files, output (decision 43). A line is written whole, with one call, before
//! the answer leaves; the file is opened anew on a reload, so that it can be rotated.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use pushy_core::Result;
use serde_json::{Value, json};

use crate::config::{Network, Operation};
use crate::{clock, files};

/// So many names of a job's nodes are written; a line stays readable.
const NODES: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub struct Audit {
    path: Option<PathBuf>,
    file: Mutex<Option<File>>,
    trusted: Vec<Network>,
}

fn open(path: &PathBuf) -> Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.map_err(|e| files::io(path, &e).context("audit_log"))
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub address: Option<IpAddr>,
    /// The proxy that says so.
    pub via: Option<IpAddr>,
}

impl Audit {
    pub(super) fn open(settings: &Operation) -> Result<Audit> {
        let file = settings.audit_log.as_ref().map(open).transpose()?;
        let trusted = settings.trusted_proxies.clone();
        Ok(Audit { path: settings.audit_log.clone(), file: Mutex::new(file), trusted })
    }

    /// Goes on in the file that has the name now.
    ///
    /// # Errors
    /// When it cannot be opened; the old one is kept.
    pub(super) fn reopen(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = open(path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// The connection's own address; a trusted proxy's word counts in place of it, of several the last that no trusted
    /// proxy has: what stands before that, anybody may have written.
    pub fn origin(&self, parts: &Parts) -> Origin {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
        let is_trusted = |address: IpAddr| self.trusted.iter().any(|network| network.contains(address));
        let Some(proxy) = peer.filter(|peer| is_trusted(*peer)) else {
            return Origin { address: peer, via: None };
        };
        let mut said: Vec<&str> = Vec::new();
        for value in parts.headers.get_all("x-forwarded-for") {
            said.extend(value.to_str().unwrap_or_default().split(',').map(str::trim));
        }
        for text in said.into_iter().rev() {
            match text.parse::<IpAddr>() {
                Ok(address) if is_trusted(address.to_canonical()) => {}
                Ok(address) => return Origin { address: Some(address.to_canonical()), via: peer },
                Err(_) => break,
            }
        }
        Origin { address: Some(proxy), via: None }
    }

    /// Writes a line. `what` names the kind of event; `about` is an object with the rest.
    ///
    /// # Errors
    /// When it cannot be written. What happened has happened all the same.
    pub fn write(&self, what: &str, about: Value) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_mut() else { return Ok(()) };
        file.write_all(line(what, about).as_bytes())
    }
}

fn line(what: &str, about: Value) -> String {
    let mut object = json!({ "at": clock::wall().iso8601(), "what": what });
    if let (Value::Object(all), Value::Object(about)) = (&mut object, about) {
        all.extend(about.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let mut text = String::with_capacity(256);
    for c in object.to_string().chars() {
        // JSON lets some characters through that a terminal takes as commands, or shows in another order.
        let tricky = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        match c.is_control() || tricky {
            true => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
            false => text.push(c),
        }
    }
    text.push('\n');
    text
}

/// The members about a job.
pub(crate) fn job(command: &str, nodes: &[pushy_core::ids::NodeName]) -> Value {
    let names: Vec<&str> = nodes.iter().take(NODES).map(|name| name.as_str()).collect();
    json!({ "command": command, "node_count": nodes.len(), "nodes": names })
}

/// Enough of a public key to tell which one it was: the first bytes of the SHA-256 of its DER form.
pub(crate) fn fingerprint(pem: &str) -> Option<String> {
    let der = openssl::pkey::PKey::public_key_from_pem(pem.as_bytes()).ok()?.public_key_to_der().ok()?;
    let digest = openssl::sha::sha256(&der);
    Some(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(trusted: &str, peer: &str, forwarded: &[&str]) -> (String, Option<String>) {
        let text = format!("trusted_proxies = {trusted}");
        let config = crate::config::Config::parse(std::path::Path::new("/x"), "t", &text).unwrap();
        let audit = Audit { trusted: config.operation.trusted_proxies, ..Audit::default() };
        let mut request = axum::http::Request::builder();
        for value in forwarded {
            request = request.header("X-Forwarded-For", *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        let Origin { address, via } = audit.origin(&parts);
        (address.unwrap().to_string(), via.map(|via| via.to_string()))
    }

    #[test]
    fn whose_word_about_addresses_counts() {
        let check = |trusted: &str, peer: &str, forwarded: &[&str], address: &str, via: Option<&str>| {
            let expected = (address.to_owned(), via.map(str::to_owned));
            assert_eq!(origin(trusted, peer, forwarded), expected, "{trusted} {peer} {forwarded:?}");
        };
        let (local, both) = (r#"["127.0.0.1"]"#, r#"["127.0.0.1", "10.0.0.0/8"]"#);
        check("[]", "127.0.0.1", &["1.2.3.4"], "127.0.0.1", None);
        check(local, "127.0.0.1", &[], "127.0.0.1", None);
        check(local, "127.0.0.1", &["1.2.3.4"], "1.2.3.4", Some("127.0.0.1"));
        check(local, "::ffff:127.0.0.1", &["1.2.3.4"], "1.2.3.4", Some("127.0.0.1"));
        check(local, "5.6.7.8", &["1.2.3.4"], "5.6.7.8", None);
        // What the client wrote itself stands before what the proxy added.
        check(local, "127.0.0.1", &["9.9.9.9, 1.2.3.4"], "1.2.3.4", Some("127.0.0.1"));
        check(local, "127.0.0.1", &["9.9.9.9", "1.2.3.4"], "1.2.3.4", Some("127.0.0.1"));
        check(both, "127.0.0.1", &["9.9.9.9, 1.2.3.4, 10.1.1.1"], "1.2.3.4", Some("127.0.0.1"));
        check(both, "127.0.0.1", &["10.1.1.1"], "127.0.0.1", None);
        check(local, "127.0.0.1", &["1.2.3.4, nonsense"], "127.0.0.1", None);
        check(local, "127.0.0.1", &["fd00::1"], "fd00::1", Some("127.0.0.1"));
    }

    #[test]
    fn a_line_is_one_line_of_plain_characters() {
        let command = "a\nb\u{1b}[2J\u{7f}\u{9b}\u{2028}\u{202e}\"\\é\u{1f600}";
        let text = line("job_started", json!({ "command": command, "nothing": null }));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.ends_with("}\n") && !text.trim_end().contains(char::is_control), "{text:?}");
        assert!(!text.contains('\u{202e}') && !text.contains("nothing"), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["command"], command);
    }
}
