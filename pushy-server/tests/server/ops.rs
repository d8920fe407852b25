//! Keeping a server in sight: metrics, health, drain, audit log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use pushy_core::message::JobState;
use pushy_server::admin::Command;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::lab::{DEADLINE, Lab, arg, cli, made};
use crate::puppet::Puppet;

/// An unsigned GET; answers status and body.
pub(crate) async fn plain(address: SocketAddr, path: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        let text = String::from_utf8(answer).expect("UTF-8");
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, text.split_once("\r\n\r\n").expect("a body").1.to_owned())
    };
    tokio::time::timeout(DEADLINE, exchange).await.expect("in time")
}

pub(crate) fn metrics_of(lab: &Lab) -> SocketAddr {
    lab.about["metrics"].as_str().expect("an address").parse().expect("an address")
}

/// Samples by name with labels. Whatever is not the text format 0.0.4 is a failure.
fn parse(page: &str) -> BTreeMap<String, f64> {
    assert!(page.ends_with('\n'));
    let word = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !text.as_bytes()[0].is_ascii_digit()
    };
    let mut family: Option<(String, String)> = None;
    let (mut samples, mut families) = (BTreeMap::new(), Vec::new());
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect("a text");
            assert!(word(name) && !text.is_empty() && !text.contains('\\'), "{line}");
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(help.as_deref(), Some(name), "HELP comes first");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!families.contains(&name.to_owned()), "{name} comes twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            families.push(name.to_owned());
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
                None => (series, ""),
            };
            let (of, kind) = family.as_ref().expect("a family");
            let suffix = name.strip_prefix(of.as_str()).unwrap_or_else(|| panic!("{line} is not of {of}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, text) = label.split_once('=').expect("a label");
                assert!(
                    word(key) && text.len() >= 2 && text.starts_with('"') && text.ends_with('"'),
                    "{line}"
                );
            }
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && (value >= 0.0), "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line} comes twice");
        }
    }
    samples
}

fn check_histogram(samples: &BTreeMap<String, f64>, name: &str, labels: &str) {
    let prefix = format!("{name}_bucket{{{labels}");
    let mut buckets: Vec<(f64, f64)> = samples
        .iter()
        .filter(|(series, _)| series.starts_with(&prefix))
        .map(|(series, value)| {
            let bound = series.rsplit_once("le=\"").expect("a bound").1.trim_end_matches("\"}");
            (if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") }, *value)
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.len() > 5 && buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
    let braces =
        if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.trim_end_matches(',')) };
    assert_eq!(samples[&format!("{name}_count{braces}")], buckets.last().expect("+Inf").1);
}

#[tokio::test]
async fn metrics_after_a_job() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\nmetrics_listen = \"127.0.0.1:0\"\n").await;
    let address = metrics_of(&lab);
    let (status, before) = plain(address, "/metrics").await;
    assert_eq!(status, 200);
    let before = parse(&before);
    assert_eq!(before["pushy_nodes{state=\"available\"}"], 0.0);
    assert_eq!(before["pushy_jobs_started_total"], 0.0);

    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.online(&lab).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;
    let body =
        r#"{"command":"secret-command","nodes":["web-1","gone"],"quorum":1,"env":{"K":"secret-value"}}"#;
    let id = lab.post(&lab.admin, body).await.job_id();
    let job = line.take_job().await;
    line.succeed(&job, "").await;
    lab.job_until(&id, |job| job["status"] == "complete").await;
    lab.get(&lab.admin, "/no/such/path").await.check_status(404);
    lab.call("GET", "~/jobs").send().await.check_status(400);

    let (status, page) = plain(address, "/metrics").await;
    assert_eq!(status, 200);
    let after = parse(&page);
    for (series, value) in [
        ("pushy_nodes{state=\"available\"}", 1.0),
        ("pushy_nodes{state=\"offline\"}", 1.0),
        ("pushy_connections{port=\"command\"}", 1.0),
        ("pushy_handshakes_total", 1.0),
        ("pushy_handshakes_refused_total{reason=\"unknown_key\"}", 0.0),
        ("pushy_jobs_started_total", 1.0),
        ("pushy_jobs_finished_total{status=\"complete\"}", 1.0),
        ("pushy_jobs_finished_total{status=\"crashed\"}", 0.0),
        ("pushy_votes_total{vote=\"success\"}", 1.0),
        ("pushy_votes_total{vote=\"down\"}", 1.0),
        ("pushy_runs_total{result=\"success\"}", 1.0),
        ("pushy_persist_failures_total", 0.0),
        ("pushy_http_requests_total{route=\"jobs\",status=\"201\"}", 1.0),
        ("pushy_http_requests_total{route=\"jobs\",status=\"400\"}", 1.0),
        ("pushy_http_requests_total{route=\"other\",status=\"404\"}", 1.0),
        ("pushy_http_requests_total{route=\"config\",status=\"200\"}", 1.0),
        ("pushy_ready", 1.0),
        ("pushy_draining", 0.0),
        ("pushy_audit_failures_total", 0.0),
        ("pushy_feed_subscribers{feed=\"job\"}", 0.0),
    ] {
        assert_eq!(after.get(series), Some(&value), "{series}");
    }
    // Heartbeat, aborted, two votes and a result came; three acks or so, abort, commit and run went.
    assert!(after["pushy_messages_received_total"] >= 5.0 && after["pushy_messages_sent_total"] >= 4.0);
    for series in
        ["process_resident_memory_bytes", "process_open_fds", "pushy_store_bytes", "pushy_heartbeats_total"]
    {
        assert!(after[series] > 0.0, "{series}");
    }
    assert!(after["pushy_persist_seconds_count"] >= 3.0);
    check_histogram(&after, "pushy_persist_seconds", "");
    check_histogram(&after, "pushy_http_request_seconds", "route=\"jobs\",");
    assert!(page.contains("pushy_build_info{version=\""));
    for secret in ["secret", "web-1", "admin", "acme", id.as_str()] {
        assert!(!page.contains(secret), "{secret} is nobody's business");
    }
    // Nothing else there, and no metrics on the REST port.
    assert_eq!(plain(address, "/organizations/acme/pushy/jobs").await.0, 404);
    assert_eq!(plain(lab.address, "/metrics").await.0, 404);
    lab.stop().await;
}

#[tokio::test]
async fn alive_ready_and_draining() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\nmetrics_listen = \"127.0.0.1:0\"\n").await;
    for address in [lab.address, metrics_of(&lab)] {
        assert_eq!(plain(address, "/healthz").await, (200, r#"{"status":"alive"}"#.into()));
        assert_eq!(plain(address, "/readyz").await, (200, r#"{"status":"ready"}"#.into()));
    }
    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.online(&lab).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;
    let id = lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1"]}"#).await.job_id();
    let job = line.take_job().await;
    lab.job_until(&id, |job| job["status"] == "running").await;

    // Called off: as if nothing had been.
    let answer = lab.operate(Command::Drain { cancel: false, timeout: None }).await.expect("draining");
    assert_eq!((&answer["unfinished_jobs"], &answer["timeout"]), (&json!(1), &json!(600.0)));
    let refused = lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1"]}"#).await;
    refused.check(
        503,
        r#"{"error":["the server is draining and takes no new jobs; try again when it is back"]}"#,
    );
    let not_ready = r#"{"status":"not ready","reasons":["the server is draining"]}"#;
    assert_eq!(plain(lab.address, "/readyz").await, (503, not_ready.into()));
    assert_eq!(plain(lab.address, "/healthz").await.0, 200);
    lab.operate(Command::Drain { cancel: true, timeout: None }).await.expect("called off");
    assert_eq!(plain(lab.address, "/readyz").await.0, 200);
    lab.post(&lab.admin, r#"{"command":"x","nodes":["gone"],"quorum":0}"#).await.job_id();

    // To the end: everything else is answered, results are taken, then the server stops by itself.
    let d = lab.dir.clone();
    let work = async {
        let end = tokio::time::Instant::now() + DEADLINE;
        while lab.operate(Command::Status).await.expect("running")["draining"] != true {
            assert!(tokio::time::Instant::now() < end, "it does not drain");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        lab.get(&lab.admin, &format!("~/jobs/{id}")).await.check_status(200);
        line.heartbeat(JobState::Running, Some(&job)).await;
        line.succeed(&job, "").await;
    };
    let args = ["drain", arg(&d)];
    let both = async { tokio::join!(cli(&args), work) };
    let (said, ()) = tokio::time::timeout(DEADLINE, both).await.expect("in time");
    let said = said.expect("drained");
    assert!(said.starts_with("draining: 1 jobs unfinished, waiting at most 600.0 s\n"), "{said}");
    assert!(said.ends_with("the server has stopped\n"), "{said}");
    let lab = Lab::start_in(lab.stop().await).await;
    let done = lab.get(&lab.admin, &format!("~/jobs/{id}")).await.json();
    assert_eq!((&done["status"], &done["nodes"]), (&json!("complete"), &json!({ "succeeded": ["web-1"] })));
    lab.stop().await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_stops_all_the_same_and_the_job_goes_on() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\ndrain_timeout = 0.3\n").await;
    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.online(&lab).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;
    let id = lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1"]}"#).await.job_id();
    line.take_job().await;
    lab.job_until(&id, |job| job["status"] == "running").await;
    // Another drain may be shorter than the one that is under way.
    let long = Command::Drain { cancel: false, timeout: Some(600.0) };
    assert_eq!(lab.operate(long).await.expect("draining")["timeout"], json!(600.0));
    cli(&["drain", arg(&lab.dir)]).await.expect("stopped");
    let lab = Lab::start_in(lab.stop().await).await;
    assert_eq!(lab.get(&lab.admin, &format!("~/jobs/{id}")).await.json()["status"], "running");
    lab.stop().await;
    let root = made("").await;
    let refused = cli(&["drain", arg(&root.path().join("D"))]).await.expect_err("nothing to drain");
    assert!(refused.contains("does not run; start it with"), "{refused}");
}

fn lines(lab: &Lab) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.dir.join("audit.log")).expect("the audit log");
    assert!(text.ends_with('\n') || text.is_empty());
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn who_started_what_where() {
    let settings = "audit_log = \"audit.log\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let lab = Lab::start_with(settings).await;
    let path = lab.dir.join("audit.log");
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    let user = lab.user("eve", 1).await;
    let body =
        r#"{"command":"rm \u001b[2J","nodes":["a","b"],"env":{"K":"top-secret"},"file":"raw:top-secret"}"#;
    let id =
        lab.call("POST", "~/jobs").by(&lab.admin).json(body).header("X-Forwarded-For", "6.6.6.6, 10.1.2.3");
    let id = id.send().await.job_id();
    lab.post(&user, r#"{"command":"reboot","nodes":["a"]}"#).await.check_status(403);
    lab.post(&lab.admin, "no job").await.check_status(400);

    let found = lines(&lab);
    let whats: Vec<&str> = found.iter().map(|line| line["what"].as_str().expect("a kind")).collect();
    assert_eq!(whats, ["directory_changed", "job_started", "job_denied"]);
    assert!(found[0]["command"].as_str().expect("a text").contains("\"eve\""), "{}", found[0]);
    assert!(found[0]["by"].as_str().expect("a text").starts_with("uid "), "{}", found[0]);
    let started = &found[1];
    for (name, value) in [
        ("org", json!("acme")),
        ("user", json!("admin")),
        ("kind", json!("user")),
        ("address", json!("10.1.2.3")),
        ("via", json!("127.0.0.1")),
        ("command", json!("rm \u{1b}[2J")),
        ("node_count", json!(2)),
        ("nodes", json!(["a", "b"])),
        ("job", json!(id)),
    ] {
        assert_eq!(started[name], value, "{name}");
    }
    assert_eq!(started["key"].as_str().map(str::len), Some(16));
    assert_eq!((&found[2]["user"], &found[2]["address"]), (&json!("eve"), &json!("127.0.0.1")));
    let text = std::fs::read_to_string(&path).expect("the audit log");
    assert!(!text.contains("secret") && !text.contains('\u{1b}') && !text.contains("PUBLIC KEY"), "{text}");

    // Whoever does not wait for the answer has started the job all the same.
    let call = lab.call("POST", "~/jobs").by(&lab.admin).json(r#"{"command":"gone","nodes":["a"]}"#);
    drop(call.start().await);
    let end = tokio::time::Instant::now() + DEADLINE;
    while lab.get(&lab.admin, "~/jobs?command=gone").await.json() == json!([]) {
        assert!(tokio::time::Instant::now() < end, "no job");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    while lines(&lab).last().expect("a line")["command"] != "gone" {
        assert!(tokio::time::Instant::now() < end, "no line about the job");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    // Rotated: the old name is written until a reload, the new file from then on.
    let old = lab.dir.join("audit.log.1");
    std::fs::rename(&path, &old).expect("renamed");
    lab.post(&lab.admin, r#"{"command":"one","nodes":["a"]}"#).await.job_id();
    lab.operate(Command::Reload).await.expect("reloaded");
    lab.post(&lab.admin, r#"{"command":"two","nodes":["a"]}"#).await.job_id();
    assert!(std::fs::read_to_string(&old).expect("the old file").contains("\"one\""));
    assert_eq!(lines(&lab).len(), 1);
    assert_eq!(lines(&lab)[0]["command"], "two");
    let root = lab.stop().await;
    // What is changed without a running server is in it as well.
    let d = root.path().join("D");
    cli(&["-d", arg(&d), "group", "add", "ops"]).await.expect("a group");
    let text = std::fs::read_to_string(&path).expect("the audit log");
    assert!(text.lines().last().expect("a line").contains("GroupAdd"), "{text}");
}
