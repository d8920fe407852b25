//! The server URL and what becomes of it: addresses to connect to, request targets, redirects (chef-auth 9.1, 9.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;

use crate::error::{Error, ErrorCode, Result};

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Scheme, host and port: where a connection goes, and what a signature may be shown to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    /// Without the brackets of an IPv6 literal.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// `host:port`, with brackets round IPv6; the `Host` header, always with the port (chef-auth 9.2).
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A URL taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) origin: Origin,
    /// Escaped; never empty; begins with `/`.
    pub(super) path: String,
    /// Without `?`; empty for none.
    pub(super) query: String,
    /// Value of an `Authorization` header, when the URL names a user.
    pub(super) basic: Option<String>,
}

impl Url {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`] saying what is wrong; a password in it is not repeated.
    pub(super) fn parse(text: &str) -> Result<Url> {
        let bad = |why: &str| Error::new(ErrorCode::InvalidConfig, format!("chef_server_url {why}"));
        let text = text.trim();
        if text.starts_with("chefzero:") {
            return Err(bad(
                "is a chefzero:// address, which lives inside a Ruby process; name an http:// address, for example of \
                 `chef-zero --port`",
            ));
        }
        let scheme = if text.starts_with("https://") {
            Scheme::Https
        } else if text.starts_with("http://") {
            Scheme::Http
        } else {
            return Err(bad("must begin with https:// or http://, in lower case"));
        };
        let uri: Uri = text.parse().map_err(|_| bad("is not a valid URL"))?;
        let authority = uri.authority().ok_or_else(|| bad("names no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("names no host"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().ends_with(':') || !port_text_is_absent(authority.as_str()) => {
                return Err(bad("has a port that is none"));
            }
            None => match scheme {
                Scheme::Http => 80,
                Scheme::Https => 443,
            },
        };
        let basic = authority
            .as_str()
            .rsplit_once('@')
            .map(|(userinfo, _)| format!("Basic {}", STANDARD.encode(percent_decode(userinfo))));
        Ok(Url {
            origin: Origin { scheme, host, port },
            path: match uri.path() {
                "" => "/".to_owned(),
                path => path.to_owned(),
            },
            query: uri.query().unwrap_or_default().to_owned(),
            basic,
        })
    }

    /// This URL with a relative path put behind it (chef-auth 9.1).
    pub(super) fn join(&self, path: &str, query: &str) -> Url {
        Url {
            path: format!("{}/{}", self.path.trim_end_matches('/'), path.trim_start_matches('/')),
            query: query.to_owned(),
            ..self.clone()
        }
    }

    /// Where a redirect leads; `None` when `location` cannot be used.
    pub(super) fn redirect(&self, location: &str) -> Option<Url> {
        if location.starts_with("http://") || location.starts_with("https://") {
            let to = Url::parse(location).ok()?;
            // Never from a protected connection to an open one.
            let downgrade = self.origin.scheme == Scheme::Https && to.origin.scheme == Scheme::Http;
            return (!downgrade).then_some(to);
        }
        let absolute = if location.starts_with("//") {
            return None;
        } else if location.starts_with('/') {
            location.to_owned()
        } else {
            let (folder, _) = self.path.rsplit_once('/')?;
            format!("{folder}/{location}")
        };
        let uri: Uri = absolute.parse().ok()?;
        Some(Url {
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            ..self.clone()
        })
    }

    /// What stands on the request line of a direct connection.
    pub(super) fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }

    /// What stands on the request line of a plain request through a proxy.
    pub(super) fn absolute_target(&self) -> String {
        let scheme = match self.origin.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}{}", self.origin.authority(), self.target())
    }
}

fn port_text_is_absent(authority: &str) -> bool {
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    match host_port.rsplit_once(']') {
        Some((_, after)) => after.is_empty(),
        None => !host_port.contains(':'),
    }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let check = |text: &str, authority: &str, target: &str| {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.origin.authority().as_str(), url.target().as_str()),
                (authority, target),
                "{text}"
            );
        };
        check("https://chef.example.com/organizations/acme", "chef.example.com:443", "/organizations/acme");
        check(" http://127.0.0.1:8000 ", "127.0.0.1:8000", "/");
        check("http://[::1]:8000/organizations/acme/", "[::1]:8000", "/organizations/acme/");
        check("https://[fe80::1]/x?y=z", "[fe80::1]:443", "/x?y=z");
        check("http://alice:se%40cret@chef:80/x", "chef:80", "/x");
        assert_eq!(
            Url::parse("http://alice:se%40cret@chef/x").unwrap().basic.as_deref(),
            Some("Basic YWxpY2U6c2VAY3JldA==")
        );
        for bad in [
            "",
            "chef",
            "HTTPS://chef",
            "ftp://chef",
            "https://",
            "https://chef:port/",
            "chefzero://x",
            "https://a b/",
        ] {
            assert_eq!(Url::parse(bad).map(|_| ()).unwrap_err().code(), ErrorCode::InvalidConfig, "{bad}");
        }
    }

    #[test]
    fn paths_are_joined() {
        for base in
            ["http://h/organizations/acme", "http://h/organizations/acme/", "http://h/organizations/acme//"]
        {
            let url = Url::parse(base).unwrap().join("pushy/jobs", "a=b");
            assert_eq!(url.target(), "/organizations/acme/pushy/jobs?a=b");
            assert_eq!(url.absolute_target(), "http://h:80/organizations/acme/pushy/jobs?a=b");
        }
        assert_eq!(Url::parse("http://h").unwrap().join("x", "").target(), "/x");
    }

    #[test]
    fn redirects_are_resolved() {
        let from = Url::parse("https://h/a/b?c").unwrap();
        let check = |location: &str, want: Option<&str>| {
            assert_eq!(from.redirect(location).map(|u| u.absolute_target()).as_deref(), want, "{location}");
        };
        check("/x?y", Some("https://h:443/x?y"));
        check("x", Some("https://h:443/a/x"));
        check("https://other:8443/z", Some("https://other:8443/z"));
        check("http://h/a", None);
        check("//other/x", None);
        check("ftp://h/x y", None);
    }
}
