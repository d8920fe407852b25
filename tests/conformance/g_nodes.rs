//! G. End to end (2.6): with our agent as a process where the scenario is the node's, with a puppet where it is the
//! protocol's.

use std::fs;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use pushy_core::message::NodeMessage;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::call::DEADLINE;
use crate::puppet::{Puppet, unknown_job};
use crate::runner::checklist;
use crate::target::Target;

checklist![
    Server g1_client_offline_and_back,
    Nodes g2_command_succeeds,
    Nodes g3_command_fails,
    Nodes g4_command_not_whitelisted,
    Nodes g5_whitelist_alias,
    Nodes g6_lock_held_elsewhere,
    Nodes g7_client_restarted_while_running,
    Server g8_client_offline_before_the_job,
    Nodes g9_client_gone_but_shown_online,
    Server g10_client_dies_after_its_vote_or_while_running,
    Nodes g11_vote_suppressed,
    Nodes g12_nack_commit_for_the_running_job,
    Nodes g13_message_1000_s_old,
    Nodes g14_message_100_s_old,
    Nodes g15_nack_commit_with_an_unknown_job,
    Nodes g16_aborted_with_an_unknown_job,
    Nodes g17_job_longer_than_its_timeout,
    Nodes g18_job_shorter_than_its_timeout,
    Nodes g19_user_dir_env,
    Nodes g20_job_id_and_file,
    Nodes g21_capture,
    Nodes g22_one_of_three_fails,
    Nodes g23_two_of_three_busy,
    Nodes g24_one_of_three_busy,
    Nodes g25_more_jobs_on_a_busy_node,
    Nodes g26_independent_jobs,
    Nodes g27_client_reconfigures_during_a_job,
    Server g28_server_restarted_during_a_job,
    Server g28_server_restarted_during_a_job_as_the_original,
    Server g29_client_killed_and_back,
    Nodes g30_files_of_jobs_go,
];

fn running(job: &Value) -> bool {
    job["nodes"].get("running").is_some()
}

fn g1_client_offline_and_back(t: &Target) {
    let t = t.quick();
    let agent = Agent::online(&t, "one");
    agent.signal(Signal::SIGSTOP);
    t.check_state("one", "online", "unavailable");
    agent.signal(Signal::SIGCONT);
    let back = Instant::now();
    t.check_state("one", "online", "available");
    // `offline_threshold` + 1 intervals, and a second for a busy machine.
    assert!(back.elapsed() < Duration::from_millis(4 * 400 + 1000), "{:?}", back.elapsed());
}

fn g2_command_succeeds(t: &Target) {
    let _agent = Agent::online(t, "one");
    t.check_job(&t.start_on("succeed", &["one"]), "complete", json!({ "succeeded": ["one"] }));
}

fn g3_command_fails(t: &Target) {
    let _agent = Agent::online(t, "one");
    t.check_job(&t.start_on("fail", &["one"]), "complete", json!({ "failed": ["one"] }));
}

fn g4_command_not_whitelisted(t: &Target) {
    let _agent = Agent::online(t, "one");
    t.check_job(&t.start_on("other", &["one"]), "quorum_failed", json!({ "nacked": ["one"] }));
}

fn g5_whitelist_alias(t: &Target) {
    let _agent = Agent::with(t, "one", "'good' => { command_line: 'true' }, /^(exit \\d)$/ => '\\1',");
    t.check_job(&t.start_on("good", &["one"]), "complete", json!({ "succeeded": ["one"] }));
    t.check_job(&t.start_on("exit 0", &["one"]), "complete", json!({ "succeeded": ["one"] }));
    t.check_job(&t.start_on("exit 4", &["one"]), "complete", json!({ "failed": ["one"] }));
}

fn g6_lock_held_elsewhere(t: &Target) {
    let lock = t.site().folder(&format!("{}-lock", t.org)).join("lock");
    let entry = format!("'locked' => {{ command_line: 'true', lock: '{}' }},", lock.display());
    let _agent = Agent::with(t, "one", &entry);
    let file = fs::File::create(&lock).expect("a file");
    let held = Flock::lock(file, FlockArg::LockExclusive).expect("a lock");
    t.check_job(&t.start_on("locked", &["one"]), "quorum_failed", json!({ "nacked": ["one"] }));
    drop(held);
    t.check_job(&t.start_on("locked", &["one"]), "complete", json!({ "succeeded": ["one"] }));
}

fn g7_client_restarted_while_running(t: &Target) {
    let first = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    first.run();
    t.job_until(&id, running);
    drop(first);
    let second = Puppet::process(t, "one");
    t.check_job(&id, "complete", json!({ "crashed": ["one"] }));
    second.check_next_job(t);
}

fn g8_client_offline_before_the_job(t: &Target) {
    let t = t.quick();
    drop(Puppet::online(&t, "one"));
    t.check_state("one", "offline", "unavailable");
    assert_eq!(t.get(t.admin(), "node_states").json(), json!([]));
    t.check_job(&t.start_on("x", &["one"]), "quorum_failed", json!({ "unavailable": ["one"] }));
}

fn g9_client_gone_but_shown_online(t: &Target) {
    drop(Puppet::online(t, "one"));
    let id = t.start_on("x", &["one"]);
    t.check_job(&id, "quorum_failed", json!({ "unavailable": ["one"] }));
}

fn g10_client_dies_after_its_vote_or_while_running(t: &Target) {
    let t = t.quick();
    let (voted, started) = (Puppet::online(&t, "voted"), Puppet::online(&t, "started"));
    let (first, second) = (t.start_on("x", &["voted"]), t.start_on("x", &["started"]));
    let (job, _) = voted.commit();
    voted.ack_commit(&job);
    started.run();
    t.job_until(&first, |job| job["nodes"] == json!({ "ready": ["voted"] }));
    t.job_until(&second, running);
    drop((voted, started));
    t.check_job(&first, "complete", json!({ "crashed": ["voted"] }));
    t.check_job(&second, "complete", json!({ "crashed": ["started"] }));
}

fn g11_vote_suppressed(t: &Target) {
    let puppet = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    puppet.commit();
    let job = t.job(&id);
    assert_eq!((&job["status"], &job["nodes"]), (&json!("voting"), &json!({ "new": ["one"] })));
    // The timer is set to 2 s in place of the 60 s of the checklist.
    t.check_job(&id, "quorum_failed", json!({ "unavailable": ["one"] }));
    assert_eq!(t.get(t.admin(), "node_states/one").json()["status"], "online");
    puppet.check_next_job(t);
}

fn g12_nack_commit_for_the_running_job(t: &Target) {
    let puppet = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let job = puppet.run();
    t.job_until(&id, running);
    puppet.nack_commit(&job);
    puppet.expect("abort");
    t.check_job(&id, "complete", json!({ "crashed": ["one"] }));
    puppet.check_next_job(t);
}

fn g13_message_1000_s_old(t: &Target) {
    let puppet = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let job = puppet.run();
    t.job_until(&id, running);
    puppet.say_late(&NodeMessage::NackCommit { job: job.clone().into(), reason: None }, 1000);
    assert!(!puppet.hears("abort", Duration::from_millis(300)));
    puppet.succeed(&job);
    t.check_job(&id, "complete", json!({ "succeeded": ["one"] }));
}

fn g14_message_100_s_old(t: &Target) {
    let puppet = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    let job = puppet.run();
    t.job_until(&id, running);
    // Right after a connection was made an old message is one that waited for it (decision 3): not so behind a heartbeat
    // that is surely younger than the connection, which is some heartbeats on.
    let end = Instant::now() + DEADLINE;
    let mut stopped = false;
    while !stopped {
        assert!(Instant::now() < end, "an old message is never believed");
        puppet.say_late(&NodeMessage::NackCommit { job: job.clone().into(), reason: None }, 100);
        stopped = puppet.hears("abort", Duration::from_millis(100));
    }
    t.check_job(&id, "complete", json!({ "crashed": ["one"] }));
    puppet.check_next_job(t);
}

fn g15_nack_commit_with_an_unknown_job(t: &Target) {
    let puppet = Puppet::online(t, "one");
    let id = t.start_on("x", &["one"]);
    puppet.run();
    t.job_until(&id, running);
    puppet.say(&NodeMessage::NackCommit { job: unknown_job("a"), reason: None });
    puppet.expect("abort");
    t.check_job(&id, "complete", json!({ "crashed": ["one"] }));
    puppet.check_next_job(t);
}

fn g16_aborted_with_an_unknown_job(t: &Target) {
    let puppet = Puppet::online(t, "one");
    puppet.say(&NodeMessage::Aborted { job: unknown_job("a"), reason: None });
    assert!(!puppet.hears("abort", Duration::from_millis(500)));
    puppet.check_next_job(t);
}

fn g17_job_longer_than_its_timeout(t: &Target) {
    let _agent = Agent::online(t, "one");
    let id = t.start(&json!({ "command": "sleep long", "nodes": ["one"], "run_timeout": 1 }));
    t.check_job(&id, "timed_out", json!({ "timed_out": ["one"] }));
    t.check_state("one", "online", "available");
    t.check_job(&t.start_on("succeed", &["one"]), "complete", json!({ "succeeded": ["one"] }));
}

fn g18_job_shorter_than_its_timeout(t: &Target) {
    let _agent = Agent::online(t, "one");
    let id = t.start(&json!({ "command": "sleep 1", "nodes": ["one"], "run_timeout": 4 }));
    t.check_job(&id, "complete", json!({ "succeeded": ["one"] }));
}

/// Runs a job with captured output and these options; what it printed.
fn printed(t: &Target, command: &str, options: Value) -> (String, String) {
    let (status, channels) = captured(t, command, options);
    assert_eq!(status, "succeeded");
    channels
}

/// The same for a job that may fail; also the node's status.
fn captured(t: &Target, command: &str, mut body: Value) -> (String, (String, String)) {
    body["command"] = json!(command);
    body["nodes"] = json!(["one"]);
    body["capture_output"] = json!(true);
    let id = t.start(&body);
    let job = t.job_until(&id, |job| job["status"] == "complete");
    let status = job["nodes"].as_object().and_then(|n| n.keys().next()).expect("a status").clone();
    let channel = |name: &str| {
        let answer = t.get(t.admin(), &format!("jobs/{id}/output/one/{name}"));
        answer.check_status(200);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        answer.text()
    };
    (status, (channel("stdout"), channel("stderr")))
}

/// A user that a job can be: another one when we are root.
fn some_user() -> String {
    if nix::unistd::geteuid().is_root() {
        return "nobody".to_owned();
    }
    let out = std::process::Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn g19_user_dir_env(t: &Target) {
    let _agent = Agent::online(t, "one");
    let user = some_user();
    let options = json!({ "user": user, "dir": "/", "env": { "COLOUR": "blau und grün" } });
    let (out, _) = printed(t, "who", options);
    assert_eq!(out, format!("{user}\n/\nblau und grün\n"));
    for options in [json!({ "user": "no-such-user" }), json!({ "dir": "/no/such/directory" })] {
        let mut body = options;
        body["command"] = json!("who");
        body["nodes"] = json!(["one"]);
        t.check_job(&t.start(&body), "quorum_failed", json!({ "nacked": ["one"] }));
    }
}

fn g20_job_id_and_file(t: &Target) {
    let agent = Agent::online(t, "one");
    let id = t.start(&json!({ "command": "id", "nodes": ["one"], "capture_output": true }));
    t.check_job(&id, "complete", json!({ "succeeded": ["one"] }));
    let out = t.get(t.admin(), &format!("jobs/{id}/output/one/stdout"));
    assert_eq!(out.text(), format!("{id} one\n"));
    for (file, content) in [("raw:Grüße\n", "Grüße\n"), ("base64:R3LDvMOfZQ==", "Grüße")] {
        let (out, _) = printed(t, "file", json!({ "file": file }));
        let (read, path) = out.trim_end().rsplit_once('\n').expect("two lines");
        assert_eq!(read, content);
        assert!(path.starts_with(&format!("{}/", agent.files().display())), "{path}");
    }
}

fn g21_capture(t: &Target) {
    let _agent = Agent::online(t, "one");
    let id = t.start_on("both", &["one"]);
    t.check_job(&id, "complete", json!({ "succeeded": ["one"] }));
    for channel in ["stdout", "stderr"] {
        t.get(t.admin(), &format!("jobs/{id}/output/one/{channel}")).check_framework(404);
    }
    let user = some_user();
    for (command, options, status, out, err) in [
        ("succeed", json!({}), "succeeded", "", ""),
        ("both", json!({}), "succeeded", "out", "err"),
        ("both and fail", json!({}), "failed", "out", "err"),
        ("out", json!({}), "succeeded", "out", ""),
        ("err", json!({}), "succeeded", "", "err"),
        ("both", json!({ "user": user, "dir": "/" }), "succeeded", "out", "err"),
    ] {
        let expected = (status.to_owned(), (out.to_owned(), err.to_owned()));
        assert_eq!(captured(t, command, options), expected, "{command}");
    }
}

fn g22_one_of_three_fails(t: &Target) {
    let _one = Agent::with(t, "one", "'x' => 'true',");
    let _two = Agent::with(t, "two", "'x' => 'false',");
    let _three = Agent::with(t, "three", "'x' => 'true',");
    let id = t.start_on("x", &["one", "two", "three"]);
    t.check_job(&id, "complete", json!({ "failed": ["two"], "succeeded": ["one", "three"] }));
}

fn g23_two_of_three_busy(t: &Target) {
    let agents = ["one", "two", "three"].map(|name| Agent::online(t, name));
    let first = t.start_on("until told", &["one", "two"]);
    t.job_until(&first, |job| job["nodes"]["running"].as_array().is_some_and(|n| n.len() == 2));
    let body = json!({ "command": "succeed", "nodes": ["one", "two", "three"], "quorum": 2 });
    let expected = json!({ "nacked": ["one", "two"], "was_ready": ["three"] });
    t.check_job(&t.start(&body), "quorum_failed", expected);
    agents.iter().for_each(Agent::tell);
    t.check_job(&first, "complete", json!({ "succeeded": ["one", "two"] }));
}

fn g24_one_of_three_busy(t: &Target) {
    let agents = ["one", "two", "three"].map(|name| Agent::online(t, name));
    let first = t.start_on("until told", &["one"]);
    t.job_until(&first, running);
    let body = json!({ "command": "succeed", "nodes": ["one", "two", "three"], "quorum": 2 });
    let expected = json!({ "nacked": ["one"], "succeeded": ["two", "three"] });
    t.check_job(&t.start(&body), "complete", expected);
    agents[0].tell();
    t.check_job(&first, "complete", json!({ "succeeded": ["one"] }));
}

fn g25_more_jobs_on_a_busy_node(t: &Target) {
    let agent = Agent::online(t, "one");
    let first = t.start_on("until told", &["one"]);
    t.job_until(&first, running);
    let more = [t.start_on("succeed", &["one"]), t.start_on("succeed", &["one"])];
    for id in more {
        t.check_job(&id, "quorum_failed", json!({ "nacked": ["one"] }));
    }
    agent.tell();
    t.check_job(&first, "complete", json!({ "succeeded": ["one"] }));
}

fn g26_independent_jobs(t: &Target) {
    let agents = ["one", "two"].map(|name| Agent::online(t, name));
    let (first, second) = (t.start_on("until told", &["one"]), t.start_on("until told", &["two"]));
    t.job_until(&first, running);
    t.job_until(&second, running);
    assert!(running(&t.job(&first)), "they run at the same time");
    agents[1].tell();
    t.check_job(&second, "complete", json!({ "succeeded": ["two"] }));
    agents[0].tell();
    t.check_job(&first, "complete", json!({ "succeeded": ["one"] }));
}

fn g27_client_reconfigures_during_a_job(t: &Target) {
    let agent = Agent::online(t, "one");
    let id = t.start_on("until told", &["one"]);
    t.job_until(&id, running);
    agent.signal(Signal::SIGUSR1);
    pushy_tests::until("the signal's trace in the log", DEADLINE, || {
        agent.output().contains("USR1").then_some(())
    });
    agent.tell();
    t.check_job(&id, "complete", json!({ "succeeded": ["one"] }));
}

/// Exception of decision 18: the job goes on.
fn g28_server_restarted_during_a_job(t: &Target) {
    let t = t.own("");
    let mut puppet = Puppet::online(&t, "one");
    let _agent = Agent::online(&t, "two");
    let id = t.start_on("sleep 2", &["one", "two"]);
    let job = puppet.run();
    t.job_until(&id, |job| job["nodes"]["running"].as_array().is_some_and(|n| n.len() == 2));
    t.site().stop();
    t.site().start_again();
    assert_eq!(t.job(&id)["status"], "running");
    puppet.reconnect();
    puppet.expect("ack");
    puppet.succeed(&job);
    t.check_job(&id, "complete", json!({ "succeeded": ["one", "two"] }));
    puppet.check_next_job(&t);
}

/// What the original does, by the setting that brings it back.
fn g28_server_restarted_during_a_job_as_the_original(t: &Target) {
    let t = t.own("on_restart = \"crash\"");
    let _agent = Agent::online(&t, "one");
    let id = t.start_on("sleep long", &["one"]);
    t.job_until(&id, running);
    t.site().stop();
    t.site().start_again();
    t.check_job(&id, "crashed", json!({ "crashed": ["one"] }));
    // The client gives up its job and takes the next one.
    t.check_state("one", "online", "available");
    let next = t.start_on("succeed", &["one"]);
    t.check_job(&next, "complete", json!({ "succeeded": ["one"] }));
}

fn g29_client_killed_and_back(t: &Target) {
    let t = t.quick();
    let mut agent = Agent::online(&t, "one");
    for offline in [false, true] {
        agent.kill();
        if offline {
            t.check_state("one", "offline", "unavailable");
        }
        agent.start();
        // The new process has shown itself once it answers a job.
        let next = pushy_tests::until("a job that succeeds", DEADLINE, || {
            let id = t.start_on("succeed", &["one"]);
            let ended = t.job_until(&id, |job| job["status"] != "voting" && job["status"] != "running");
            (ended["status"] == "complete").then_some(ended)
        });
        assert_eq!(next["nodes"], json!({ "succeeded": ["one"] }));
    }
}

/// Our agent takes a job's file away with the job and not after a day (D-49).
fn g30_files_of_jobs_go(t: &Target) {
    let agent = Agent::online(t, "one");
    fs::create_dir_all(agent.files()).expect("a folder");
    let other = agent.files().join("other");
    fs::write(&other, "kept").expect("a file");
    let (out, _) = printed(t, "file", json!({ "file": "raw:x" }));
    let path = out.lines().last().expect("the file's path").to_owned();
    pushy_tests::until("the file to go", DEADLINE, || (!std::path::Path::new(&path).exists()).then_some(()));
    let left: Vec<String> = fs::read_dir(agent.files())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left, ["other"]);
    assert_eq!(fs::read_to_string(&other).expect("a file"), "kept");
}
