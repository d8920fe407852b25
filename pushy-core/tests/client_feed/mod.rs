//! Waiting by the feed over real sockets: a live stream, cuts at any byte, servers without one; cancelling.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pushy_core::ErrorCode;
use pushy_core::api::Statuses;
use pushy_core::client::Progress;
use pushy_core::ids::NodeName;
use pushy_core::time::Millis;
use pushy_core::watch::WatchOptions;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::http::{Received, Reply, Server};
use super::{ID, client, id, job_json, told};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn event(number: u32, name: &str, data: &str) -> String {
    format!("event: {name}\nid: job-{number}\ndata: {data}\n\n")
}

/// What a server shows of its job, and the streams that are open.
#[derive(Default)]
struct Show {
    status: &'static str,
    feeds: Vec<UnboundedSender<Vec<u8>>>,
}

type Stage = Arc<Mutex<Show>>;

/// A server whose job stands where the test says and whose feeds say what the test says.
async fn stage() -> (Server, Stage) {
    let stage = Stage::default();
    stage.lock().unwrap().status = "running";
    let shared = Arc::clone(&stage);
    let server = Server::start(move |_, request| {
        let mut show = shared.lock().unwrap();
        if !request.target.contains("/job_status_feed/") {
            return Reply::json(200, &job_json(show.status));
        }
        let (sender, receiver) = unbounded_channel();
        sender.send(HEAD.as_bytes().to_vec()).unwrap();
        show.feeds.push(sender);
        Reply::Bytes(receiver)
    });
    (server.await, stage)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn feeds(server: &Server) -> Vec<Received> {
    server.received().into_iter().filter(|r| r.target.contains("/job_status_feed/")).collect()
}

#[tokio::test]
async fn the_end_is_told_by_the_feed_at_once() {
    let (server, stage) = stage().await;
    let client = client(server.url("http"));
    // A poll interval of an hour: only the feed can tell.
    let options = WatchOptions { poll_interval: Millis(3_600_000), ..WatchOptions::default() };
    let wait = tokio::spawn(async move { told(&client, options).await });
    until("a listener", || !stage.lock().unwrap().feeds.is_empty()).await;
    let request = feeds(&server).remove(0);
    assert_eq!(request.target, format!("/organizations/acme/pushy/job_status_feed/{ID}"));
    assert_eq!(request.header("Accept"), Some("text/event-stream"));
    assert_eq!(request.header("Last-Event-ID"), None);
    assert!(request.header("X-Ops-Userid").is_some(), "it is signed");
    let say = |text: &str| stage.lock().unwrap().feeds[0].send(chunk(text.as_bytes())).unwrap();
    say(&event(1, "start", r#"{"node_count":1}"#));
    say(":keepalive\n");
    stage.lock().unwrap().status = "complete";
    // In pieces, as networks like it.
    let end = event(2, "job_complete", r#"{"status":"complete"}"#);
    for byte in end.as_bytes() {
        stage.lock().unwrap().feeds[0].send(chunk(&[*byte])).unwrap();
    }
    let told = tokio::time::timeout(Duration::from_secs(5), wait).await.expect("at once").unwrap();
    assert!(
        matches!(&told[..], [Progress::Line(line), Progress::Finished(_)] if line == "Complete."),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_cut_feed_is_resumed_after_its_last_event() {
    let (server, stage) = stage().await;
    let client = client(server.url("http"));
    let options = WatchOptions { poll_interval: Millis(3_600_000), ..WatchOptions::default() };
    let wait = tokio::spawn(async move { told(&client, options).await });
    // Cut in the middle of an event, between two, and as HTTP ends a body.
    let first = event(1, "start", r#"{"node_count":1}"#);
    let second = event(2, "run_start", r#"{"node":"web-01"}"#);
    let cuts: [(Vec<u8>, Option<&str>); 4] = [
        ([chunk(first.as_bytes()), chunk(&second.as_bytes()[..20])].concat(), None),
        (chunk(second.as_bytes()), Some("job-1")),
        ([chunk(b"\n\n"), b"0\r\n\r\n".to_vec()].concat(), Some("job-2")),
        (b"zzz\r\n".to_vec(), Some("job-2")),
    ];
    for (round, (bytes, after)) in cuts.into_iter().enumerate() {
        until("a listener", || stage.lock().unwrap().feeds.len() > round).await;
        assert_eq!(feeds(&server)[round].header("Last-Event-ID"), after, "round {round}");
        let sender = stage.lock().unwrap().feeds[round].clone();
        sender.send(bytes).unwrap();
        // The server closes when nobody can send any more.
        stage.lock().unwrap().feeds[round] = unbounded_channel().0;
    }
    stage.lock().unwrap().status = "complete";
    let told = tokio::time::timeout(Duration::from_secs(20), wait).await.expect("an end").unwrap();
    assert!(matches!(told.last(), Some(Progress::Finished(_))), "{told:?}");
    assert!(!told.iter().any(|p| matches!(p, Progress::Notice(_))), "nothing to worry about: {told:?}");
}

#[tokio::test]
async fn servers_without_feeds_are_asked() {
    for (status, head, body) in [
        (404, "", "{}"),
        (406, "", "{}"),
        (501, "", ""),
        (200, "Content-Type: text/html\r\n", "<html>"),
        (302, "Location: /login\r\n", ""),
    ] {
        let asked = Mutex::new(0);
        let server = Server::start(move |_, request| {
            if request.target.contains("/job_status_feed/") {
                return Reply::Http(status, head.to_owned(), body.as_bytes().to_vec());
            }
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            Reply::json(200, &job_json(if *asked < 6 { "running" } else { "complete" }))
        })
        .await;
        let options = WatchOptions { poll_interval: Millis(20), ..WatchOptions::default() };
        let told = told(&client(server.url("http")), options).await;
        assert!(matches!(told.last(), Some(Progress::Finished(_))), "{status}: {told:?}");
        assert_eq!(feeds(&server).len(), 1, "{status}: not asked for twice");
    }
}

#[tokio::test]
async fn cancelling() {
    let server = Server::start(|_, request| {
        let target = request.target.strip_prefix("/organizations/acme/pushy/jobs/").unwrap();
        match (request.method.as_str(), target.split_once('/')) {
            ("POST", Some((ID, "cancel"))) => {
                Reply::json(202, &format!(r#"{{"id":"{ID}","nodes":["a","b"]}}"#))
            }
            ("POST", Some(("00000000000000000000000000000001", _))) => {
                Reply::json(409, r#"{"error":"the job has ended: complete"}"#)
            }
            ("GET", None) if target.starts_with("00000000000000000000000000000002") => {
                Reply::json(200, &job_json("running"))
            }
            _ => Reply::json(404, r#"{"error":["not found"]}"#),
        }
    })
    .await;
    let client = client(server.url("http"));
    let nodes = [NodeName::new("a").unwrap(), NodeName::new("b").unwrap()];
    assert_eq!(client.cancel_job(&id(), Some(&nodes)).await.unwrap().nodes, ["a", "b"]);
    client.cancel_job(&id(), None).await.unwrap();
    let bodies: Vec<_> = server.received().into_iter().map(|r| String::from_utf8(r.body).unwrap()).collect();
    assert_eq!(bodies, [r#"{"nodes":["a","b"]}"#, "{}"]);
    for (number, code, text) in [
        (1, ErrorCode::InvalidState, "That cannot be done now: the job has ended: complete"),
        (2, ErrorCode::Server, "this push server cannot cancel jobs: the job goes on until it ends or its"),
        (3, ErrorCode::NotFound, "The object you are looking for could not be found (pushy/jobs/0000"),
    ] {
        let id = pushy_core::ids::JobId::new(format!("{number:032}").as_str()).unwrap();
        let error = client.cancel_job(&id, None).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.message().starts_with(text), "{error}");
    }
}

#[tokio::test]
async fn nodes_of_a_job_by_status() {
    let nodes = r#"{"succeeded":["a"],"failed":["b","c"],"timed_out":["d"],"running":["e"],"nacked":["f"]}"#;
    let document = format!(r#"{{"id":"{ID}","status":"running","nodes":{nodes}}}"#);
    let server = Server::start(move |_, _| Reply::json(200, &document)).await;
    let client = client(server.url("http"));
    let check = async |statuses: &str, want: Result<&[&str], &str>| {
        let statuses = match statuses {
            "" => Ok(Statuses::default()),
            text => Statuses::parse(text),
        };
        let found = match statuses {
            Ok(statuses) => client.nodes_of_job(&id(), &statuses).await,
            Err(error) => Err(error),
        };
        match (found, want) {
            (Ok(found), Ok(want)) => assert_eq!(found.iter().map(NodeName::as_str).collect::<Vec<_>>(), want),
            (Err(error), Err(want)) => {
                assert_eq!((error.code(), error.message()), (ErrorCode::InvalidArgument, want));
            }
            (found, want) => panic!("{found:?} instead of {want:?}"),
        }
    };
    check("", Ok(&["b", "c", "d", "f"])).await;
    check("failed", Ok(&["b", "c"])).await;
    check("timed_out, running", Ok(&["d", "e"])).await;
    check(
        "crashed,unavailable",
        Err("No nodes to run job on. No node of job 4be1d6f0a9c30123456789abcdef0123 is crashed or unavailable: \
             1 running, 1 succeeded, 2 failed, 1 nacked, 1 timed_out."),
    )
    .await;
    check(
        "failed,lost",
        Err("\"lost\" is no status of a node; there are new, ready, running, succeeded, failed, aborted, \
             unavailable, nacked, was_ready, crashed, timed_out"),
    )
    .await;
}
