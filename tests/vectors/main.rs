//! The golden vectors `chef-auth.json` and `push-wire.json`: every case with the verdict of decisions 16 and 17. Each test
//! prints how many cases it ran and where we differ from the originals on purpose.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

mod chef_auth;
mod push_wire;

/// Reads a file of vectors beside this one.
fn load(name: &str, format: &str) -> Value {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let vectors: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(vectors["format"], format);
    vectors
}

/// The bytes that `{utf8}`, `{base64}` or `{filler: {seed, bytes}}` stands for.
fn content(value: &Value) -> Vec<u8> {
    if let Some(text) = value.get("utf8") {
        return text.as_str().unwrap().as_bytes().to_vec();
    }
    if let Some(text) = value.get("base64") {
        return STANDARD.decode(text.as_str().unwrap()).unwrap();
    }
    let filler = &value["filler"];
    let seed = filler["seed"].as_str().unwrap();
    let length = filler["bytes"].as_u64().unwrap() as usize;
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = 0u64;
    while bytes.len() < length {
        let mut hash = openssl::sha::Sha256::new();
        hash.update(seed.as_bytes());
        hash.update(&block.to_be_bytes());
        bytes.extend_from_slice(&hash.finish());
        block += 1;
    }
    bytes.truncate(length);
    bytes
}

fn cases(group: &Value) -> &[Value] {
    group.as_array().map(Vec::as_slice).expect("a group of cases is an array")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is no string in {value}"))
}

/// Prints past the test harness, which would swallow the output of a passing test.
fn report(lines: &[String]) {
    use std::io::Write as _;
    let _ = std::io::stderr().lock().write_all((lines.join("\n") + "\n").as_bytes());
}
