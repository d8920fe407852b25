//! What a running server reads again: certificate and key, log level; and what it says of the rest.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::{X509, X509Name};
use pushy_server::admin::Command;
use serde_json::json;

use crate::lab::{DEADLINE, Lab, made};

/// A certificate of this name with its key, in two files.
pub(crate) fn certify(dir: &Path, name: &str) {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let mut subject = X509Name::builder().expect("a name");
    subject.append_entry_by_text("CN", name).expect("a name");
    let subject = subject.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_subject_name(&subject).expect("a subject");
    builder.set_issuer_name(&subject).expect("an issuer");
    builder.set_pubkey(&key).expect("a key");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("a date")).expect("a date");
    builder.set_not_after(&Asn1Time::days_from_now(90).expect("a date")).expect("a date");
    builder.sign(&key, MessageDigest::sha256()).expect("a signature");
    // As an operator's tool does it: each file whole, one after the other.
    for (file, pem) in [
        ("cert.pem", builder.build().to_pem().expect("PEM")),
        ("key.pem", key.private_key_to_pem_pkcs8().expect("PEM")),
    ] {
        let new = dir.join(format!("{file}.new"));
        std::fs::write(&new, pem).expect("written");
        std::fs::rename(new, dir.join(file)).expect("renamed");
    }
}

/// The name in the certificate that a new connection is shown, after a whole request.
async fn shown(address: SocketAddr) -> String {
    let ask = move || {
        use std::io::{Read as _, Write as _};
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
        builder.set_verify(SslVerifyMode::NONE);
        let stream = std::net::TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
        let mut stream = builder.build().connect("localhost", stream).expect("a handshake");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let certificate = stream.ssl().peer_certificate().expect("a certificate");
        let entry = certificate.subject_name().entries().next().expect("a name");
        entry.data().to_string().expect("a text").to_string()
    };
    tokio::task::spawn_blocking(ask).await.expect("no panic")
}

#[tokio::test]
async fn certificates_change_under_open_eyes() {
    let root = made("tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\ntls_check_interval = 0.05\n").await;
    let dir = root.path().join("D");
    certify(&dir, "first");
    let lab = Lab::start_in(root).await;
    assert_eq!(shown(lab.address).await, "first");
    // By itself.
    certify(&dir, "second");
    let end = tokio::time::Instant::now() + DEADLINE;
    while shown(lab.address).await != "second" {
        assert!(tokio::time::Instant::now() < end, "the new certificate is not taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What cannot be used leaves the old one in use, and is said.
    std::fs::write(dir.join("key.pem"), "nonsense").expect("written");
    let said = lab.operate(Command::Reload).await.expect("an answer");
    let said = said[0].as_str().expect("a line");
    assert!(said.starts_with("the old certificate stays in use: tls_cert "), "{said}");
    assert_eq!(shown(lab.address).await, "second");
    certify(&dir, "third");
    let said = lab.operate(Command::Reload).await.expect("an answer");
    assert_eq!(said, json!(["certificate and key were read"]));
    assert_eq!(shown(lab.address).await, "third");
    lab.stop().await;
}

#[tokio::test]
async fn a_reload_says_what_needs_a_restart() {
    let lab = Lab::start().await;
    let file = lab.dir.join("server.toml");
    let text = std::fs::read_to_string(&file).expect("settings");
    assert_eq!(lab.operate(Command::Reload).await.expect("an answer"), json!([]));
    std::fs::write(&file, format!("{text}max_nodes = 7\nlog_level = \"warn\"\n")).expect("written");
    let said = lab.operate(Command::Reload).await.expect("an answer");
    let restart = "max_nodes has changed: restart the server to put it into effect";
    assert_eq!(said, json!(["log_level is warn now", restart]));
    std::fs::write(&file, format!("{text}max_nods = 7\n")).expect("written");
    let said = lab.operate(Command::Reload).await.expect("an answer");
    let said = said[0].as_str().expect("a line");
    assert!(
        said.starts_with("the settings stay as they are: ") && said.ends_with("did you mean `max_nodes`?"),
        "{said}"
    );
    lab.stop().await;
}
