//! The `/config/NODE` document (2.4.2): order of members, what an agent insists on, the session key's way.

use openssl::rsa::{Padding, Rsa};
use pushy_core::ErrorCode;
use pushy_core::auth::{PublicKey, SigningKey};
use pushy_core::curve_key::CurveKey;
use pushy_core::ids::IncarnationId;
use pushy_core::message::Caps;
use pushy_core::node_config::{NodeConfig, wrap_session_key};
use pushy_core::time::Millis;
use pushy_core::wire::SessionKey;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyKGYE+flKZL8QVYZMYWL
n6LgHXwL3C4WxG3vI9PM5FVudYwLXf8cnhdhboPNZSDHNXmZp7GyyaRw+5UxhXDM
fO9WkdJK57+yDPr/JyIGwR/qv94kAgyR3lhHhi147g3YMp0eFWA87uqyjV97ED+u
NjCKhaOMSft4trPrlTs0D3/TvW+xHCIHbbZvHkxi3DJ4ro2KlHMIk+UgPsTVgFNB
1r/AqNjW+Wsnc4dsErYXXUZhww9QarVtpb8ri5An48xu627E1Nu0kfQiz7lopyIY
AT8+SGXS2BAc2oHxgAthdfs2ZlcU6SmQ/v3qGU7NpNXc5yQUPhSjgEZSa7mdq4Gb
8QIDAQAB
-----END PUBLIC KEY-----

";

fn config() -> NodeConfig {
    NodeConfig {
        host: "push.example.com".into(),
        heartbeat_addr: "tcp://push.example.com:10000".into(),
        command_addr: "tcp://[2001:db8::7]:10002".into(),
        interval: Millis(10_000),
        offline_threshold: 3,
        online_threshold: 2,
        node: "web-01.example.com".into(),
        organization: "acme".into(),
        public_key: PUBLIC_KEY.into(),
        curve_public_key: Some(CurveKey::from_z85("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7").unwrap()),
        encoded_session_key: "HdaC".into(),
        lifetime: 3600,
        max_message_skew: 300,
        max_body_size: Some(65_536),
        incarnation: IncarnationId::new("0d6b7a52-3c4e-4f0f-8a1b-9e2d7c6b5a40").unwrap(),
        caps: Some(Caps::RESULTS),
    }
}

#[test]
fn members_have_the_originals_order() {
    let expected = concat!(
        r#"{"type":"config","host":"push.example.com","push_jobs":{"heartbeat":{"out_addr":"tcp://push.example.com:10000","#,
        r#""command_addr":"tcp://[2001:db8::7]:10002","interval":10.0,"offline_threshold":3,"online_threshold":2}},"#,
        r#""node":"web-01.example.com","organization":"acme","public_key":"PEM","#,
        r#""curve_public_key":"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7","#,
        r#""encoded_session_key":{"method":"hmac_sha256","key":"HdaC"},"lifetime":3600,"max_message_skew":300,"#,
        r#""max_body_size":65536,"incarnation_id":"0d6b7a52-3c4e-4f0f-8a1b-9e2d7c6b5a40","caps":["results"]}"#,
    );
    assert_eq!(config().to_json().replace(&PUBLIC_KEY.replace('\n', "\\n"), "PEM"), expected);
    assert_eq!(NodeConfig::from_json(config().to_json().as_bytes()), Ok(config()));
}

/// The document with one member replaced or, with `null`, taken away.
fn change(path: &str, value: Value) -> String {
    let mut document: Value = serde_json::from_str(&config().to_json()).unwrap();
    let mut place = &mut document;
    for name in path.split('.') {
        place = &mut place[name];
    }
    *place = value;
    document.to_string()
}

#[test]
fn members_an_agent_needs_are_named_when_missing_or_wrong() {
    let zeros = json!("0".repeat(39));
    for (path, wrong) in [
        (
            "push_jobs.heartbeat.out_addr",
            vec![json!(1), json!("tcp://:10000"), json!("http://h:1"), json!("tcp://h:x")],
        ),
        ("push_jobs.heartbeat.command_addr", vec![json!("tcp://h:0"), json!("tcp://h")]),
        ("push_jobs.heartbeat.interval", vec![json!(0), json!(-1), json!("10"), json!(1e300)]),
        ("push_jobs.heartbeat.offline_threshold", vec![json!("3"), json!(-3), json!(1.5)]),
        ("push_jobs.heartbeat.online_threshold", vec![json!([])]),
        (
            "public_key",
            vec![json!(1), json!("key"), json!("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")],
        ),
        ("encoded_session_key.method", vec![json!("rot13")]),
        ("encoded_session_key.key", vec![json!({})]),
        ("lifetime", vec![json!("3600"), json!(-1), json!(5_000_000_000_u64)]),
        ("max_message_skew", vec![json!(1.5)]),
        ("incarnation_id", vec![json!(""), json!(7)]),
        ("curve_public_key", vec![json!(1), json!("short"), zeros]),
    ] {
        for value in wrong {
            let error = NodeConfig::from_json(change(path, value.clone()).as_bytes()).unwrap_err();
            assert!(error.message().contains(&format!("`{path}`")), "{path} {value}: {error}");
            assert!([ErrorCode::Malformed, ErrorCode::InvalidKey].contains(&error.code()));
        }
        if path != "curve_public_key" {
            let error = NodeConfig::from_json(change(path, Value::Null).as_bytes()).unwrap_err();
            assert_eq!(error.message(), format!("member `{path}` of the node's configuration is missing"));
        }
    }
    for text in ["", "[]", "null", "{\"a\":"] {
        assert_eq!(NodeConfig::from_json(text.as_bytes()).unwrap_err().code(), ErrorCode::Malformed);
    }
}

#[test]
fn an_originals_document_is_read() {
    let mut expected = NodeConfig { caps: None, ..config() };
    let text = change("caps", Value::Null);
    assert_eq!(NodeConfig::from_json(text.as_bytes()), Ok(expected.clone()));
    // 1.x servers have no CURVE key and say no body size.
    expected.curve_public_key = None;
    expected.max_body_size = None;
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document.as_object_mut().unwrap().retain(|name, _| name != "curve_public_key" && name != "max_body_size");
    document["push_jobs"]["heartbeat"]["interval"] = json!(10);
    assert_eq!(NodeConfig::from_json(document.to_string().as_bytes()), Ok(expected));
}

#[test]
fn session_keys_are_wrapped_with_the_given_randomness() {
    let rsa = Rsa::generate(2048).unwrap();
    let key = SigningKey::from_pem(rsa.private_key_to_pem().unwrap()).unwrap();
    let public = PublicKey::from_pem(key.public_pem().unwrap()).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..50 {
        let session = SessionKey::generate(&mut random);
        let encoded = wrap_session_key(&session, &public, &mut random).unwrap();
        assert_eq!(encoded.len(), 344);
        let opened = NodeConfig { encoded_session_key: encoded.clone(), ..config() }.session_key(&key);
        assert_eq!(opened, Ok(session.clone()));
        // OpenSSL agrees, and no padding byte is zero.
        let wrapped = openssl::base64::decode_block(&encoded).unwrap();
        let mut block = [0u8; 256];
        rsa.private_decrypt(&wrapped, &mut block, Padding::NONE).unwrap();
        assert!(block[..2] == [0, 2] && block[2..223].iter().all(|b| *b != 0) && block[223] == 0);
        assert_eq!(block[224..], session.0);
    }
    let wrap =
        |seed| wrap_session_key(&SessionKey([1; 32]), &public, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
    assert_eq!(wrap(3), wrap(3));
    assert_ne!(wrap(3), wrap(4));
}

#[test]
fn session_keys_that_do_not_open() {
    let key = || SigningKey::from_pem(Rsa::generate(2048).unwrap().private_key_to_pem().unwrap()).unwrap();
    let (ours, other) = (key(), key());
    let public = |key: &SigningKey| PublicKey::from_pem(key.public_pem().unwrap()).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let foreign = wrap_session_key(&SessionKey([1; 32]), &public(&other), &mut random).unwrap();
    for (encoded, hint) in [(foreign.as_str(), "client key"), ("!", "not Base64"), ("", "cannot be opened")] {
        let error =
            NodeConfig { encoded_session_key: encoded.into(), ..config() }.session_key(&ours).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidKey);
        assert!(error.message().contains(hint), "{error}");
    }
    let small = Rsa::generate(512).unwrap().public_key_to_pem().unwrap();
    let small = PublicKey::from_pem(small).unwrap();
    assert!(wrap_session_key(&SessionKey([1; 32]), &small, &mut random).is_ok());
}
