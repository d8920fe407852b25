//! Signed headers: signing byte for byte, checking with the answers of our server.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pushy_core::ErrorCode;
use pushy_core::auth::{
    Head, MAX_SKEW, PublicKey, Request, SigningKey, Unsigned, Version, canonical_path, is_inline_key, sign,
};
use pushy_core::time::Wall;
use serde_json::Value;

use crate::{cases, content, load, report, text};

fn vectors() -> Value {
    load("chef-auth.json", "chef-auth-vectors/1")
}

fn signing_keys(vectors: &Value) -> HashMap<String, SigningKey> {
    let keys = vectors["keys"].as_object().unwrap();
    keys.iter()
        .map(|(name, key)| (name.clone(), SigningKey::from_pem(text(key, "private_pem")).unwrap()))
        .collect()
}

fn public_keys(vectors: &Value) -> HashMap<String, PublicKey> {
    let keys = vectors["keys"].as_object().unwrap();
    keys.iter()
        .map(|(name, key)| (name.clone(), PublicKey::from_pem(text(key, "public_pem")).unwrap()))
        .collect()
}

/// A time in any of the spellings that the Ruby signer takes; ours takes a moment, so the spelling is the test's affair.
fn moment(spelling: &str) -> Option<Wall> {
    if let Some(at) = Wall::parse_http_date(spelling).or_else(|| Wall::parse_iso8601(spelling)) {
        return Some(at);
    }
    let (date_time, rest) = spelling.split_at_checked(19)?;
    if let Some(before) = date_time.strip_suffix(":60") {
        return Some(Wall::from_secs(Wall::parse_iso8601(&format!("{before}:59"))?.secs() + 1));
    }
    let at = Wall::parse_iso8601(date_time)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.strip_suffix('Z')?;
        let micros: i64 = format!("{digits:0<6}").parse().ok()?;
        return Some(Wall(at.0 + micros));
    }
    let (hours, minutes) = rest.get(1..)?.split_once(':')?;
    let offset: i64 = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    let sign = if rest.starts_with('-') { 1 } else { -1 };
    Some(Wall::from_secs(at.secs() + sign * offset))
}

/// What is hashed: the file of an upload, else the body.
fn signed_body(place: &Value) -> Vec<u8> {
    content(place.get("file").unwrap_or(&place["body"]))
}

fn request<'a>(input: &'a Value, body: &'a [u8]) -> Result<Request<'a>, &'static str> {
    Ok(Request {
        version: Version::from_text(text(input, "proto_version")).map_err(|_| "unsupported")?,
        method: text(input, "http_method"),
        path: text(input, "path"),
        body,
        user: text(input, "user_id"),
        at: moment(text(input, "timestamp")).ok_or("bad-time")?,
        api_version: input["api_version"].as_str(),
    })
}

fn pairs(headers: &Value) -> Vec<(String, String)> {
    let pair = |h: &Value| (h[0].as_str().unwrap().to_owned(), h[1].as_str().unwrap().to_owned());
    cases(headers).iter().map(pair).collect()
}

/// The status our server answers a signed request with; 200 stands for "who it claims to be".
fn status(
    now: Wall,
    headers: &[(String, String)],
    method: &str,
    target: &str,
    body: &[u8],
    key: &PublicKey,
) -> u16 {
    let find = |name: &str| {
        headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    };
    match Head::read(find, now, MAX_SKEW).and_then(|head| head.verify(method, target, body, [key])) {
        Ok(_) => 200,
        Err(error) => {
            let body: Value = serde_json::from_str(&error.body()).unwrap();
            assert_eq!(body["error"][0], error.to_string());
            error.status()
        }
    }
}

/// Where decision 17 departs from the status of an Infra Server.
const DECIDED: &[(&str, u16, &str)] = &[
    ("bad-hash-header-13", 401, "the content hash header is checked in 1.3 too"),
    ("bad-hash-sha1-13", 401, "the content hash header is checked in 1.3 too"),
    ("sign-semicolons", 400, "an empty item in X-Ops-Sign is refused"),
    ("get-13-api-odd", 200, "a push server does not check the API version"),
    ("ok-api-11", 200, "a push server does not check the API version"),
    ("utf8-user-10", 200, "names are bytes in 1.0 as in the other versions"),
];

#[test]
fn signing_is_byte_for_byte_the_originals() {
    let vectors = vectors();
    let keys = signing_keys(&vectors);
    let positive = cases(&vectors["positive"]);
    for case in positive {
        let id = text(case, "id");
        let (input, expect) = (&case["input"], &case["expect"]);
        let body = signed_body(input);
        let request = request(input, &body).unwrap();
        let unsigned = Unsigned::new(&request).unwrap();
        assert_eq!(String::from_utf8_lossy(unsigned.text()), text(expect, "canonical_request"), "{id}");
        assert_eq!(canonical_path(request.path), text(expect, "canonical_path"), "{id}");
        let headers: Vec<(String, String)> = sign(&keys[text(case, "key")], &request)
            .unwrap()
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value))
            .collect();
        assert_eq!(headers, pairs(&expect["headers"]), "{id}");
    }
    report(&[format!("chef-auth positive, signing: {} cases", positive.len())]);
}

#[test]
fn checking_answers_as_decided() {
    let vectors = vectors();
    let keys = public_keys(&vectors);
    let mut lines = Vec::new();
    let mut count = [0; 3];
    let mut check = |group: usize, case: &Value, mixlib_accepts: bool, actual: u16| {
        let id = text(case, "id");
        let erchef = case["others"]["erchef_status"].as_u64().unwrap() as u16;
        let decided = DECIDED.iter().find(|(name, ..)| *name == id);
        let expected = decided.map_or(erchef, |(_, status, _)| *status);
        assert_eq!(actual, expected, "{id}: {}", text(case, "remark"));
        count[group] += 1;
        if mixlib_accepts != (erchef == 200) {
            let mixlib = if mixlib_accepts { "accepts" } else { "refuses" };
            let why = decided.map_or("as the Infra Server", |(_, _, why)| *why);
            lines.push(format!("  {id}: mixlib {mixlib}, Infra Server {erchef}, ours {actual}: {why}"));
        }
    };
    for case in cases(&vectors["positive"]) {
        let input = &case["input"];
        let mut headers = pairs(&case["expect"]["headers"]);
        if let Some(version) = input["api_version"].as_str() {
            headers.push(("X-Ops-Server-API-Version".into(), version.into()));
        }
        let now = moment(text(&case["verify"], "now")).unwrap();
        let target = input["request_target"].as_str().unwrap_or(text(input, "path"));
        let method = text(input, "http_method");
        let actual = status(now, &headers, method, target, &signed_body(input), &keys[text(case, "key")]);
        check(0, case, case["verify"]["verdict"] == "accept", actual);
    }
    for (group, name) in [(1, "lenient"), (2, "negative")] {
        for case in cases(&vectors[name]) {
            assert_eq!(case["skew"], MAX_SKEW);
            let request = &case["request"];
            let now = moment(text(case, "now")).unwrap();
            let headers = pairs(&request["headers"]);
            let (method, target) = (text(request, "method"), text(request, "path"));
            let actual =
                status(now, &headers, method, target, &signed_body(request), &keys[text(case, "key")]);
            check(group, case, case["expect"]["verdict"] == "accept", actual);
        }
    }
    assert_eq!(count.iter().sum::<i32>(), 170);
    assert_eq!(lines.len(), 19, "{}", lines.join("\n"));
    let [positive, lenient, negative] = count;
    lines.insert(
        0,
        format!(
            "chef-auth checking: {positive} positive, {lenient} lenient, {negative} negative; originals disagree in {}:",
            lines.len()
        ),
    );
    report(&lines);
}

#[test]
fn what_must_not_be_signed_is_refused() {
    let vectors = vectors();
    let keys = signing_keys(&vectors);
    let errors = cases(&vectors["sign_errors"]);
    for case in errors {
        let body = signed_body(&case["input"]);
        let verdict = match request(&case["input"], &body) {
            Err(verdict) => verdict,
            Ok(request) => {
                let error = sign(&keys[text(case, "key")], &request).unwrap_err();
                assert_eq!(error.code(), ErrorCode::InvalidArgument);
                assert!(error.message().contains("a key of 2048 bits takes 245"), "{error}");
                "text-too-long"
            }
        };
        assert_eq!(verdict, text(case, "expect"), "{}", text(case, "id"));
    }
    report(&[format!("chef-auth sign_errors: {} cases", errors.len())]);
}

#[test]
fn paths_become_canonical() {
    let vectors = vectors();
    let paths = cases(&vectors["canonical_paths"]);
    for pair in paths {
        let (path, canonical) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        assert_eq!(canonical_path(path), canonical, "{path:?}");
    }
    report(&[format!("chef-auth canonical_paths: {} cases", paths.len())]);
}

fn spki_sha256(pem: &str) -> String {
    let der = STANDARD.decode(pem.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
    openssl::sha::sha256(&der).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn key_texts_load_as_described() {
    let vectors = vectors();
    let formats = cases(&vectors["key_formats"]);
    let mut lines = vec![format!("chef-auth key_formats: {} cases", formats.len())];
    for case in formats {
        let (name, pem, expect) = (text(case, "name"), text(case, "text"), &case["expect"]);
        let signs = expect["loads"] == true && expect["private"] == true;
        match SigningKey::from_pem(pem) {
            Ok(key) => {
                assert!(signs, "{name} loaded");
                assert_eq!(spki_sha256(&key.public_pem().unwrap()), text(expect, "spki_sha256"), "{name}");
            }
            Err(error) => {
                assert!(!signs, "{name}: {error}");
                assert_eq!(error.code(), ErrorCode::InvalidKey);
                if expect["loads"] == true {
                    assert!(error.message().contains("a private key is needed"), "{name}: {error}");
                }
                // No line of the file may show up in an error.
                assert!(!pem.lines().any(|l| l.len() > 20 && error.message().contains(l)), "{name}");
            }
        }
        let inline = is_inline_key(pem);
        if inline != (expect["inline_as_key"] == true) {
            assert!(inline && pem.starts_with("-----BEGIN PRIVATE KEY-----"), "{name}");
            lines.push(format!(
                "  {name}: the original takes an inline PKCS#8 key for a path, ours for a key"
            ));
        }
        // As public key of a requester (auth 5.2).
        let public = matches!(name, "spki-public" | "pkcs1-public" | "x509-certificate");
        assert_eq!(PublicKey::from_pem(pem).is_ok(), public, "{name} as public key");
    }
    report(&lines);
}

#[test]
fn an_agents_signature_makes_the_same_headers() {
    let vectors = vectors();
    let agent = cases(&vectors["agent"]);
    for case in agent {
        let id = text(case, "case");
        let base = cases(&vectors["positive"]).iter().find(|c| c["id"] == id).unwrap();
        let blob = STANDARD.decode(text(case, "reply_blob")).unwrap();
        let signature = &blob[case["signature_offset"].as_u64().unwrap() as usize..];
        let body = signed_body(&base["input"]);
        let request = request(&base["input"], &body).unwrap();
        let headers = Unsigned::new(&request).unwrap().headers(signature);
        let headers: Vec<(String, String)> = headers.into_iter().map(|(n, v)| (n.into_owned(), v)).collect();
        assert_eq!(headers, pairs(&base["expect"]["headers"]), "{id}");
    }
    report(&[format!("chef-auth agent: {} cases", agent.len())]);
}
