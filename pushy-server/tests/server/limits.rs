//! What a server does when it runs out of something: REST connections, the disk.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::lab::{DEADLINE, Lab, made};
use crate::start::program_under;

/// A request on a connection that stays; `None` when it was closed instead.
async fn status_over(stream: &mut TcpStream) -> Option<String> {
    let request = b"GET /pushy/_status HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = [0; 4096];
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut answer)).await.expect("an answer in time");
    match read {
        Ok(count) if count > 0 => Some(String::from_utf8_lossy(&answer[..count]).into_owned()),
        _ => None,
    }
}

#[tokio::test]
async fn rest_connections_are_bounded() {
    let lab = Lab::start_with("max_rest_connections = 3\n").await;
    let connect = || async { TcpStream::connect(lab.address).await.expect("the kernel takes it") };
    let mut taken = Vec::new();
    for _ in 0..3 {
        let mut stream = connect().await;
        assert!(status_over(&mut stream).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
        taken.push(stream);
    }
    assert_eq!(status_over(&mut connect().await).await, None, "the fourth");
    for stream in &mut taken {
        assert!(status_over(stream).await.is_some(), "those that were there are served");
    }
    drop(taken.pop());
    // The server sees the end of one a moment after it.
    let end = tokio::time::Instant::now() + DEADLINE;
    while status_over(&mut connect().await).await.is_none() {
        assert!(tokio::time::Instant::now() < end, "there is room again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lab.stop().await;
}

fn lift_file_limit(pid: u32) {
    let done = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &pid.to_string()]).status();
    assert!(done.expect("prlimit").success());
}

/// Issue 2.8. The disk is full for real: the system refuses the server every byte of its database beyond a size.
#[tokio::test]
async fn a_full_disk_refuses_jobs_whole_and_passes() {
    let root = made("heartbeat_interval = 0.5\nvoting_timeout = 0.5\nlinger = 0.1\n").await;
    let dir = root.path().join("D");
    // Ignored, the signal becomes an error of the write. The limit is a soft one, so that it can be lifted.
    let full = "trap '' XFSZ; exec prlimit --fsize=300000:unlimited -- \"$@\"";
    let (running, line) = program_under(&["sh", "-c", full, "sh"], &dir).await;
    assert!(line.starts_with("ready"), "{line}");
    let lab = Lab::attach(&dir);
    let body = json!({ "command": "x", "nodes": ["a", "b"], "file": format!("raw:{}", "z".repeat(20_000)) });
    let body = body.to_string();
    let mut kept = Vec::new();
    let refused = loop {
        let answer = lab.post(&lab.admin, &body).await;
        if answer.status != 201 {
            break answer;
        }
        kept.push(answer.job_id());
        assert!(kept.len() < 100, "the disk is not full");
    };
    assert!(!kept.is_empty(), "there was room at first");
    refused.check_status(503);
    let text = refused.text();
    assert!(text.contains("the job could not be stored; try again when the store has recovered"), "{text}");
    lab.post(&lab.admin, &body).await.check_status(503);
    lab.call("GET", "/pushy/_status").send().await.check_status(200);
    let listed = async |lab: &Lab| {
        let list = lab.get(&lab.admin, "~/jobs").await;
        list.check_status(200);
        let mut ids: Vec<String> = list.json().as_array().expect("a list").iter().map(id_of).collect();
        ids.sort();
        ids
    };
    kept.sort();
    assert_eq!(listed(&lab).await, kept, "what was answered 201, and nothing else");

    lift_file_limit(running.pid());
    let id = lab.post(&lab.admin, &body).await.job_id();
    kept.push(id.clone());
    kept.sort();
    // Also what the full disk held up goes on: every job ends, and is stored as ended.
    for id in &kept {
        let job = lab.job_until(id, |job| job["status"] == "quorum_failed").await;
        assert_eq!(job["nodes"], json!({ "unavailable": ["a", "b"] }));
    }
    drop((running, lab));
    let lab = Lab::start_in(root).await;
    assert_eq!(listed(&lab).await, kept, "after a kill as well");
    for id in &kept {
        lab.get(&lab.admin, &format!("~/jobs/{id}")).await.check_status(200);
    }
    lab.stop().await;
}

fn id_of(job: &Value) -> String {
    job["id"].as_str().expect("an id").to_owned()
}
