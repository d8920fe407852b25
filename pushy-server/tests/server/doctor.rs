//! `pushy-server doctor`: what it finds, and how it says so.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pushy_core::ids::IncarnationId;
use pushy_core::message::JobState;
use pushy_server::doctor::{Level, Report, examine};

use crate::lab::{Lab, arg, cli, made};
use crate::puppet::Puppet;
use crate::reload::certify;

/// There is a finding of this kind and level with this text, and, unless all is well, with advice.
#[track_caller]
fn check(report: &Report, check: &str, level: Level, text: &str) {
    let found =
        report.findings.iter().find(|f| f.check == check && f.level == level && f.text.contains(text));
    let found = found.unwrap_or_else(|| panic!("no {check} {level:?} {text:?} in\n{}", report.to_text()));
    assert_eq!(found.advice.is_some(), level != Level::Ok, "{found:?}");
}

fn settings(dir: &Path, edit: impl Fn(String) -> String) {
    let file = dir.join("server.toml");
    let text = std::fs::read_to_string(&file).expect("settings");
    std::fs::write(&file, edit(text)).expect("written");
}

#[tokio::test]
async fn a_running_server_in_good_health() {
    let lab =
        Lab::start_with("heartbeat_interval = 0.5\nmetrics_listen = \"127.0.0.1:0\"\nmax_nodes = 50\n").await;
    let report = examine(&lab.dir).await;
    for (name, text) in [
        ("settings", "server.toml can be used"),
        ("server", "runs as process "),
        ("files", "readable for their owner only"),
        ("database", "is whole, version "),
        ("ports", "api_listen 127.0.0.1:"),
        ("ports", "metrics_listen 127.0.0.1:"),
        ("certificate", "none: the REST API is for this host"),
        ("open files", "suffices for max_nodes = 50"),
        ("addresses", "can be reached from here"),
        ("nodes", "0 online; none claimed twice"),
    ] {
        check(&report, name, Level::Ok, text);
    }
    assert_eq!(report.problems(), 0, "{}", report.to_text());
    let said = cli(&["doctor", arg(&lab.dir)]).await.expect("no problem");
    assert!(said.starts_with("ok       settings     "), "{said}");
    let said = cli(&["doctor", arg(&lab.dir), "-F", "json"]).await.expect("no problem");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["ok"], true);

    // Two agents on one node, and a clock that is off.
    let node = lab.node("web-1", 0).await;
    let mut lines = Vec::new();
    for name in ["one", "two", "one", "two"] {
        let mut puppet = Puppet::new(&lab, node.clone()).await;
        puppet.identity.incarnation = IncarnationId::new(name).expect("an id");
        let mut line = puppet.connect(&lab).await.expect("a handshake");
        line.heartbeat(JobState::Idle, None).await;
        line.expect("abort").await;
        lines.push(line);
    }
    let line = lines.last_mut().expect("a line");
    line.clock = 500;
    line.heartbeat(JobState::Idle, None).await;
    let warned = |state: &serde_json::Value| state["warnings"].as_array().is_some_and(|w| w.len() == 2);
    lab.state_until("web-1?detail=1", warned).await;
    let report = examine(&lab.dir).await;
    check(&report, "nodes", Level::Warning, "acme/web-1: two agents seem to run as this node: ");
    check(&report, "nodes", Level::Warning, "s ahead of the server's, so its messages are dropped");
    lab.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_run_and_what_is_wrong_with_it() {
    let root = made("").await;
    let dir = root.path().join("D");
    let report = examine(&dir).await;
    check(&report, "server", Level::Warning, "does not run");
    check(&report, "ports", Level::Ok, "api_listen takes any free port");
    assert_eq!(report.problems(), 0, "{}", report.to_text());

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    settings(&dir, |text| {
        text.replacen("command_listen = \"127.0.0.1:0\"", &format!("command_listen = \"{address}\""), 1)
    });
    let keys = dir.join("keys.json");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let handed = dir.join("admin/.chef/admin.pem");
    std::fs::set_permissions(&handed, std::fs::Permissions::from_mode(0o640)).expect("changed");
    settings(&dir, |text| text + "max_nodes = 1000000\nadvertise_host = \"no-such-host.invalid\"\n");
    let report = examine(&dir).await;
    check(&report, "ports", Level::Problem, &format!("command_listen {address}: Address already in use"));
    check(&report, "files", Level::Problem, "keys.json has mode 644");
    check(&report, "files", Level::Problem, "admin.pem has mode 640");
    check(&report, "addresses", Level::Problem, "the name no-such-host.invalid is not known here");
    // A machine may allow a million files, but then it has them.
    let enough =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit").1
            >= 2_000_256;
    if !enough {
        check(&report, "open files", Level::Problem, "max_nodes = 1000000 needs 2000256");
    }
    let refused = cli(&["doctor", arg(&dir)]).await.expect_err("problems");
    assert!(refused.ends_with("problems found"), "{refused}");

    settings(&dir, |text| text + "tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n");
    check(&examine(&dir).await, "certificate", Level::Problem, "cert.pem: No such file");
    certify(&dir, "elsewhere.example.com");
    check(&examine(&dir).await, "certificate", Level::Problem, "does not name no-such-host.invalid");
    let old = std::fs::read(dir.join("cert.pem")).expect("a certificate");
    certify(&dir, "elsewhere.example.com");
    std::fs::write(dir.join("cert.pem"), old).expect("written");
    check(
        &examine(&dir).await,
        "certificate",
        Level::Problem,
        "not a certificate chain and its unencrypted private key",
    );

    settings(&dir, |text| {
        text + "chef_server_url = \"http://127.0.0.1:1\"\nchef_client_name = \"pushy\"\nchef_client_key = \"none.pem\"\n"
    });
    let report = examine(&dir).await;
    check(&report, "chef server", Level::Problem, "chef_client_key ");
    check(&report, "chef server", Level::Problem, "http://127.0.0.1:1 does not answer: Connection refused");

    let database = dir.join("pushy.db");
    let mut bytes = std::fs::read(&database).expect("a database");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x55);
    std::fs::write(&database, bytes).expect("written");
    check(&examine(&dir).await, "database", Level::Problem, "");
    std::fs::write(&database, "this is not a database, whatever its name says, and that can be seen")
        .expect("written");
    check(&examine(&dir).await, "database", Level::Problem, "file is not a database");
    std::fs::remove_file(&database).expect("removed");
    check(&examine(&dir).await, "database", Level::Problem, "no such database");
    settings(&dir, |text| text + "nonsense = 1\n");
    let report = examine(&dir).await;
    check(&report, "settings", Level::Problem, "unknown setting `nonsense`");
    assert_eq!(report.findings.len(), 1, "nothing else can be said");
}
