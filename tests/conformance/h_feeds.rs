//! H. Feeds (8.6): puppets play the nodes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::call::DEADLINE;
use crate::feed::{Entry, Feed, brief, check_sound};
use crate::puppet::Puppet;
use crate::runner::checklist;
use crate::target::Target;

checklist![
    Rest h1_unknown_job,
    Rest h2_verbs_and_strangers,
    Rest h3_accept,
    Rest h4_unknown_node,
    Nodes h5_one_node,
    Nodes h6_vote_against,
    Nodes h7_vote_ignored,
    Nodes h8_run_refused,
    Nodes h9_run_acknowledged_then_refused,
    Nodes h10_run_ignored,
    Nodes h11_two_nodes,
    Nodes h12_one_of_two_votes_against,
    Nodes h13_run_refused_before_there_was_one,
    Nodes h14_summary,
    Nodes h15_other_alphabets,
    Nodes h16_ids_and_timestamps,
    Nodes h17_live_twice_and_resumed,
    Nodes h18_silent_run,
    Nodes h19_options_in_start,
    Groups h20_organization_feed,
    Server h20_organization_feed_forgets,
    Server h21_job_ends_with_its_server,
    Nodes h22_capture,
];

const SOMEONE: &str = "0123456789abcdef0123456789abcdef";
const WON: &str = "start quorum_vote(one:success) quorum_succeeded";

fn path(id: &str) -> String {
    format!("job_status_feed/{id}")
}

/// The whole feed of a job that ends, and is sound.
#[track_caller]
fn whole(t: &Target, id: &str) -> Vec<Entry> {
    let entries = Feed::of_job(t, id).rest();
    check_sound(&entries);
    entries
}

#[track_caller]
fn check(t: &Target, id: &str, expected: &str) {
    assert_eq!(brief(&whole(t, id)), expected);
}

fn h1_unknown_job(t: &Target) {
    for id in [SOMEONE, "name-does-not-exist"] {
        let call = t.call("GET", &path(id)).by(t.admin()).header("Accept", "text/event-stream");
        call.send().check_framework(404);
    }
}

fn h2_verbs_and_strangers(t: &Target) {
    let id = t.start_on("x", &["DONKEY"]);
    for feed in ["job_status_feed", &path(&id), &path(SOMEONE)] {
        for method in ["POST", "PUT", "DELETE"] {
            t.call(method, feed).by(t.admin()).send().check_not_allowed("GET");
        }
        let get = |actor| t.call("GET", feed).by(actor).header("Accept", "text/event-stream").send();
        get(&t.invalid).check_unknown(&t.invalid);
        get(&t.bogus).check_bad_signature(&t.bogus.name);
        get(t.outside()).check_not_associated(t.outside());
    }
}

fn h3_accept(t: &Target) {
    let id = t.start_on("x", &["DONKEY"]);
    for feed in ["job_status_feed", &path(&id)] {
        let call = t.call("GET", feed).by(t.admin()).header("Accept", "application/json");
        call.send().check_framework(406);
    }
}

fn h4_unknown_node(t: &Target) {
    let id = t.start_on("x", &["DONKEY"]);
    check(t, &id, "start quorum_vote(DONKEY:down) rehab(DONKEY) job_complete(quorum_failed)");
}

fn h5_one_node(t: &Target) {
    let one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    one.run_to_the_end();
    check(t, &id, &format!("{WON} run_start(one) run_complete(one:success) job_complete(complete)"));
    let id = t.start_on("x", &["one"]);
    let job = one.run();
    one.fail(&job);
    check(t, &id, &format!("{WON} run_start(one) run_complete(one:failure) job_complete(complete)"));
}

fn h6_vote_against(t: &Target) {
    let one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let (job, _) = one.commit();
    one.nack_commit(&job);
    check(t, &id, "start quorum_vote(one:failure) job_complete(quorum_failed)");
}

fn h7_vote_ignored(t: &Target) {
    let _one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    check(t, &id, "start quorum_vote(one:voting_timeout) job_complete(quorum_failed)");
}

fn h8_run_refused(t: &Target) {
    let one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let (job, _) = one.commit();
    one.ack_commit(&job);
    one.expect("run");
    one.nack_run(&job);
    check(t, &id, &format!("{WON} rehab(one) run_complete(one:run_nacked) job_complete(complete)"));
}

fn h9_run_acknowledged_then_refused(t: &Target) {
    let one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let job = one.run();
    one.nack_run(&job);
    let after = "run_start(one) rehab(one) run_complete(one:run_nacked_while_running) job_complete(complete)";
    check(t, &id, &format!("{WON} {after}"));
}

fn h10_run_ignored(t: &Target) {
    let one = Puppet::online(t, "one");
    let id = t.start(&json!({ "command": "x", "nodes": ["one"], "run_timeout": 1 }));
    let (job, _) = one.commit();
    one.ack_commit(&job);
    check(t, &id, &format!("{WON} job_complete(timed_out)"));
}

/// The brief of a feed with the events between two fixed ones sorted: nodes come in no order among each other.
fn sorted(entries: &[Entry]) -> Vec<String> {
    let mut sorted: Vec<String> = entries.iter().map(Entry::brief).collect();
    let fixed = ["start", "quorum_succeeded", "job_complete(complete)", "job_complete(quorum_failed)"];
    sorted
        .chunk_by_mut(|a, b| !fixed.contains(&a.as_str()) && !fixed.contains(&b.as_str()))
        .for_each(<[_]>::sort);
    sorted
}

fn h11_two_nodes(t: &Target) {
    let (one, two) = (Puppet::online(t, "one"), Puppet::online(t, "two"));
    for (first, second) in [("success", "success"), ("failure", "failure"), ("success", "failure")] {
        let id = t.start_on("x", &["one", "two"]);
        let jobs = [(&one, first), (&two, second)].map(|(puppet, result)| {
            let (job, _) = puppet.commit();
            puppet.ack_commit(&job);
            (puppet, job, result)
        });
        for (puppet, job, result) in jobs {
            puppet.expect("run");
            puppet.ack_run(&job);
            if result == "success" { puppet.succeed(&job) } else { puppet.fail(&job) }
        }
        let expected = [
            "start".to_owned(),
            "quorum_vote(one:success)".to_owned(),
            "quorum_vote(two:success)".to_owned(),
            "quorum_succeeded".to_owned(),
            format!("run_complete(one:{first})"),
            format!("run_complete(two:{second})"),
            "run_start(one)".to_owned(),
            "run_start(two)".to_owned(),
            "job_complete(complete)".to_owned(),
        ];
        let entries = whole(t, &id);
        assert_eq!(sorted(&entries), expected);
        let at = |text: &str| entries.iter().position(|e| e.brief() == text).expect("it is there");
        assert!(at("run_start(one)") < at(&format!("run_complete(one:{first})")));
        assert!(at("run_start(two)") < at(&format!("run_complete(two:{second})")));
    }
}

fn h12_one_of_two_votes_against(t: &Target) {
    let (one, two) = (Puppet::online(t, "one"), Puppet::online(t, "two"));
    for quorum in [2, 1] {
        let id = t.start(&json!({ "command": "x", "nodes": ["one", "two"], "quorum": quorum }));
        let ((job, _), _) = (one.commit(), two.commit());
        two.nack_commit(&job);
        one.ack_commit(&job);
        let mut expected = vec!["start", "quorum_vote(one:success)", "quorum_vote(two:failure)"];
        if quorum == 1 {
            one.expect("run");
            one.ack_run(&job);
            one.succeed(&job);
            expected.extend(["quorum_succeeded", "run_complete(one:success)", "run_start(one)"]);
            expected.push("job_complete(complete)");
        } else {
            expected.push("job_complete(quorum_failed)");
        }
        assert_eq!(sorted(&whole(t, &id)), expected);
        for puppet in [&one, &two] {
            t.check_state(puppet.name(), "online", "available");
            puppet.forget();
        }
    }
}

fn h13_run_refused_before_there_was_one(t: &Target) {
    let (one, two) = (Puppet::online(t, "one"), Puppet::online(t, "two"));
    let id = t.start_on("x", &["one", "two"]);
    let ((job, _), _) = (one.commit(), two.commit());
    one.ack_commit(&job);
    one.nack_run(&job);
    one.expect("abort");
    two.ack_commit(&job);
    check(
        t,
        &id,
        "start quorum_vote(one:success) rehab(one) quorum_vote(two:success) job_complete(quorum_failed)",
    );
}

fn h14_summary(t: &Target) {
    let one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one", "DONKEY"]);
    let (job, _) = one.commit();
    one.nack_commit(&job);
    t.check_job(&id, "quorum_failed", json!({ "nacked": ["one"], "unavailable": ["DONKEY"] }));
    let end = Instant::now() + DEADLINE;
    let mut feed = loop {
        let mut feed = Feed::of_job(t, &id);
        if feed.header("content-length").is_some() {
            break feed;
        }
        feed.rest();
        assert!(Instant::now() < end, "still not a summary");
        std::thread::sleep(Duration::from_millis(20));
    };
    let entries = feed.rest();
    assert_eq!(brief(&entries), "summary");
    check_sound(&entries);
    assert_eq!(entries[0].id, "job-1");
    let (mut data, job) = (entries[0].json(), t.job(&id));
    data.as_object_mut().expect("an object").shift_remove("timestamp");
    assert_eq!(data.to_string(), job.to_string(), "the job as the other resource shows it");
    // Whatever the client has seen before (8.2).
    let again = Feed::open(t, t.admin(), &path(&id), Some("job-1")).rest();
    assert_eq!(brief(&again), "summary");
}

fn h15_other_alphabets(t: &Target) {
    let one = Puppet::online(t, "one");
    let command = "echo \u{15b}ci\u{105}ga \u{1f600} \"\\ \u{7}";
    let id = t.start_on(command, &["one"]);
    let (job, commit) = one.commit();
    one.nack_commit(&job);
    assert_eq!(commit["command"], command);
    assert_eq!(whole(t, &id)[0].json()["command"], command);
    assert_eq!(t.job(&id)["command"], command);
}

fn h16_ids_and_timestamps(t: &Target) {
    let names = ["one", "two", "three"];
    let puppets = names.map(|name| Puppet::online(t, name));
    let id = t.start_on("x", &names);
    for puppet in &puppets {
        let (job, _) = puppet.commit();
        puppet.ack_commit(&job);
    }
    for puppet in &puppets {
        puppet.expect("run");
    }
    let job = pushy_core::ids::JobId::new(&id).expect("an id");
    for puppet in &puppets {
        puppet.ack_run(&job);
        puppet.succeed(&job);
    }
    // `whole` checks them.
    let entries = whole(t, &id);
    assert_eq!(entries.len(), 12);
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(entry.id, format!("job-{}", number + 1));
    }
}

fn h17_live_twice_and_resumed(t: &Target) {
    let one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let (job, _) = one.commit();
    let (mut first, mut second) = (Feed::of_job(t, &id), Feed::of_job(t, &id));
    assert_eq!(first.header("transfer-encoding"), Some("chunked"));
    assert_eq!(first.header("x-accel-buffering"), Some("no"));
    let mut seen = first.take(1);
    assert_eq!(brief(&seen), "start");
    one.ack_commit(&job);
    seen.extend(first.take(2));
    one.expect("run");
    one.ack_run(&job);
    seen.extend(first.take(1));
    assert_eq!(brief(&seen), format!("{WON} run_start(one)"));
    // Resumed while it runs: the rest and nothing twice. An id that is none: everything.
    let last = seen[2].id.clone();
    let mut resumed = Feed::open(t, t.admin(), &path(&id), Some(&last));
    let mut bogus = Feed::open(t, t.admin(), &path(&id), Some("no-such-id"));
    one.succeed(&job);
    seen.extend(first.rest());
    assert_eq!(brief(&seen[4..]), "run_complete(one:success) job_complete(complete)");
    assert_eq!(second.rest(), seen);
    assert_eq!(resumed.rest(), seen[3..]);
    assert_eq!(bogus.rest(), seen);
    // The same of a job that is over but still remembered; after its last event nothing comes.
    assert_eq!(Feed::open(t, t.admin(), &path(&id), Some(&last)).rest(), seen[3..]);
    let newest = &seen.last().expect("events").id;
    assert_eq!(Feed::open(t, t.admin(), &path(&id), Some(newest)).rest(), []);
}

fn h18_silent_run(t: &Target) {
    // A keep-alive every 0.5 s in place of 15 s, and a run that waits for one in place of 21 s.
    let one = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let mut feed = Feed::of_job(t, &id);
    let job = one.run();
    let mut seen = feed.take(4);
    feed.comment();
    one.succeed(&job);
    seen.extend(feed.rest());
    let expected = format!("{WON} run_start(one) run_complete(one:success) job_complete(complete)");
    assert_eq!(brief(&seen), expected);
    assert!((1..=4).contains(&feed.comments.len()), "{:?}", feed.comments);
    assert!(feed.comments.iter().all(|c| c == ":keepalive"), "{:?}", feed.comments);
}

fn h19_options_in_start(t: &Target) {
    let options = json!({
        "command": "x", "nodes": ["DONKEY", "FARQUAD"], "run_timeout": 7, "quorum": 1, "user": "deploy",
        "dir": "/srv", "env": { "STAGE": "prod" }, "file": "raw:secret",
    });
    let id = t.start(&options);
    let start = &whole(t, &id)[0];
    let stamp = start.json()["timestamp"].clone();
    let expected = json!({
        "timestamp": stamp, "command": "x", "run_timeout": 7, "quorum": 1, "node_count": 2,
        "user": t.admin().name, "job_user": "deploy", "dir": "/srv", "env": { "STAGE": "prod" },
        "file_specified": true, "capture": false,
    });
    assert_eq!(start.data, expected.to_string());
}

/// Events of an organization's feed: name, job, and status.
fn of_jobs(entries: &[Entry]) -> Vec<(String, String, Value)> {
    let row = |e: &Entry| {
        let data = e.json();
        let second = data.as_object().and_then(|o| o.keys().nth(1)).cloned().unwrap_or_default();
        assert_eq!(second, "job", "{}", e.data);
        (e.name.clone(), data["job"].as_str().unwrap_or_default().to_owned(), data["status"].clone())
    };
    entries.iter().map(row).collect()
}

const ORG: &str = "job_status_feed";

fn h20_organization_feed(t: &Target) {
    let other = Target::new(t.site(), &[]);
    let mut feed = Feed::open(t, t.admin(), ORG, None);
    let mut elsewhere = Feed::open(&other, other.admin(), ORG, None);
    assert_eq!(feed.header("transfer-encoding"), Some("chunked"));
    let failed = json!("quorum_failed");
    let run = |t: &Target| {
        t.check_job(&t.start_on("x", &["DONKEY"]), "quorum_failed", json!({"unavailable":["DONKEY"]}))
    };
    let id_of = |job: Value| job["id"].as_str().expect("an id").to_owned();
    let (first, second, third) = (id_of(run(t)), id_of(run(t)), id_of(run(&other)));
    let rows = |id: &str| {
        [
            ("start".to_owned(), id.to_owned(), Value::Null),
            ("job_complete".to_owned(), id.to_owned(), failed.clone()),
        ]
    };
    // Nothing of the past, several jobs in order, no other organization's.
    let seen = feed.take(4);
    check_sound(&seen);
    assert_eq!(of_jobs(&seen), [rows(&first), rows(&second)].concat());
    assert_eq!(of_jobs(&elsewhere.take(2)), rows(&third));
    let start = seen[0].json();
    assert_eq!((&start["command"], &start["user"]), (&json!("x"), &json!(t.admin().name)));
    // Resumed: the later ones, oldest first (D-29).
    let mut resumed = Feed::open(t, t.admin(), ORG, Some(&seen[0].id));
    assert_eq!(resumed.take(3), seen[1..]);
    // An unknown id: all that is remembered.
    let mut all = Feed::open(t, t.admin(), ORG, Some("no-such-id"));
    let start_of_history = all.next().expect("an event");
    assert_eq!(
        (start_of_history.name.as_str(), start_of_history.id.as_str()),
        ("start_of_history", "start_id")
    );
    assert_eq!(start_of_history.json().as_object().map(|o| o.len()), Some(1));
    assert_eq!(all.take(4), seen);
    // All of them go on.
    let last = id_of(run(t));
    for feed in [&mut feed, &mut resumed, &mut all] {
        assert_eq!(of_jobs(&feed.take(2)), rows(&last));
    }
    // A new one without an id: nothing of the past.
    let mut fresh = Feed::open(t, t.admin(), ORG, None);
    let last = id_of(run(t));
    assert_eq!(of_jobs(&fresh.take(2)), rows(&last));
}

fn h20_organization_feed_forgets(t: &Target) {
    // One second in place of 60.
    let t = t.quick();
    let mut feed = Feed::open(&t, t.admin(), ORG, None);
    t.start_on("x", &["DONKEY"]);
    let seen = feed.take(2);
    // Resumed at its first event it goes on with the second, until it has forgotten both.
    let end = Instant::now() + DEADLINE;
    while brief(&Feed::open(&t, t.admin(), ORG, Some(&seen[0].id)).take(1)) != "start_of_history" {
        assert!(Instant::now() < end, "nothing is forgotten");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The id is expired, so it is an unknown one; the second event expires a moment after it.
    let forgotten = &seen[0].json()["job"];
    for last_id in [seen[0].id.as_str(), "no-such-id"] {
        loop {
            t.start_on("y", &["DONKEY"]);
            let entries = Feed::open(&t, t.admin(), ORG, Some(last_id)).take(3);
            assert_eq!(brief(&entries[..1]), "start_of_history");
            if entries[1..].iter().all(|e| e.json()["job"] != *forgotten) {
                break;
            }
            assert!(Instant::now() < end, "{}", brief(&entries));
        }
    }
}

/// Our jobs do not die alone: the server is what can be killed.
fn h21_job_ends_with_its_server(t: &Target) {
    let t = t.own("on_restart = \"crash\"");
    let one = Puppet::online(&t, "one");
    let id = t.start_on("x", &["one"]);
    let mut feed = Feed::of_job(&t, &id);
    one.run();
    let seen = feed.take(4);
    assert_eq!(brief(&seen), format!("{WON} run_start(one)"));
    std::thread::scope(|scope| {
        let asked = Instant::now();
        let reader = scope.spawn(move || (feed.rest(), asked.elapsed()));
        t.site().stop();
        let (rest, took) = reader.join().expect("no more events");
        assert_eq!(rest, []);
        assert!(took < Duration::from_secs(3), "promptly, not after {took:?}");
    });
    t.site().start_again();
    t.check_job(&id, "crashed", json!({ "crashed": ["one"] }));
    assert!(!Feed::of_job(&t, &id).rest().is_empty(), "and tells what became of it");
}

fn h22_capture(t: &Target) {
    let one = Puppet::online(t, "one");
    for capture in [true, false] {
        let options = json!({
            "command": "x", "nodes": ["one"], "capture_output": capture, "user": "deploy", "dir": "/srv",
            "env": { "A": "1" }, "file": "raw:x",
        });
        let id = t.start(&options);
        let (job, mut commit) = one.commit();
        one.ack_commit(&job);
        let run = one.expect("run");
        one.ack_run(&job);
        one.succeed(&job);
        let members = |message: &Value| -> Vec<String> {
            message.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect()
        };
        assert_eq!(
            members(&commit),
            [
                "sequence",
                "timestamp",
                "type",
                "job_id",
                "server",
                "command",
                "user",
                "dir",
                "env",
                "file",
                "capture"
            ]
        );
        assert_eq!(commit["capture"].take(), json!(capture));
        assert_eq!(members(&run), ["sequence", "timestamp", "type", "job_id"]);
        assert_eq!(whole(t, &id)[0].json()["capture"], json!(capture));
        t.check_state("one", "online", "available");
        one.forget();
    }
}
