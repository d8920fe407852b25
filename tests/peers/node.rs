//! node.py against our server: a node written from the specification registers, is available, votes and runs.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pushy_core::auth::SigningKey;
use pushy_server::Listeners;
use pushy_server::cli::Cli;
use pushy_server::config::Config;
use pushy_tests::http::Http;
use serde_json::{Value, json};

use crate::python::Python;
use crate::transport::runtime;

/// Beyond this something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `pushy-server` commands in this process.
fn operate(args: &[&str]) {
    use clap::Parser;
    let cli = Cli::try_parse_from([&["pushy-server"], args].concat()).expect("arguments");
    runtime().block_on(cli.execute(&mut Vec::new())).expect("the command succeeds");
}

struct Server {
    host: String,
    admin: SigningKey,
    http: Http,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    fn start(dir: &Path) -> Server {
        let config = Config::load(dir).expect("what init made");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let listeners = Listeners::bind(&config).expect("free ports");
            let ready = move |about: &Value| drop(ready.send(about["api"].as_str().map(str::to_owned)));
            let run = pushy_server::run(config, listeners, ready, async { drop(stopped.await) });
            runtime().block_on(run).expect("the server ends well");
        });
        let host = is_ready.recv_timeout(PATIENCE).expect("a start").expect("an address");
        let pem = std::fs::read(dir.join("admin/.chef/admin.pem")).expect("the key");
        let admin = SigningKey::from_pem(pem).expect("a key");
        let http = Http::new(&host);
        Server { host, admin, http, _stop: stop }
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> Value {
        let path = format!("/organizations/acme/pushy/{path}");
        let (status, body) = self.http.call(("admin", &self.admin), method, &path, body).expect("an answer");
        assert_eq!(status / 100, 2, "{method} {path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    fn until(&mut self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.call("GET", path, "");
            if done(&value) {
                return value;
            }
            assert!(Instant::now() < end, "{path} stays {value}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn start_job(&mut self, job: &Value) -> String {
        let uri = self.call("POST", "jobs", &job.to_string())["uri"].clone();
        uri.as_str().and_then(|uri| uri.rsplit('/').next()).expect("an id").to_owned()
    }

    /// Starts a job and waits for its end: status and nodes.
    fn job(&mut self, job: &Value) -> Value {
        let id = self.start_job(job);
        let ended =
            self.until(&format!("jobs/{id}"), |job| job["status"] != "voting" && job["status"] != "running");
        json!([ended["status"], ended["nodes"]])
    }
}

/// What the node printed next, heartbeats left out.
fn next(node: &mut Python) -> String {
    loop {
        let line = node.line();
        if !line.starts_with("heartbeat ") {
            return line;
        }
    }
}

#[test]
fn libzmq_node_lives_with_our_server() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("server");
    let path = dir.to_str().expect("UTF-8");
    operate(&["init", path, "--free-ports", "--heartbeat-interval", "0.5"]);
    operate(&["-d", path, "node", "add", "alpha", "beta"]);
    let mut server = Server::start(&dir);
    let mut nodes = ["alpha", "beta"].map(|name| {
        let key = dir.join("nodes").join(name).join("client.pem").display().to_string();
        Python::start("node.py", &[format!("http://{}", server.host), "acme".into(), name.into(), key])
    });
    for name in ["alpha", "beta"] {
        server.until(&format!("node_states/{name}"), |state| state["availability"] == "available");
    }
    // It checks the signature of each of the server's heartbeats.
    while !nodes[0].line().starts_with("heartbeat ") {}

    fn check(server: &mut Server, command: &str, status: &str, nodes: &Value) {
        let job = json!({ "command": command, "nodes": ["alpha", "beta"] });
        assert_eq!(server.job(&job), json!([status, nodes]), "{command}");
    }
    check(&mut server, "ok then", "complete", &json!({ "succeeded": ["alpha", "beta"] }));
    check(&mut server, "fail then", "complete", &json!({ "failed": ["alpha", "beta"] }));
    check(&mut server, "what", "quorum_failed", &json!({ "nacked": ["alpha", "beta"] }));

    let capture = json!({ "command": "capture it", "nodes": ["beta"], "capture_output": true });
    assert_eq!(server.job(&capture), json!(["complete", { "succeeded": ["beta"] }]));
    let slow = json!({ "command": "slow one", "nodes": ["alpha"], "run_timeout": 1 });
    assert_eq!(server.job(&slow), json!(["timed_out", { "timed_out": ["alpha"] }]));
    // The node was told to give up, and takes the next job.
    server.until("node_states/alpha", |state| state["availability"] == "available");
    let again = json!({ "command": "ok again", "nodes": ["alpha"] });
    assert_eq!(server.job(&again), json!(["complete", { "succeeded": ["alpha"] }]));

    let mut heard = Vec::new();
    while heard.last().is_none_or(|line: &String| !line.contains("ok again")) {
        heard.push(next(&mut nodes[0]));
    }
    assert!(heard.iter().any(|line| line == "abort"), "{heard:?}");
    for node in nodes {
        node.finish();
    }
}
