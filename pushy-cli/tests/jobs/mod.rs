//! Watching, cancelling and starting again, against a server of the test's own; what a terminal shows and asks.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::ID;
use super::lab::{self, Answer, Lab, Ran};

const DEADLINE: Duration = Duration::from_secs(20);

fn job(status: &str, nodes: &str, more: &str) -> Answer {
    (
        200,
        format!(
            r#"{{"nodes":{nodes},"id":"{ID}","command":"x","status":"{status}","run_timeout":3600,
                "created_at":"Fri, 06 Dec 2013 21:05:32 GMT","updated_at":"Fri, 06 Dec 2013 21:05:40 GMT"{more}}}"#
        ),
    )
}

fn started() -> Answer {
    (201, format!(r#"{{"uri":"http://chef/organizations/acme/pushy/jobs/{ID}"}}"#))
}

/// The path behind the organization, with the method.
fn asked(line: &str) -> String {
    line.replace("/organizations/acme/pushy/", "").replace(ID, "ID")
}

const REASONS: &str = r#","requester":"alice","quorum":3,"reasons":{"b":{"code":"exit","text":"exit status 3"},
    "c":{"code":"unavailable","text":"unavailable since 2013-12-06 20:00:00 UTC"}}"#;

#[test]
fn a_job_of_somebody_else_is_watched() {
    let looks = AtomicUsize::new(0);
    let lab = Lab::new(move |request| match asked(&request.line).as_str() {
        "GET jobs/ID?detail=1" => match looks.fetch_add(1, Ordering::SeqCst) {
            0..3 => job("running", r#"{"running":["a","b"],"unavailable":["c"]}"#, ""),
            _ => job("complete", r#"{"succeeded":["a"],"failed":["b"],"unavailable":["c"]}"#, REASONS),
        },
        _ => (404, String::new()),
    });
    let run = lab.run(&["job", "watch", ID, "--poll-interval", "0.01"]);
    let text = "\
Running (2/3 in progress) ...
Complete.
command:     x
counts:      1 succeeded, 1 failed, 1 unavailable
created_at:  Fri, 06 Dec 2013 21:05:32 GMT
id:          6e0b432e369904e76de6e95bac99c9e6
nodes:
  failed:      b
  succeeded:   a
  unavailable: c
reasons:
  b: exit status 3 (exit)
  c: unavailable since 2013-12-06 20:00:00 UTC (unavailable)
run_timeout: 3600
status:      complete
updated_at:  Fri, 06 Dec 2013 21:05:40 GMT
";
    assert_eq!(run, Ran { out: text.to_owned(), err: String::new(), code: Some(20) });
    let document = text.split_once("Complete.\n").unwrap().1;
    let run = lab.run(&["job", "status", ID]);
    assert_eq!(run, Ran { out: document.to_owned(), err: String::new(), code: Some(0) });
    assert_eq!(lab.run(&["job", "watch", ID, "--lenient-exit"]).code, Some(1));
    let run = lab.run(&["job", "watch", ID, "-F", "json"]);
    let document: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(document["counts"], serde_json::json!({"succeeded": 1, "failed": 1, "unavailable": 1}));
    assert_eq!(document["reasons"]["b"]["code"], "exit");
    assert_eq!(run.err, "Complete.\n");

    let lab = Lab::new(|_| (404, String::new()));
    let run = lab.run(&["job", "watch", ID]);
    let err = format!("ERROR: The object you are looking for could not be found (pushy/jobs/{ID})\n");
    assert_eq!(run, Ran { out: String::new(), err, code: Some(100) });
}

/// With a poll interval of an hour only the feed can tell that the job is over.
#[test]
fn the_feed_tells_of_the_end() {
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let lab = Lab::new(move |request| match asked(&request.line).as_str() {
        "POST jobs" => started(),
        "GET job_status_feed/ID" => {
            seen.store(true, Ordering::SeqCst);
            let event = |number: u32, name: &str| {
                format!("event: {name}\nid: job-{number}\ndata: {{\"status\":\"x\"}}\n\n")
            };
            (lab::FEED, event(1, "start") + &event(2, "job_complete"))
        }
        _ if over.load(Ordering::SeqCst) => job("complete", r#"{"succeeded":["a"]}"#, ""),
        _ => job("running", r#"{"running":["a"]}"#, ""),
    });
    let begun = Instant::now();
    let run = lab.run(&["job", "start", "--poll-interval", "3600", "x", "a"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    assert!(begun.elapsed() < DEADLINE);
    let lines: Vec<_> = lab.received().iter().map(|r| asked(&r.line)).collect();
    assert_eq!(
        lines,
        ["POST jobs", "GET jobs/ID?detail=1", "GET job_status_feed/ID", "GET jobs/ID?detail=1"]
    );
}

#[test]
fn a_job_is_started_again_where_it_did_not_succeed() {
    let lab = Lab::new(|request| match asked(&request.line).as_str() {
        "POST jobs" => started(),
        _ => {
            job("complete", r#"{"succeeded":["a"],"failed":["b"],"timed_out":["c"],"unavailable":["d"]}"#, "")
        }
    });
    let check = |args: &[&str], nodes: &[&str], quorum: u32| {
        let run = lab.run(&[&["job", "start", "-b", "x", "--from-job", ID], args].concat());
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{args:?}");
        let body: serde_json::Value = serde_json::from_str(&lab.received().last().unwrap().body).unwrap();
        assert_eq!(
            (body["nodes"].clone(), body["quorum"].clone()),
            (serde_json::json!(nodes), quorum.into())
        );
    };
    check(&[], &["b", "c", "d"], 3);
    check(&["--where", "failed,timed_out"], &["b", "c"], 2);
    check(&["-q", "50%", "--where", "unavailable"], &["d"], 1);
    let run = lab.run(&["job", "start", "x", "--from-job", ID, "--where", "crashed"]);
    let err = format!(
        "ERROR: No nodes to run job on. No node of job {ID} is crashed: 1 succeeded, 1 failed, 1 unavailable, 1 timed_out.\n"
    );
    assert_eq!(run, Ran { out: String::new(), err, code: Some(1) });
}

#[test]
fn a_job_is_cancelled() {
    let lab = Lab::new(|request| match (asked(&request.line).as_str(), request.body.as_str()) {
        ("POST jobs/ID/cancel", "{}") => (202, format!(r#"{{"id":"{ID}","nodes":["a","b"]}}"#)),
        ("POST jobs/ID/cancel", r#"{"nodes":["a"]}"#) => (202, format!(r#"{{"id":"{ID}","nodes":[]}}"#)),
        ("POST jobs/ID/cancel", _) => (409, r#"{"error":"the job has ended: complete"}"#.to_owned()),
        _ => (404, String::new()),
    });
    let good = |out: &str| Ran { out: format!("{out}\n"), err: String::new(), code: Some(0) };
    assert_eq!(lab.run(&["job", "cancel", ID]), good("Cancelled on a, b."));
    assert_eq!(lab.run(&["job", "cancel", ID, "a"]), good("There was nothing left to cancel."));
    let run = lab.run(&["job", "cancel", ID, "c"]);
    assert_eq!((run.code, run.out.as_str()), (Some(100), ""));
    assert_eq!(run.err, "ERROR: That cannot be done now: the job has ended: complete\n");
    let run = lab.run(&["job", "cancel", ID, "-F", "json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&run.out).unwrap(),
        serde_json::json!({"id": ID, "nodes": ["a", "b"]})
    );
    lab.write("none", "# nobody\n");
    assert_eq!(lab.run(&["job", "cancel", ID, "@none"]).code, Some(1), "an empty file is not the whole job");

    let old = Lab::new(|request| match request.line.starts_with("GET ") {
        true => job("running", r#"{"running":["a"]}"#, ""),
        false => (404, "<html>".to_owned()),
    });
    let run = old.run(&["job", "cancel", ID]);
    assert_eq!(run.code, Some(100));
    assert!(run.err.starts_with("ERROR: this push server cannot cancel jobs"), "{}", run.err);
}

/// Exactly one document on standard output, whatever happens.
#[test]
fn programs_get_one_document() {
    let lab = Lab::new(|request| match asked(&request.line).as_str() {
        "POST jobs" => started(),
        "GET node_states" => (200, "[]".to_owned()),
        "GET jobs" => (200, "[]".to_owned()),
        "GET jobs/ID?detail=1" => (403, r#"{"error":["no"]}"#.to_owned()),
        _ => (404, String::new()),
    });
    let check = |args: &[&str], code: i32, message: Option<&str>| {
        for format in [&["-F", "json"][..], &["--format=yaml"], &["-Fjson"]] {
            let run = lab.run(&[args, format].concat());
            assert_eq!(run.code, Some(code), "{args:?} {run:?}");
            let Some(message) = message else { continue };
            if format[0] == "--format=yaml" {
                assert!(run.out.starts_with("---\n"), "{}", run.out);
                assert_eq!(run.out.matches("---").count(), 1);
                continue;
            }
            let document: serde_json::Value =
                serde_json::from_str(&run.out).unwrap_or_else(|e| panic!("{e}: {run:?}"));
            let text = document["error"]["message"].as_str().unwrap();
            assert!(text.contains(message), "{args:?}: {text}");
            assert_eq!(document["error"]["exit_status"], code);
        }
    };
    check(&["job", "list"], 0, None);
    check(&["node", "status"], 0, None);
    check(&["job", "start"], 1, Some("No job specified."));
    check(&["job", "start", "x"], 1, Some("No nodes to run job on."));
    check(&["job", "start", "x", "a", "--no-such"], 1, Some("unexpected argument '--no-such'"));
    check(&["job", "start", "x", "a"], 100, Some("you are not authorized"));
    check(&["job", "status", ID], 100, Some("you are not authorized"));
    check(&["job", "watch", ID], 100, Some("you are not authorized"));
    check(&["job", "cancel", ID], 100, Some("you are not authorized"));
    check(&["job", "status", "x"], 1, Some("invalid job id"));
    check(&["node", "status", "a"], 100, Some("could not be found"));
    check(&["node", "show", "a"], 100, Some("could not be found"));
    check(&["search", "a:b"], 100, Some("no nodes to search"));
    check(&["job", "list", "-c", "absent.rb"], 1, Some("absent.rb"));
    let run = lab.run(&["job", "start", "x", "a", "-F", "json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&run.out).unwrap()["id"],
        ID,
        "the job that goes on"
    );
}

/// The program on a terminal of 80 columns, and what it has written there.
struct Terminal {
    child: std::process::Child,
    keys: std::process::ChildStdin,
    text: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(lab: &Lab, args: &str) -> Terminal {
        let program = env!("CARGO_BIN_EXE_pushy");
        let command = format!("stty cols 80 rows 24; exec {program} {args}");
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--echo", "never", "--command", &command, "/dev/null"])
            .env_clear()
            .envs([("HOME", lab.path("").to_str().unwrap()), ("TERM", "xterm"), ("PATH", "/usr/bin:/bin")])
            .env("SHELL", "/bin/sh")
            .current_dir(lab.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("script, of bsdutils");
        let keys = child.stdin.take().unwrap();
        let mut screen = child.stdout.take().unwrap();
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Terminal { child, keys, text }
    }

    fn shows(&self, what: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.text.lock().unwrap().contains(what) {
            assert!(Instant::now() < end, "{what:?} in {:?}", self.text.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
        self.keys.flush().unwrap();
    }

    fn ends(mut self) -> (String, Option<i32>) {
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                panic!("no end: {:?}", self.text.lock().unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // The terminal is closed; what is left of its text comes at once.
        drop(self.keys);
        let text = self.text.lock().unwrap().clone();
        (text, status.code())
    }
}

const CTRL_C: &[u8] = b"\x03";

/// A job that runs until it is cancelled, or told to end.
fn endless() -> (Lab, Arc<AtomicBool>) {
    let (cancelled, done) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&done);
    let lab = Lab::new(move |request| match asked(&request.line).as_str() {
        "POST jobs" => started(),
        "POST jobs/ID/cancel" => {
            cancelled.store(true, Ordering::SeqCst);
            (202, format!(r#"{{"id":"{ID}","nodes":["a","b"]}}"#))
        }
        "GET jobs/ID?detail=1" if cancelled.load(Ordering::SeqCst) => {
            job("aborted", r#"{"aborted":["a","b"]}"#, "")
        }
        "GET jobs/ID?detail=1" if told.load(Ordering::SeqCst) => {
            job("complete", r#"{"succeeded":["a","b"]}"#, "")
        }
        "GET jobs/ID?detail=1" => job("running", r#"{"running":["a"],"succeeded":["b"]}"#, ""),
        _ => (404, String::new()),
    });
    (lab, done)
}

const PROGRESS: &str = "Running 0:00  1/2 done";

#[test]
fn a_terminal_has_a_line_that_is_rewritten() {
    let (lab, done) = endless();
    let terminal = Terminal::start(&lab, "job start x a b --poll-interval 0.05");
    terminal.shows("Running 0:01  1/2 done");
    done.store(true, Ordering::SeqCst);
    let (text, code) = terminal.ends();
    assert_eq!(code, Some(0), "{text:?}");
    assert!(text.starts_with(&format!("Started.  Job ID: {ID}\r\n\r{PROGRESS}  [")), "{text:?}");
    assert!(
        text.contains("\u{1b}[32m1 succeeded\u{1b}[0m, \u{1b}[33m1 running\u{1b}[0m\u{1b}[K"),
        "{text:?}"
    );
    assert!(text.contains("\r\u{1b}[KComplete.\r\n\u{1b}[36mcommand:    \u{1b}[0m x\r\n"), "{text:?}");
    assert!(!text.contains("in progress"), "{text:?}");

    let (lab, done) = endless();
    done.store(true, Ordering::SeqCst);
    let (text, _) = Terminal::start(&lab, "job start x a b --no-color").ends();
    assert!(!text.contains("\u{1b}[3"), "{text:?}");
}

#[test]
fn ctrl_c_asks_and_again_cancels() {
    let (lab, _) = endless();
    let mut terminal = Terminal::start(&lab, "job start x a b");
    terminal.shows(PROGRESS);
    terminal.press(CTRL_C);
    terminal.shows("Enter waits on:");
    terminal.press(CTRL_C);
    let (text, code) = terminal.ends();
    assert_eq!(code, Some(23), "{text:?}");
    assert!(text.contains("Cancelling the job.\r\n"), "{text:?}");
    assert!(text.contains("Aborted.\r\n"), "{text:?}");
}

#[test]
fn ctrl_c_can_be_answered() {
    let (lab, done) = endless();
    let mut terminal = Terminal::start(&lab, "job watch ID".replace("ID", ID).as_str());
    terminal.shows("1/2 done");
    terminal.press(CTRL_C);
    terminal.shows("Enter waits on:");
    terminal.press(b"d\n");
    let (text, code) = terminal.ends();
    assert_eq!(code, Some(2), "{text:?}");
    assert!(
        text.contains(&format!("Interrupted. The job goes on; look at it with: pushy job status {ID}\r\n")),
        "{text:?}"
    );

    let mut terminal = Terminal::start(&lab, "job start x a b");
    terminal.shows(PROGRESS);
    terminal.press(CTRL_C);
    terminal.shows("Enter waits on:");
    terminal.press(b"\n");
    done.store(true, Ordering::SeqCst);
    let (text, code) = terminal.ends();
    assert_eq!(code, Some(0), "{text:?}");
    assert!(lab.received().iter().all(|r| !r.line.ends_with("/cancel")));
}

#[test]
fn ctrl_c_leaves_at_once_where_that_is_wanted() {
    let (lab, _) = endless();
    let mut terminal = Terminal::start(&lab, "job start x a b --detach-on-interrupt");
    terminal.shows(PROGRESS);
    terminal.press(CTRL_C);
    let (text, code) = terminal.ends();
    assert_eq!(code, Some(2), "{text:?}");
    assert!(text.contains("Interrupted. The job goes on"), "{text:?}");
    assert!(lab.received().iter().all(|r| !r.line.ends_with("/cancel")));
}
