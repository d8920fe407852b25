//! Which proxy, if any, stands between us and a server (chef-auth 9.11).

use super::url::{Origin, Scheme, Url};
use crate::error::{Error, ErrorCode, Result};

/// The proxy settings, as the environment or the configuration has them. May hold a password: not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// `http_proxy`: for `http://` servers.
    pub http: Option<String>,
    /// `https_proxy`: for `https://` servers.
    pub https: Option<String>,
    /// `no_proxy`: servers that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl std::fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxySettings")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

impl ProxySettings {
    /// The proxy for a server; `None` for a direct connection.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`] naming the setting that cannot be used.
    pub(super) fn choose(&self, server: &Origin) -> Result<Option<Url>> {
        let (name, value, default_scheme) = match server.scheme {
            Scheme::Http => ("http_proxy", &self.http, "http://"),
            // A value without a scheme gets the server's in the original; proxies that speak TLS themselves are so rare
            // that a bare name means a plain one.
            Scheme::Https => ("https_proxy", &self.https, "http://"),
        };
        let Some(value) = value.as_deref().map(str::trim).filter(|v| !v.is_empty()) else {
            return Ok(None);
        };
        if self.no_proxy.as_deref().is_some_and(|list| excluded(list, &server.host)) {
            return Ok(None);
        }
        let value = if value.contains("://") { value.to_owned() } else { format!("{default_scheme}{value}") };
        let bad = |why: &str| Error::new(ErrorCode::InvalidConfig, format!("{name} {why}"));
        let proxy = Url::parse(&value).map_err(|_| bad("is not a valid http:// address"))?;
        match proxy.origin.scheme {
            Scheme::Http => Ok(Some(proxy)),
            Scheme::Https => {
                Err(bad("is an https:// address; only proxies reached over http:// are supported"))
            }
        }
    }
}

/// Each entry is a wildcard pattern with `*` put in front: `example.com` also covers `notexample.com` (chef-auth 9.11).
fn excluded(list: &str, host: &str) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let pattern = if entry.starts_with('*') { entry.to_owned() } else { format!("*{entry}") };
        wildcard(pattern.as_bytes(), host.as_bytes())
    })
}

/// `*` for any run of bytes, `?` for one. Takes time in proportion to pattern times text at worst.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || Some(&c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(http: &str, https: &str, no_proxy: &str, server: &str) -> Result<Option<String>> {
        let settings = ProxySettings {
            http: Some(http.to_owned()),
            https: Some(https.to_owned()),
            no_proxy: Some(no_proxy.to_owned()),
        };
        let server = Url::parse(server).unwrap();
        Ok(settings.choose(&server.origin)?.map(|p| p.origin.authority()))
    }

    #[test]
    fn the_scheme_of_the_server_chooses() {
        let check = |server: &str, want: Option<&str>| {
            assert_eq!(choose("http://p:3128", "q", "", server).unwrap().as_deref(), want, "{server}");
        };
        check("http://chef", Some("p:3128"));
        check("https://chef", Some("q:80"));
        assert_eq!(choose("", " ", "", "http://chef").unwrap(), None);
        assert_eq!(
            choose("", "https://p", "", "https://chef").unwrap_err().message(),
            "https_proxy is an https:// address; only proxies reached over http:// are supported"
        );
        assert!(choose("http://[", "", "", "http://chef").is_err());
    }

    #[test]
    fn no_proxy_matches_as_knife_does() {
        let check =
            |list: &str, host: &str, want: bool| assert_eq!(excluded(list, host), want, "{list} {host}");
        check("example.com", "chef.example.com", true);
        check("example.com", "notexample.com", true);
        check(".example.com", "notexample.com", false);
        check("10.0.0.5", "110.0.0.5", true);
        check("10.0.0.5", "10.0.0.50", false);
        check("chef:443", "chef", false);
        check("CHEF", "chef", false);
        check("a, b", "b", true);
        check("*", "anything", true);
        check("192.168.*", "192.168.1.2", true);
        check("a*b*c", "aXbXbc", true);
        check("", "chef", false);
    }
}
