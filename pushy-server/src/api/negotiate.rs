//! `Accept`, `Content-Type` and absolute URIs (2.1, 2.4.4).

use axum::http::{HeaderMap, header};

use super::error::Failure;

/// Whether `Accept` has a place for a media type; weights are not looked at, as with the original.
pub(super) fn acceptable(headers: &HeaderMap, kind: &str, subtype: &str) -> Result<(), Failure> {
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        any = true;
        let text = value.to_str().unwrap_or_default();
        let fits = text.split(',').any(|range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            match range.split_once('/') {
                Some(("*", "*")) => true,
                Some((k, s)) => k.eq_ignore_ascii_case(kind) && (s == "*" || s.eq_ignore_ascii_case(subtype)),
                None => false,
            }
        });
        if fits {
            return Ok(());
        }
    }
    if any { Err(Failure::NotAcceptable) } else { Ok(()) }
}

/// Whether the body is said to be JSON; parameters are allowed, silence is not.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Failure> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Failure::UnsupportedMediaType) }
}

/// Scheme, host and port that the client used to reach the server, whatever stands in between (2.4.4).
pub(super) fn base_uri(headers: &HeaderMap, scheme: &str, authority: &str) -> String {
    let first = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        let text = text.split(',').next()?.trim();
        (!text.is_empty()).then_some(text)
    };
    let scheme = first("x-forwarded-proto").unwrap_or(scheme);
    let host =
        ["x-forwarded-host", "x-forwarded-server", "host"].into_iter().find_map(first).unwrap_or(authority);
    let host = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443")).unwrap_or(host);
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn accept() {
        let check = |value: &str, ok: bool| {
            let found = acceptable(&headers(&[("accept", value)]), "application", "json");
            assert_eq!(found.is_ok(), ok, "{value}");
        };
        check("*/*", true);
        check("application/*", true);
        check("application/json;q=0", true);
        check("text/html, Application/JSON", true);
        check("text/html", false);
        check("application/octet-stream", false);
        check("", false);
        assert!(acceptable(&headers(&[]), "application", "json").is_ok());
    }

    #[test]
    fn content_type() {
        let check = |value: &str, ok: bool| {
            assert_eq!(is_json(&headers(&[("content-type", value)])).is_ok(), ok, "{value}");
        };
        check("application/json", true);
        check("APPLICATION/JSON; charset=utf-8", true);
        check("text/json", false);
        assert!(is_json(&headers(&[])).is_err());
    }

    #[test]
    fn uris() {
        let check = |pairs: &[(&'static str, &str)], expected: &str| {
            assert_eq!(base_uri(&headers(pairs), "http", "own:1"), expected, "{pairs:?}");
        };
        check(&[], "http://own:1");
        check(&[("host", "a:10003")], "http://a:10003");
        check(&[("host", "a:443")], "http://a");
        check(&[("host", "a:80"), ("x-forwarded-proto", "https")], "https://a");
        check(&[("host", "a"), ("x-forwarded-host", "b, c"), ("x-forwarded-port", "9")], "http://b");
        check(&[("host", "a"), ("x-forwarded-server", "s")], "http://s");
        check(&[("host", "[::1]:10003")], "http://[::1]:10003");
    }
}
