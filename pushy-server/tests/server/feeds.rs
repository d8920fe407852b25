//! Event feeds (section 8): what they say, when they end, where they go on.

use std::time::Duration;

use pushy_core::ids::JobId;
use pushy_core::message::{JobRef, NodeMessage};

use crate::lab::{DEADLINE, Lab, public_key};
use crate::listener::{Listener, words};
use crate::puppet::{Line, Puppet};

const FEED: &str = "~/job_status_feed";

fn feed(job: &str) -> String {
    format!("{FEED}/{job}")
}

async fn online(lab: &Lab, name: &str) -> Line {
    let node = lab.node(name, 1).await;
    let line = Puppet::new(lab, node).await.online(lab).await;
    lab.state_until(name, |state| state["availability"] == "available").await;
    line
}

async fn start(lab: &Lab, body: &str) -> String {
    lab.post(&lab.admin, body).await.job_id()
}

/// All events of a job's feed, which has ended or will end by itself.
async fn told(lab: &Lab, job: &str) -> Vec<String> {
    words(&Listener::open(lab, &lab.admin, &feed(job), None).await.rest().await)
}

#[tokio::test]
async fn who_may_ask_and_how() {
    let lab = Lab::start().await;
    let job = start(&lab, r#"{"command":"x","nodes":["nobody"]}"#).await;
    for path in [FEED.to_owned(), feed(&job)] {
        for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let answer = lab.call(method, &path).by(&lab.admin).send().await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method} {path}");
        }
        lab.call("PATCH", &path).send().await.check_status(501);
        lab.call("GET", &path).send().await.check_status(400);
        lab.get(&crate::lab::Actor::numbered("nobody", 0), &path).await.check_status(401);
        let accept = |value: &str| lab.call("GET", &path).by(&lab.admin).header("Accept", value);
        for refused in ["application/json", "text/html", ""] {
            accept(refused).send().await.check_status(406);
        }
        for taken in ["text/event-stream", "text/*", "*/*", "application/json, text/event-stream;q=0.5"] {
            Listener::send(accept(taken)).await;
        }
    }
    // The read rule comes before everything that would say whether there is such a job.
    let reader = lab.user("rita", 1).await;
    let other = lab.user("otto", 2).await;
    lab.group("pushy_job_readers", &[("user", "rita")]).await;
    for path in [FEED.to_owned(), feed(&job), feed("x")] {
        lab.get(&other, &path).await.check_status(403);
    }
    Listener::open(&lab, &reader, FEED, None).await;
    // D-06: neither an unknown job nor another organization's.
    let unknown = "0".repeat(32);
    for id in [unknown.as_str(), "x", &job.to_uppercase()] {
        let answer =
            lab.call("GET", &feed(id)).by(&reader).header("Accept", "text/event-stream").send().await;
        answer.check(404, r#"{"error":["not found"]}"#);
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_job_from_start_to_summary() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\nlinger = 0.7\n").await;
    let mut line = online(&lab, "web1").await;
    let body = r#"{"command":"r\u00e9start \ud83d\ude00","nodes":["web1"],"user":"deploy","dir":"/srv","env":{"STAGE":"prod"},"file":"raw:secret","capture_output":true}"#;
    let job = start(&lab, body).await;
    let mut first = Listener::open(&lab, &lab.admin, &feed(&job), None).await;
    let mut second = Listener::open(&lab, &lab.admin, &feed(&job), Some("bogus")).await;
    for header in
        ["content-type: text/event-stream\r\n", "x-accel-buffering: no\r\n", "transfer-encoding: chunked\r\n"]
    {
        assert!(first.head.contains(header), "{}", first.head);
    }
    assert!(!first.head.contains("content-length"));
    let said = first.next().await;
    let data = said.json().expect("JSON");
    let expected = format!(
        r#"{{"timestamp":{},"command":"réstart 😀","run_timeout":3600,"quorum":1,"node_count":1,"user":"admin","job_user":"deploy","dir":"/srv","env":{{"STAGE":"prod"}},"file_specified":true,"capture":true}}"#,
        data["timestamp"]
    );
    assert_eq!(
        (said.name.as_str(), said.id.as_deref(), said.data.as_str()),
        ("start", Some("job-1"), &*expected)
    );
    first.is_silent().await;
    let id = JobId::new(&job).expect("an id");
    let commit = line.expect("commit").await;
    assert_eq!(commit["capture"], true, "{commit}");
    line.say(NodeMessage::AckCommit { job: JobRef::Id(id.clone()) }).await;
    line.expect("run").await;
    let live: Vec<_> = [first.next().await, first.next().await].into();
    assert_eq!(words(&live), ["quorum_vote(web1:success)", "quorum_succeeded"]);
    // Who has had everything begins with a blank line (8.1).
    let mut newest = Listener::open(&lab, &lab.admin, &feed(&job), Some("job-3")).await;
    assert_eq!(newest.piece().await, Ok(Some(b"\n\n".to_vec())));
    line.say(NodeMessage::AckRun { job: JobRef::Id(id.clone()) }).await;
    line.succeed(&id, "").await;
    let end = ["run_start(web1)", "run_complete(web1:success)", "job_complete(complete)"];
    assert_eq!(words(&first.rest().await), end);
    assert_eq!(words(&newest.rest().await), end);
    let all = second.rest().await;
    assert_eq!(first.body, second.body, "the same bytes for everybody");
    assert!(first.body.ends_with(b"\"status\":\"complete\"}\n\n"), "every event is ended (D-30)");
    assert_eq!(all.len(), 6);
    // Finished a moment ago: what is past, then the end.
    for (after, from) in
        [(None, 0), (Some(""), 0), (Some("job-0"), 0), (Some("job-7"), 0), (Some("job-2"), 2)]
    {
        let mut late = Listener::open(&lab, &lab.admin, &feed(&job), after).await;
        assert_eq!(late.rest().await, all[from..], "after {after:?}");
    }
    let mut nothing = Listener::open(&lab, &lab.admin, &feed(&job), Some("job-6")).await;
    assert_eq!((nothing.rest().await.len(), nothing.body.as_slice()), (0, &b""[..]));
    // Finished a while ago.
    let summary = loop {
        let answer =
            lab.call("GET", &feed(&job)).by(&lab.admin).header("Last-Event-ID", "job-2").send().await;
        if answer.header("content-length").is_some() {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(summary.header("content-type"), Some("text/event-stream"));
    assert_eq!(summary.header("x-accel-buffering"), Some("no"));
    let document = lab.get(&lab.admin, &format!("~/jobs/{job}")).await.text();
    let text = summary.text();
    let (head, data) = text.split_at("event: summary\nid: job-1\ndata: ".len());
    assert_eq!(head, "event: summary\nid: job-1\ndata: ");
    let stamp = r#"{"timestamp":"2025-03-04 10:15:00.104233Z","#.len();
    assert_eq!(format!("{{{}", &data[stamp..]), format!("{document}\n\n"));
    assert!(!text.contains("secret"));
    lab.stop().await;
}

#[tokio::test]
async fn jobs_that_come_to_nothing() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\nvoting_timeout = 0.3\n").await;
    let down = start(&lab, r#"{"command":"x","nodes":["nobody"]}"#).await;
    let sequence = ["start", "quorum_vote(nobody:down)", "rehab(nobody)", "job_complete(quorum_failed)"];
    assert_eq!(told(&lab, &down).await, sequence);
    let mut line = online(&lab, "web1").await;
    let nacked = start(&lab, r#"{"command":"x","nodes":["web1"]}"#).await;
    line.expect("commit").await;
    line.say(NodeMessage::NackCommit { job: JobRef::Id(JobId::new(&nacked).expect("an id")), reason: None })
        .await;
    let sequence = ["start", "quorum_vote(web1:failure)", "job_complete(quorum_failed)"];
    assert_eq!(told(&lab, &nacked).await, sequence);
    let ignored = start(&lab, r#"{"command":"x","nodes":["web1"]}"#).await;
    let sequence = ["start", "quorum_vote(web1:voting_timeout)", "job_complete(quorum_failed)"];
    assert_eq!(told(&lab, &ignored).await, sequence);
    lab.stop().await;
}

#[tokio::test]
async fn silence_is_broken() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\nfeed_keep_alive = 0.05\n").await;
    let mut line = online(&lab, "web1").await;
    let job = start(&lab, r#"{"command":"x","nodes":["web1"]}"#).await;
    let mut listener = Listener::open(&lab, &lab.admin, &feed(&job), Some("job-1")).await;
    assert_eq!(listener.piece().await, Ok(Some(b"\n\n".to_vec())));
    for _ in 0..3 {
        assert_eq!(listener.piece().await, Ok(Some(b":keepalive\n".to_vec())));
    }
    let id = line.take_job().await;
    assert_eq!(
        words(&[listener.next().await, listener.next().await, listener.next().await]),
        ["quorum_vote(web1:success)", "quorum_succeeded", "run_start(web1)"]
    );
    let mut organization = Listener::open(&lab, &lab.admin, FEED, None).await;
    assert_eq!(organization.piece().await, Ok(Some(b":keepalive\n".to_vec())));
    line.succeed(&id, "").await;
    assert_eq!(listener.rest().await.len(), 2);
    lab.stop().await;
}

#[tokio::test]
async fn an_organization() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\nfeed_retention = 1.5\n").await;
    lab.operate(pushy_server::admin::Command::OrgAdd { name: "other".into() }).await.expect("another");
    lab.operate(pushy_server::admin::Command::UserAdd {
        org: Some("other".into()),
        user: pushy_server::admin::NewKey { name: "olga".into(), public_key: public_key(2) },
        admin: true,
    })
    .await
    .expect("a user");
    let olga = crate::lab::Actor::numbered("olga", 2);
    let elsewhere_path = "/organizations/other/pushy/job_status_feed";
    let mut elsewhere = Listener::open(&lab, &olga, elsewhere_path, None).await;
    let before = start(&lab, r#"{"command":"x","nodes":["nobody"]}"#).await;
    let mut live = Listener::open(&lab, &lab.admin, FEED, None).await;
    live.is_silent().await;
    assert_eq!(live.body, b"", "nothing from the past, not even a blank line");
    let (one, two) = (
        start(&lab, r#"{"command":"x","nodes":["nobody"],"env":{"A":"b"}}"#).await,
        start(&lab, r#"{"command":"y","nodes":["nobody","none"]}"#).await,
    );
    let entries = [live.next().await, live.next().await, live.next().await, live.next().await];
    let complete = "job_complete(quorum_failed)";
    assert_eq!(words(&entries), ["start", complete, "start", complete]);
    let jobs: Vec<_> = entries.iter().map(|e| e.json().expect("JSON")["job"].clone()).collect();
    assert_eq!(jobs, [one.as_str(), &one, &two, &two]);
    // The same event in the job's own feed: the same but for `job` behind the stamp, and the id.
    let own = Listener::open(&lab, &lab.admin, &feed(&one), None).await.next().await;
    let (stamp, rest) = own.data.split_at(r#"{"timestamp":"2025-03-04 10:15:00.104233Z""#.len());
    assert_eq!(entries[0].data, format!("{stamp},\"job\":\"{one}\"{rest}"));
    // D-29: oldest first.
    let mut resumed = Listener::open(&lab, &lab.admin, FEED, entries[0].id.as_deref()).await;
    assert_eq!([resumed.next().await, resumed.next().await, resumed.next().await], entries[1..]);
    resumed.is_silent().await;
    for unknown in ["", "org-1", "bogus", "start_id"] {
        let mut history = Listener::open(&lab, &lab.admin, FEED, Some(unknown)).await;
        let mut all = vec![history.next().await];
        for _ in 0..6 {
            all.push(history.next().await);
        }
        assert_eq!(all[0].id.as_deref(), Some("start_id"));
        assert_eq!(words(&all)[..3], ["start_of_history", "start", complete]);
        assert_eq!(all[1].json().expect("JSON")["job"], before.as_str());
        assert_eq!(all[3..], entries);
        history.is_silent().await;
    }
    elsewhere.is_silent().await;
    // After the retention even a known id is none, and the past is empty.
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        let mut history = Listener::open(&lab, &lab.admin, FEED, entries[2].id.as_deref()).await;
        if words(&[history.next().await]) == ["start_of_history"] && history.within_a_while().await.is_none()
        {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "nothing is forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let job = lab.call("POST", "/organizations/other/pushy/jobs").by(&olga);
    job.json(r#"{"command":"z","nodes":["nobody"]}"#).send().await.check_status(201);
    assert_eq!(words(&[elsewhere.next().await, elsewhere.next().await]), ["start", complete]);
    live.is_silent().await;
    lab.stop().await;
}

#[tokio::test]
async fn feeds_go_on_after_a_restart() {
    let lab = Lab::start_with("heartbeat_interval = 0.5\nlinger = 60\n").await;
    let node = lab.node("web1", 1).await;
    let puppet = Puppet::new(&lab, node).await;
    let mut line = puppet.online(&lab).await;
    lab.state_until("web1", |state| state["availability"] == "available").await;
    let done = start(&lab, r#"{"command":"x","nodes":["nobody"]}"#).await;
    let of_done = told(&lab, &done).await;
    let mut organization = Listener::open(&lab, &lab.admin, FEED, None).await;
    let job = start(&lab, r#"{"command":"x","nodes":["web1"]}"#).await;
    let mut listener = Listener::open(&lab, &lab.admin, &feed(&job), None).await;
    let id = line.take_job().await;
    let mut entries = vec![listener.next().await, listener.next().await, listener.next().await];
    let told_to_all = organization.next().await;
    lab.job_until(&job, |job| job["nodes"]["running"][0] == "web1").await;
    // The one who listens is let go at once, without an end of the job.
    let (dir, rest) = tokio::join!(lab.stop(), listener.rest());
    entries.extend(rest);
    let expected = ["start", "quorum_vote(web1:success)", "quorum_succeeded", "run_start(web1)"];
    assert_eq!(words(&entries), expected);
    assert_eq!(organization.rest().await.len(), 0);

    let lab = Lab::start_in(dir).await;
    let last = entries.last().and_then(|entry| entry.id.clone());
    let mut whole = Listener::open(&lab, &lab.admin, &feed(&job), None).await;
    let mut resumed = Listener::open(&lab, &lab.admin, &feed(&job), last.as_deref()).await;
    assert_eq!(resumed.piece().await, Ok(Some(b"\n\n".to_vec())));
    let mut line = puppet.connect(&lab).await.expect("a handshake");
    line.heartbeat(pushy_core::message::JobState::Running, Some(&id)).await;
    line.expect("ack").await;
    line.succeed(&id, "").await;
    entries.extend(resumed.rest().await);
    assert_eq!(words(&entries)[4..], ["run_complete(web1:success)", "job_complete(complete)"]);
    assert_eq!(whole.rest().await, entries);
    // A job that had ended a moment before is still there too.
    assert_eq!(told(&lab, &done).await, of_done);
    // The organization's numbers are others, so the one who resumes is told of everything again.
    let mut again = Listener::open(&lab, &lab.admin, FEED, told_to_all.id.as_deref()).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(again.next().await);
    }
    let complete = "job_complete(complete)";
    let failed = "job_complete(quorum_failed)";
    assert_eq!(words(&all), ["start_of_history", "start", failed, "start", complete]);
    assert_eq!((all[3].at(), &all[3].data), (told_to_all.at(), &told_to_all.data));
    let next = start(&lab, r#"{"command":"x","nodes":["nobody"]}"#).await;
    assert_eq!(again.next().await.json().expect("JSON")["job"], next.as_str());
    let dir = lab.stop().await;
    // Nothing of it is kept for longer than somebody may ask.
    let database = rusqlite::Connection::open(dir.path().join("D/pushy.db")).expect("open");
    let count = || {
        database.query_row("SELECT COUNT(*) FROM job_feeds", [], |row| row.get::<_, i64>(0)).expect("rows")
    };
    assert!(count() > 0);
    let file = dir.path().join("D/server.toml");
    let text = std::fs::read_to_string(&file)
        .expect("settings")
        .replace("linger = 60", "linger = 0.1\nfeed_retention = 0.1");
    std::fs::write(&file, text).expect("settings");
    let lab = Lab::start_in(dir).await;
    let end = tokio::time::Instant::now() + crate::lab::DEADLINE;
    while count() > 0 {
        assert!(tokio::time::Instant::now() < end, "{} rows stay", count());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.stop().await;
}
