//! server.py against our agent: a server written from the specification hands out the configuration and runs jobs.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use openssl::rsa::Rsa;
use pushy_agent::{Args, Config, Control};
use tokio::sync::mpsc;

use crate::python::Python;
use crate::transport::runtime;

/// Beyond this something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn configure(dir: &Path, url: &str) -> Config {
    let file = dir.join("push-jobs-client.rb");
    let text = format!(
        "chef_server_url '{url}'\n\
         node_name 'alpha'\n\
         client_key '{dir}/client.pem'\n\
         file_dir '{dir}/files'\n\
         whitelist({{ 'mark' => 'touch {dir}/mark', 'say' => 'echo hello', 'fail' => 'false', 'sleep' => 'sleep 60' }})\n",
        dir = dir.display()
    );
    std::fs::write(&file, text).expect("a temporary file");
    let args = Args::try_parse_from(["push-jobs-client", "-c", file.to_str().expect("UTF-8")]);
    Config::load(args.expect("arguments")).expect("a configuration")
}

/// The next line that is no heartbeat.
fn next(server: &mut Python) -> String {
    loop {
        let line = server.line();
        if !line.starts_with("heartbeat") {
            return line;
        }
    }
}

fn id(number: u32) -> String {
    format!("{number:032x}")
}

#[test]
fn our_agent_lives_with_libzmq_server() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path();
    let pair = Rsa::generate(2048).expect("a key pair");
    std::fs::write(dir.join("client.pem"), pair.private_key_to_pem().expect("PEM")).expect("a file");
    let public = dir.join("public.pem");
    std::fs::write(&public, pair.public_key_to_pem().expect("PEM")).expect("a file");
    let work = dir.join("server");
    std::fs::create_dir(&work).expect("a directory");
    let text = |path: &Path| path.display().to_string();
    let mut server = Python::start("server.py", &["acme".into(), "alpha".into(), text(&public), text(&work)]);

    let config = configure(dir, &server.line());
    let (control, controlled) = mpsc::channel(1);
    let agent = std::thread::spawn(move || runtime().block_on(pushy_agent::run(config, controlled)));
    assert_eq!(server.line(), "config");
    assert_eq!(server.line(), "heartbeat idle - -");

    // First contact, as the original server makes it.
    server.tell("abort");
    assert_eq!(next(&mut server), "aborted - - -");

    // A job on the whitelist is run once it is told to, not before.
    server.tell(&format!("commit {} mark", id(1)));
    assert_eq!(next(&mut server), format!("ack_commit - {} -", id(1)));
    server.tell(&format!("bad {}", id(1)));
    assert_eq!(server.line(), format!("heartbeat committed {} -", id(1)));
    assert!(!dir.join("mark").exists());
    server.tell(&format!("run {}", id(1)));
    assert_eq!(next(&mut server), format!("ack_run - {} -", id(1)));
    assert_eq!(next(&mut server).trim_end(), format!("succeeded - {}", id(1)));
    assert!(dir.join("mark").exists());

    for (number, command, answer, result) in [
        (2, "say", "ack_commit", Some("succeeded")),
        (3, "fail", "ack_commit", Some("failed")),
        (4, "rm -rf nothing", "nack_commit", None),
    ] {
        let id = id(number);
        server.tell(&format!("commit {id} {command}"));
        assert_eq!(next(&mut server), format!("{answer} - {id} -"));
        let Some(result) = result else { continue };
        server.tell(&format!("run {id}"));
        assert_eq!(next(&mut server), format!("ack_run - {id} -"));
        let output = if command == "say" { "hello" } else { "" };
        assert_eq!(next(&mut server).trim_end(), format!("{result} - {id} {output}").trim_end());
    }

    // A run without a vote, and an abort in the middle.
    server.tell(&format!("run {}", id(5)));
    assert_eq!(next(&mut server), format!("nack_run - {} -", id(5)));
    server.tell(&format!("commit {} sleep", id(6)));
    assert_eq!(next(&mut server), format!("ack_commit - {} -", id(6)));
    server.tell(&format!("run {}", id(6)));
    assert_eq!(next(&mut server), format!("ack_run - {} -", id(6)));
    while server.line() != format!("heartbeat running {} -", id(6)) {}
    server.tell("abort");
    assert_eq!(next(&mut server), format!("aborted - {} -", id(6)));
    while server.line() != "heartbeat idle - -" {}

    control.blocking_send(Control::Stop).expect("the agent runs");
    let end = std::time::Instant::now() + PATIENCE;
    while !agent.is_finished() {
        assert!(std::time::Instant::now() < end, "the agent does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(agent.join().expect("no panic").expect("a clean end"), 0);
    server.finish();
}
