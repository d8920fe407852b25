//! The rules of header, size, signature and clock, row by row: 4.3 as the server reads it, 4.4 and 4.6 as the node does.

use openssl::rsa::Rsa;
use pushy_core::ids::IncarnationId;
use pushy_core::message::{DecodeError, JobRef, NodeMessage, ServerMessage};
use pushy_core::time::Wall;
use pushy_core::wire::{
    Channel, Limits, MAX_HEADER, RsaSigner, RsaVerifier, SessionKey, WireError, check_from_node, hmac_header,
    hmac_sha256, open_from_node, open_from_server,
};

const KEY: SessionKey = SessionKey([9; 32]);
const NOW: Wall = Wall::from_secs(1_741_083_300);
const LIMITS: Limits = Limits { max_body: 65_536, max_skew: 300 };

fn signature(body: &[u8]) -> String {
    let header = String::from_utf8(hmac_header(&KEY.0, body)).unwrap();
    header.rsplit_once(':').unwrap().1.to_owned()
}

/// Offers the server a header in which `SIG` stands for the right signature.
fn check(header: &str, expected: Result<(), WireError>) {
    let body = b"{}";
    let header = header.replace("SIG", &signature(body));
    assert_eq!(check_from_node(&KEY.0, header.as_bytes(), body), expected, "{header:?}");
}

#[test]
fn headers_as_the_server_reads_them() {
    for good in [
        "Version:2.0;SigningMethod:hmac_sha256;Signature:SIG",
        "Signature:SIG;SigningMethod:hmac_sha256;Version:2.0",
        "Version:2.0;SigningMethod:hmac_sha256;SignedChecksum:SIG",
        "Version:2.0;SigningMethod:hmac_sha256;Signature:AAAA;SignedChecksum:SIG",
        "Version:2.0;SigningMethod:hmac_sha256;SignedChecksum:AAAA;Signature:SIG",
        ";;nonsense;Note:x:y;Version:2.0;SigningMethod:hmac_sha256;Signature:SIG;",
        "Version:1.0;SigningMethod:rsa2048_sha1;Version:2.0;SigningMethod:hmac_sha256;Signature:SIG",
    ] {
        check(good, Ok(()));
    }
    for (bad, error) in [
        ("", WireError::Version),
        ("SigningMethod:hmac_sha256;Signature:SIG", WireError::Version),
        ("Version:3.0;SigningMethod:hmac_sha256;Signature:SIG", WireError::Version),
        ("Version: 2.0;SigningMethod:hmac_sha256;Signature:SIG", WireError::Version),
        ("Version:2.0:;SigningMethod:hmac_sha256;Signature:SIG", WireError::Version),
        ("version:2.0;SigningMethod:hmac_sha256;Signature:SIG", WireError::Version),
        ("Version:2.0,SigningMethod:hmac_sha256,Signature:SIG", WireError::Version),
        ("Version:1.0;SigningMethod:hmac_sha256;Signature:SIG", WireError::Method),
        ("Version:2.0;Signature:SIG", WireError::Method),
        ("Version:2.0;SigningMethod:HMAC_SHA256;Signature:SIG", WireError::Method),
        ("Version:2.0;SigningMethod:rsa2048_sha1;Signature:SIG", WireError::Method),
        ("Version:2.0;SigningMethod:hmac_sha256", WireError::Signature),
        ("Version:2.0;SigningMethod:hmac_sha256;Signature:", WireError::Signature),
        ("Version:2.0;SigningMethod:hmac_sha256;signature:SIG", WireError::Signature),
        ("Version:2.0;SigningMethod:hmac_sha256;Signature:SIG;Signature:AAAA", WireError::Signature),
        ("Version:2.0;SigningMethod:hmac_sha256;Signature:SIG\n", WireError::Signature),
        ("Version:2.0;SigningMethod:hmac_sha256;Signature: SIG", WireError::Signature),
        ("Version:2.0;SigningMethod:hmac_sha256;Signature:SIG:", WireError::Signature),
    ] {
        check(bad, Err(error));
    }
    let unpadded = signature(b"{}").trim_end_matches('=').to_owned();
    check(&format!("Version:2.0;SigningMethod:hmac_sha256;Signature:{unpadded}"), Err(WireError::Signature));
}

#[test]
fn sizes_at_their_limits() {
    let header = "Version:2.0;SigningMethod:hmac_sha256;Signature:SIG;Note:";
    let filler = |length: usize| "x".repeat(length + 3 - header.len() - 44);
    check(&format!("{header}{}", filler(MAX_HEADER)), Ok(()));
    check(&format!("{header}{}", filler(MAX_HEADER + 1)), Err(WireError::HeaderTooLarge(MAX_HEADER + 1)));

    let body = |length: usize| {
        let start = r#"{"node":"n","org":"o","type":"aborted","job_id":null,"timestamp":"Tue, 04 Mar 2025 10:15:00 GMT","x":""#;
        format!("{start}{}\"}}", "x".repeat(length - start.len() - 2)).into_bytes()
    };
    for (length, error) in
        [(65_536, None), (65_537, Some(WireError::BodyTooLarge { size: 65_537, limit: 65_536 }))]
    {
        let body = body(length);
        assert_eq!(body.len(), length);
        let opened = open_from_node(&KEY, LIMITS, NOW, &hmac_header(&KEY.0, &body), &body);
        assert_eq!(opened.err(), error);
    }
}

#[test]
fn the_signature_is_checked_before_the_body_is_read() {
    let open = |header: &[u8], body: &'static [u8]| {
        open_from_node(&KEY, LIMITS, NOW, header, body).map(|m| m.message)
    };
    let body = b"nonsense";
    assert_eq!(open(&hmac_header(b"other", body), body), Err(WireError::Signature));
    assert_eq!(open(&hmac_header(&KEY.0, body), body), Err(WireError::Body(DecodeError::NotAnObject)));
    let body = br#"{"node":"n","org":"o","timestamp":"Tue, 04 Mar 2025 10:15:00 GMT","type":"ack_run","job_id":null}"#;
    assert_eq!(open(&hmac_header(&KEY.0, body), body), Ok(NodeMessage::AckRun { job: JobRef::None }));
    assert_eq!(
        open_from_node(&SessionKey([8; 32]), LIMITS, NOW, &hmac_header(&KEY.0, body), body).err(),
        Some(WireError::Signature)
    );
}

#[test]
fn a_channel_takes_only_its_own_method() {
    let pem = String::from_utf8(Rsa::generate(2048).unwrap().private_key_to_pem().unwrap()).unwrap();
    let signer = RsaSigner::from_pem(&pem).unwrap();
    let server = RsaVerifier::from_pem(&signer.public_pem().unwrap()).unwrap();
    let open = |channel, seconds: i64, header: &[u8], body: &[u8]| {
        let now = Wall::from_secs(NOW.secs() + seconds);
        open_from_server(&KEY, &server, channel, LIMITS, now, header, body).map(|m| m.message)
    };
    let beat = ServerMessage::Heartbeat {
        server: "push01".into(),
        incarnation: Some(IncarnationId::new("0d6b").unwrap()),
    };
    let body = beat.encode(0, NOW);
    let rsa = signer.header(&body).unwrap();
    let hmac = hmac_header(&KEY.0, &body);
    assert_eq!(String::from_utf8_lossy(&rsa).len(), 49 + 344);
    assert_eq!(open(Channel::Heartbeat, 0, &rsa, &body), Ok(beat.clone()));
    assert_eq!(open(Channel::Command, 0, &hmac, &body), Ok(beat));
    assert_eq!(open(Channel::Heartbeat, 0, &hmac, &body), Err(WireError::Method));
    assert_eq!(open(Channel::Command, 0, &rsa, &body), Err(WireError::Method));
    assert_eq!(open(Channel::Heartbeat, 0, &rsa, b"{}"), Err(WireError::Signature));
    assert_eq!(open(Channel::Command, 0, &[b'x'; 2049], &body), Err(WireError::HeaderTooLarge(2049)));
    let mut bent = rsa.clone();
    *bent.last_mut().unwrap() = b'A';
    bent[60] ^= 1;
    assert_eq!(open(Channel::Heartbeat, 0, &bent, &body), Err(WireError::Signature));

    // The window of the node is closed at both ends, and symmetric (D-53).
    for (seconds, error) in [
        (300, None),
        (-300, None),
        (301, Some(301)),
        (-301, Some(-301)),
        (86_400, Some(86_400)),
        (-86_400, Some(-86_400)),
    ] {
        assert_eq!(
            open(Channel::Heartbeat, seconds, &rsa, &body).err(),
            error.map(WireError::Skew),
            "{seconds}"
        );
    }
}

#[test]
fn hmac_of_rfc_4231() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert_eq!(
        hex(&hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}
