//! The front end of `packaging/nginx`, by a real nginx: signatures hold, URIs are the public ones, addresses are the
//! client's, feeds pass as they come.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use serde_json::{Value, json};

use crate::lab::{DEADLINE, Lab};
use crate::puppet::Puppet;
use crate::reload::certify;

/// A running nginx; ends with the value.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker goes with it.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn program() -> Option<&'static str> {
    ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

/// The snippet as it is delivered, with this test's names and places.
fn start(program: &str, dir: &Path, server: SocketAddr) -> (Nginx, SocketAddr) {
    certify(dir, "push.example.com");
    let front = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let d = dir.display();
    let mut snippet = include_str!("../../../packaging/nginx/pushy.conf").to_owned();
    for (delivered, here) in [
        ("listen 443 ssl;", format!("listen {front} ssl;")),
        ("127.0.0.1:10003;", format!("{server};")),
        ("/etc/ssl/certs/push.example.com.pem", format!("{d}/cert.pem")),
        ("/etc/ssl/private/push.example.com.key", format!("{d}/key.pem")),
    ] {
        assert_eq!(snippet.matches(delivered).count(), 1, "{delivered}");
        snippet = snippet.replace(delivered, &here);
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {d}/{kind};\n"))
        .collect();
    // As root, nginx would give its worker away to a user that may not read this directory.
    let user = if nix::unistd::Uid::effective().is_root() { "user root;\n" } else { "" };
    let whole = format!(
        "{user}daemon off;\npid {d}/nginx.pid;\nerror_log {d}/error.log;\nworker_processes 1;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{snippet}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, whole).expect("written");
    let child = Command::new(program)
        .args(["-p", &d.to_string(), "-e", &format!("{d}/error.log"), "-c", &file.display().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx");
    let nginx = Nginx(child);
    let end = Instant::now() + DEADLINE;
    while TcpStream::connect(front).is_err() {
        let log = || std::fs::read_to_string(dir.join("error.log")).unwrap_or_default();
        assert!(Instant::now() < end, "nginx does not start: {}", log());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    (nginx, front)
}

fn open(front: SocketAddr) -> SslStream<TcpStream> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
    builder.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(front).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    builder.build().connect("push.example.com", stream).expect("a handshake")
}

/// Sends a request; answers the whole answer.
async fn ask(front: SocketAddr, request: Vec<u8>) -> String {
    let work = move || {
        let mut stream = open(front);
        // A front end that has seen enough answers before it has read everything.
        let _ = stream.write_all(&request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1)
        .unwrap_or_else(|e| panic!("{e}: {answer}"))
}

#[tokio::test]
async fn rest_and_feeds_through_nginx() {
    let Some(program) = program() else {
        eprintln!("skipped: the front end needs nginx (script/bootstrap installs it)");
        return;
    };
    let settings = "heartbeat_interval = 0.5\naudit_log = \"audit.log\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let lab = Lab::start_with(settings).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (_nginx, front) = start(program, dir.path(), lab.address);
    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.online(&lab).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;

    // What the client says of itself does not count, what nginx says does.
    let call = lab.call("POST", "~/jobs").by(&lab.admin).json(r#"{"command":"x","nodes":["web-1"]}"#);
    let call = call.header("Host", "push.example.com").header("X-Forwarded-For", "6.6.6.6");
    let answer = ask(front, call.request()).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let uri = body(&answer)["uri"].as_str().expect("a uri").to_owned();
    let id =
        uri.strip_prefix("https://push.example.com/organizations/acme/pushy/jobs/").expect("the public URI");
    let audit = std::fs::read_to_string(lab.dir.join("audit.log")).expect("the audit log");
    let last: Value = serde_json::from_str(audit.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["what"], &last["address"]), (&json!("job_started"), &json!("127.0.0.1")));

    // A feed of a job that runs: its beginning is here while the job goes on.
    let feed = lab.call("GET", &format!("~/job_status_feed/{id}")).by(&lab.admin);
    let request = feed.header("Accept", "text/event-stream").header("Host", "push.example.com").request();
    let job = line.take_job().await;
    lab.job_until(id, |job| job["status"] == "running").await;
    let reading = move || {
        let mut stream = open(front);
        stream.write_all(&request).expect("sent");
        let (mut seen, mut buffer) = (String::new(), [0; 4096]);
        while !seen.contains("run_start") {
            let count = stream.read(&mut buffer).expect("something in time");
            assert!(count > 0, "the feed ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        (stream, seen)
    };
    let (mut stream, seen) = tokio::task::spawn_blocking(reading).await.expect("no panic");
    assert!(seen.starts_with("HTTP/1.1 200") && !seen.contains("job_complete"), "{seen}");
    line.succeed(&job, "").await;
    let rest = move || {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    };
    let rest = tokio::task::spawn_blocking(rest).await.expect("no panic");
    assert!(rest.contains("job_complete"), "{rest}");

    // Nodes and search, which are no push jobs.
    for path in ["nodes", "nodes/web-1", "search/node?q=name:web*", "environments/_default/nodes"] {
        let call = lab.call("GET", &format!("/organizations/acme/{path}")).by(&lab.admin);
        let answer = ask(front, call.header("Host", "push.example.com").request()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("web-1"), "{path}: {answer}");
    }

    // Limits, and nothing but the API.
    let long = lab
        .call("POST", "~/jobs")
        .by(&lab.admin)
        .json(&"x".repeat(1 << 21))
        .header("Host", "push.example.com");
    let answer = ask(front, long.request()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    for (path, status) in [("/metrics", "404"), ("/", "404"), ("/readyz", "200"), ("/pushy/_status", "200")] {
        let answer = ask(front, lab.call("GET", path).header("Host", "push.example.com").request()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    lab.stop().await;
}
