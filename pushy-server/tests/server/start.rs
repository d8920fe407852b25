//! What a start refuses, and in which words; what a stop and a kill leave.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushy_core::message::JobState;
use pushy_server::Listeners;
use pushy_server::config::Config;
use serde_json::json;

use crate::lab::{DEADLINE, Lab, arg, made};
use crate::puppet::Puppet;

/// The program itself; ends with the value.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already is only waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Off the runtime's thread, and not for ever.
pub(crate) async fn wait<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::time::timeout(DEADLINE, tokio::task::spawn_blocking(what))
        .await
        .expect("in time")
        .expect("no panic")
}

/// The program, started; and its first line.
async fn program(dir: &Path) -> (Program, String) {
    program_under(&[], dir).await
}

/// The same by way of another program, which must end in being this one.
pub(crate) async fn program_under(launcher: &[&str], dir: &Path) -> (Program, String) {
    let own = [env!("CARGO_BIN_EXE_pushy-server"), "run", arg(dir), "--log-format", "json"];
    let words = [launcher, &own].concat();
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let stdout = child.stdout.take().expect("a pipe");
    let program = Program(child);
    let first = wait(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("text");
        line
    });
    let line = first.await;
    (program, line)
}

/// Exit status and standard error.
async fn ended(mut program: Program) -> (Option<i32>, String) {
    wait(move || {
        let mut text = String::new();
        program.0.stderr.take().expect("a pipe").read_to_string(&mut text).expect("UTF-8");
        (program.0.wait().expect("a status").code(), text)
    })
    .await
}

/// The last line on standard error of a program that does not start.
async fn refused(dir: &Path) -> String {
    refused_under(&[], dir).await
}

async fn refused_under(launcher: &[&str], dir: &Path) -> String {
    let (program, line) = program_under(launcher, dir).await;
    assert_eq!(line, "");
    let (status, text) = ended(program).await;
    assert_eq!(status, Some(1));
    text.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why() {
    let root = made("").await;
    let dir = root.path().join("D");
    let d = arg(&dir);
    let keys = dir.join("keys.json");
    let good = std::fs::read_to_string(&keys).expect("keys");
    let check = async |expected: String| assert_eq!(refused(&dir).await, format!("pushy-server: {expected}"));

    std::fs::remove_file(&keys).expect("removed");
    check(format!("{d}/keys.json: no such file; restore it from a backup, nodes know the server by it"))
        .await;
    std::fs::write(&keys, "{}").expect("written");
    check(format!("{d}/keys.json: not a key file of pushy-server (line 1, column 2)")).await;
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o000)).expect("changed");
    // Root may read it all the same, unless it is without that capability.
    let without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let launcher = if nix::unistd::Uid::effective().is_root() { &without[..] } else { &[] };
    let expected = format!("pushy-server: {d}/keys.json: Permission denied (os error 13)");
    assert_eq!(refused_under(launcher, &dir).await, expected);
    std::fs::remove_file(&keys).expect("removed");
    std::fs::create_dir(&keys).expect("made");
    check(format!("{d}/keys.json: Is a directory (os error 21)")).await;
    std::fs::remove_dir(&keys).expect("removed");
    std::fs::write(&keys, &good).expect("written");

    let settings = dir.join("server.toml");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let lines = text.lines().count();
    std::fs::write(&settings, format!("{text}voting_timout = 1\n")).expect("written");
    check(format!(
        "{d}/server.toml:{}: unknown setting `voting_timout`; did you mean `voting_timeout`?",
        lines + 1
    ))
    .await;
    std::fs::write(&settings, format!("{text}tls_cert = \"c.pem\"\ntls_key = \"k.pem\"\n")).expect("written");
    check(format!("{d}/c.pem: No such file or directory (os error 2)")).await;
    for name in ["c.pem", "k.pem"] {
        std::fs::write(dir.join(name), "nonsense").expect("written");
    }
    check(format!(
        "tls_cert {d}/c.pem and tls_key {d}/k.pem: not a certificate chain and its unencrypted private key in PEM form"
    ))
    .await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let other =
        text.replacen("command_listen = \"127.0.0.1:0\"", &format!("command_listen = \"{address}\""), 1);
    std::fs::write(&settings, other).expect("written");
    check(format!(
        "command_listen {address}: Address already in use (os error 98); another program listens there"
    ))
    .await;
    std::fs::write(&settings, &text).expect("written");

    let database = dir.join("pushy.db");
    let whole = std::fs::read(&database).expect("a database");
    std::fs::remove_file(&database).expect("removed");
    check(format!("{d}/pushy.db: no such database")).await;
    std::fs::write(
        &database,
        "this is not a database, whatever its name says; it is long enough to look like one",
    )
    .expect("written");
    check(format!("{d}/pushy.db: file is not a database")).await;
    std::fs::write(&database, whole).expect("written");

    let lab = Lab::start_in(root).await;
    check(format!("{d}: another pushy-server works in this directory")).await;
    lab.stop().await;
}

#[tokio::test]
async fn term_stops_within_two_seconds_and_kill_loses_nothing() {
    let root = made("heartbeat_interval = 0.5\n").await;
    let dir = root.path().join("D");
    let (running, line) = program(&dir).await;
    assert!(line.starts_with("ready api=http://127.0.0.1:"), "{line}");
    let about: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("run.json")).expect("run.json"))
            .expect("JSON");
    let before = Instant::now();
    let pid = nix::unistd::Pid::from_raw(running.0.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    let (status, log) = ended(running).await;
    assert_eq!(status, Some(0));
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    for gone in ["run.json", "admin.sock"] {
        assert!(!dir.join(gone).exists(), "{gone}");
    }

    // A job that was answered with 201 is there after a kill.
    let (running, _) = program(&dir).await;
    let again: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("run.json")).expect("run.json"))
            .expect("JSON");
    assert_eq!(again["incarnation_id"], about["incarnation_id"]);
    let killed = Lab::attach(&dir);
    let body = r#"{"command":"kept","nodes":["n"],"env":{"A":"1"}}"#;
    let id = killed.post(&killed.admin, body).await.job_id();
    drop(running);
    drop(killed);
    assert!(dir.join("admin.sock").exists(), "a kill leaves the socket");
    let lab = Lab::start_in(root).await;
    let job = lab.get(&lab.admin, &format!("~/jobs/{id}")).await.json();
    assert_eq!((job["command"].as_str(), &job["env"]["A"]), (Some("kept"), &serde_json::json!("1")));
    assert_eq!(lab.about["incarnation_id"], about["incarnation_id"]);
    lab.stop().await;
}

#[tokio::test]
async fn a_running_job_survives_a_kill() {
    let root = made("heartbeat_interval = 0.5\n").await;
    let dir = root.path().join("D");
    let (running, _) = program(&dir).await;
    let killed = Lab::attach(&dir);
    let puppet = Puppet::new(&killed, killed.node("web-1", 0).await).await;
    let mut line = puppet.online(&killed).await;
    killed.state_until("web-1", |state| state["availability"] == "available").await;
    let id = killed.post(&killed.admin, r#"{"command":"x","nodes":["web-1"]}"#).await.job_id();
    let job = line.take_job().await;
    killed.job_until(&id, |job| job["nodes"]["running"] == json!(["web-1"])).await;
    drop(running);
    drop(killed);
    let lab = Lab::start_in(root).await;
    let mut line = puppet.connect(&lab).await.expect("a handshake with the keys of before");
    line.heartbeat(JobState::Running, Some(&job)).await;
    line.expect("ack").await;
    line.succeed(&job, "").await;
    let done = lab.job_until(&id, |job| job["status"] == "complete").await;
    assert_eq!(done["nodes"], json!({ "succeeded": ["web-1"] }));
    lab.stop().await;
}

/// Posts jobs until the server is gone; tells each id that was answered.
async fn post_until_gone(lab: Arc<Lab>, told: tokio::sync::mpsc::UnboundedSender<String>) {
    let body = r#"{"command":"x","nodes":["a","b","c"]}"#;
    while let Some(answer) = lab.call("POST", "~/jobs").by(&lab.admin).json(body).try_send().await {
        told.send(answer.job_id()).expect("somebody listens");
    }
}

#[tokio::test]
async fn what_was_answered_survives_any_kill() {
    let root = made("").await;
    let dir = root.path().join("D");
    let mut ids = Vec::new();
    for round in 0..5 {
        let (running, _) = program(&dir).await;
        let lab = Arc::new(Lab::attach(&dir));
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let posters: Vec<_> =
            (0..4).map(|_| tokio::spawn(post_until_gone(Arc::clone(&lab), told.clone()))).collect();
        drop(told);
        // Killed in the middle of others' requests, at another place each time.
        for _ in 0..(3 + 7 * round) {
            ids.push(tokio::time::timeout(DEADLINE, heard.recv()).await.expect("in time").expect("an id"));
        }
        drop(running);
        for poster in posters {
            poster.await.expect("no panic");
        }
        while let Some(id) = heard.recv().await {
            ids.push(id);
        }
    }
    let lab = Lab::start_in(root).await;
    for id in &ids {
        let job = lab.job_until(id, |job| job["status"] == "quorum_failed").await;
        assert_eq!(job["nodes"], json!({ "unavailable": ["a", "b", "c"] }), "{id}");
    }
    // Nothing half-written among those that were not answered either.
    for job in lab.get(&lab.admin, "~/jobs").await.json().as_array().expect("a list") {
        let whole =
            lab.get(&lab.admin, &format!("~/jobs/{}", job["id"].as_str().expect("an id"))).await.json();
        let nodes = whole["nodes"].as_object().expect("nodes").values();
        assert_eq!(nodes.map(|names| names.as_array().map_or(0, Vec::len)).sum::<usize>(), 3, "{whole}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn an_older_database_changes_the_incarnation() {
    let root = made("").await;
    let dir = root.path().join("D");
    let database = dir.join("pushy.db");
    let older = std::fs::read(&database).expect("a database");
    let lab = Lab::start_in(root).await;
    let first = lab.about["incarnation_id"].clone();
    let lab = Lab::start_in(lab.stop().await).await;
    assert_eq!(lab.about["incarnation_id"], first);
    let root = lab.stop().await;
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.join(format!("pushy.db{suffix}")));
    }
    std::fs::write(&database, older).expect("written");
    let lab = Lab::start_in(root).await;
    assert_ne!(lab.about["incarnation_id"], first);
    lab.stop().await;
}

#[tokio::test]
async fn ipv6_works_throughout() {
    let root = made("").await;
    let file = root.path().join("D/server.toml");
    let text = std::fs::read_to_string(&file).expect("settings");
    std::fs::write(&file, text.replace("127.0.0.1:0", "[::1]:0")).expect("written");
    let config = Config::load(&root.path().join("D")).expect("settings");
    if Listeners::bind(&config).is_err() {
        // A host without IPv6 has nothing to test.
        return;
    }
    let lab = Lab::start_in(root).await;
    let about = &lab.about;
    for name in ["api_url", "heartbeat_addr", "command_addr"] {
        assert!(about[name].as_str().expect("a text").contains("//[::1]:"), "{about}");
    }
    let created = lab.post(&lab.admin, r#"{"command":"x","nodes":["n"]}"#).await;
    created.check_status(201);
    assert!(created.header("location").expect("a place").starts_with(&format!("http://{}/", lab.address)));
    lab.stop().await;
}

/// A certificate for 127.0.0.1 signed by itself, and its key, as PEM.
fn certificate() -> (Vec<u8>, Vec<u8>) {
    use openssl::x509::{X509, X509NameBuilder, extension::SubjectAlternativeName};
    let key = openssl::rsa::Rsa::generate(2048).and_then(openssl::pkey::PKey::from_rsa).expect("a key");
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "127.0.0.1").expect("a name");
    let name = name.build();
    let mut cert = X509::builder().expect("a certificate");
    cert.set_version(2).expect("a version");
    cert.set_subject_name(&name).expect("a subject");
    cert.set_issuer_name(&name).expect("an issuer");
    cert.set_pubkey(&key).expect("a key");
    let days = |n| openssl::asn1::Asn1Time::days_from_now(n).expect("a date");
    cert.set_not_before(&days(0)).expect("a date");
    cert.set_not_after(&days(1)).expect("a date");
    let alternative = SubjectAlternativeName::new().ip("127.0.0.1").build(&cert.x509v3_context(None, None));
    cert.append_extension(alternative.expect("an extension")).expect("an extension");
    cert.sign(&key, openssl::hash::MessageDigest::sha256()).expect("a signature");
    (cert.build().to_pem().expect("PEM"), key.private_key_to_pem_pkcs8().expect("PEM"))
}

#[tokio::test]
async fn tls_serves_rest_and_shows_in_addresses() {
    let root = made("tls_cert = \"c.pem\"\ntls_key = \"k.pem\"\n").await;
    let dir = root.path().join("D");
    let (cert, key) = certificate();
    std::fs::write(dir.join("c.pem"), &cert).expect("written");
    std::fs::write(dir.join("k.pem"), key).expect("written");
    let lab = Lab::start_in(root).await;
    let url = format!("https://{}", lab.address);
    assert_eq!(lab.about["api_url"], url.as_str());
    let address = lab.address;
    let answer = wait(move || {
        let mut connector =
            openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls_client()).expect("a client");
        let trusted = openssl::x509::X509::from_pem(&cert).expect("a certificate");
        connector.cert_store_mut().add_cert(trusted).expect("trusted");
        let stream = std::net::TcpStream::connect(address).expect("a connection");
        let mut stream = connector.build().connect("127.0.0.1", stream).expect("a handshake");
        stream
            .write_all(b"GET /pushy/_status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut text = String::new();
        // Without a close_notify the end is an error; what came before is what counts.
        let _ = stream.read_to_string(&mut text);
        text
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("it's alive"), "{answer}");
    lab.stop().await;
}
