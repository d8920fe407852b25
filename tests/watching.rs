//! What operators do, with the real program, a real server and real agents: watch through restarts and cut connections,
//! start again where it failed, cancel.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pushy_tests::site::Site;
use pushy_tests::{Process, bin_dir, until};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(30);

/// `pushy` for the administrator, ready for its arguments.
fn pushy(site: &Site) -> Command {
    let mut command = Command::new(bin_dir().join("pushy"));
    command.arg("-c").arg(site.path("server/admin/.chef/config.rb"));
    command
}

fn run(site: &Site, args: &[&str]) -> Output {
    pushy(site).args(args).output().expect("pushy starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The document of `pushy -F json`, and the exit status.
fn document(site: &Site, args: &[&str]) -> (Value, Option<i32>) {
    let output = run(site, &[&["-F", "json"], args].concat());
    let document = serde_json::from_slice(&output.stdout);
    (document.unwrap_or_else(|e| panic!("{e}: {output:?}")), output.status.code())
}

/// A site with nodes `a`, `b` and, with another whitelist, `c`.
fn site() -> Site {
    let mut site = Site::start(&[], "voting_timeout = 4.0");
    let gate = site.path("gate").display().to_string();
    let waits = format!("until [ -e {gate} ]; do sleep 0.05; done");
    for node in ["a", "b"] {
        let fails = format!("[ -e {} ]", site.path(&format!("{node}.good")).display());
        let list = [
            ("waits", waits.clone()),
            ("now", "true".to_owned()),
            ("picky", fails),
            ("long", "sleep 60".to_owned()),
        ];
        site.start_agent(node, &list);
    }
    site.start_agent("c", &[("now", "true".to_owned())]);
    until("the nodes to be available", DEADLINE, || {
        let states = text(&run(&site, &["node", "status"]).stdout);
        (states.matches("\tavailable").count() == 3).then_some(())
    });
    site
}

/// Starts `pushy` in the background with its output in a file.
fn background(site: &Site, name: &str, args: &[&str]) -> Process {
    Process::start(name, &site.path(name), pushy(site).args(args)).expect("pushy starts")
}

fn job_of(process: &Process) -> String {
    until("the job to be started", DEADLINE, || {
        let text = process.output();
        let id = text.split_once("Started.  Job ID: ")?.1.get(..32)?;
        Some(id.to_owned())
    })
}

#[test]
fn watching_outlives_a_killed_server() {
    let mut site = site();
    let mut first = background(&site, "first", &["job", "start", "waits", "a", "b"]);
    let id = job_of(&first);
    let mut second = background(&site, "second", &["job", "watch", &id]);
    until("both to see it run", DEADLINE, || {
        [&first, &second].iter().all(|p| p.output().contains("Running (2/2 in progress) ...")).then_some(())
    });
    site.kill_server();
    until("both to notice", DEADLINE, || {
        [&first, &second].iter().all(|p| p.output().contains("; asking again")).then_some(())
    });
    site.start_server();
    fs::write(site.path("gate"), "").expect("the gate opens");
    for process in [&mut first, &mut second] {
        assert_eq!(process.wait(DEADLINE), Some(0), "{}", process.output());
        assert!(process.output().contains("\nComplete.\n"), "{}", process.output());
    }
}

/// A proxy that ends every connection after a while, as some do with all that last long.
fn impatient_proxy(to: &str, patience: Duration) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (to, feeds) = (to.to_owned(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&feeds);
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(&to) else { continue };
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                let (mut from, mut into) =
                    (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
                std::thread::spawn(move || {
                    let mut bytes = [0; 65_536];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        if text(&bytes[..count]).contains("/job_status_feed/") {
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                        if into.write_all(&bytes[..count]).is_err() {
                            return;
                        }
                    }
                });
                let end = Instant::now() + patience;
                let (mut from, mut into, mut bytes) = (&far, &near, [0; 65_536]);
                while let Some(left) =
                    end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
                {
                    far.set_read_timeout(Some(left)).expect("a bound");
                    match from.read(&mut bytes) {
                        Ok(count @ 1..) if into.write_all(&bytes[..count]).is_ok() => {}
                        _ => break,
                    }
                }
                let _ = (near.shutdown(std::net::Shutdown::Both), far.shutdown(std::net::Shutdown::Both));
            });
        }
    });
    (address, feeds)
}

#[test]
fn watching_outlives_a_proxy_that_cuts_connections() {
    let site = site();
    let (proxy, feeds) = impatient_proxy(site.host(), Duration::from_millis(300));
    let url = format!("http://{proxy}/organizations/acme");
    // With a poll interval of an hour nothing but the feed can tell of the end in time.
    let args = ["job", "start", "waits", "a", "b", "--poll-interval", "3600", "--server-url", &url];
    let mut process = background(&site, "watching", &args);
    until("the feed to be opened again and again", DEADLINE, || {
        (feeds.load(Ordering::SeqCst) >= 4).then_some(())
    });
    fs::write(site.path("gate"), "").expect("the gate opens");
    let begun = Instant::now();
    assert_eq!(process.wait(DEADLINE), Some(0), "{}", process.output());
    assert!(begun.elapsed() < Duration::from_secs(5), "at once: {:?}", begun.elapsed());
    assert!(!process.output().contains("WARNING"), "{}", process.output());
}

#[test]
fn a_job_is_started_again_where_it_failed() {
    let site = site();
    let (first, code) = document(&site, &["job", "start", "picky", "-q", "2", "a", "b", "c"]);
    // c refuses and the others fail.
    assert_eq!((code, &first["counts"]), (Some(20), &json!({"failed": 2, "nacked": 1})));
    fs::write(site.path("a.good"), "").expect("a file");
    let id = first["id"].as_str().expect("an id");
    let (second, code) = document(&site, &["job", "start", "picky", "--from-job", id, "--where", "failed"]);
    assert_eq!((code, &second["nodes"]), (Some(20), &json!({"succeeded": ["a"], "failed": ["b"]})));
    let id = second["id"].as_str().expect("an id");
    fs::write(site.path("b.good"), "").expect("a file");
    let (third, code) = document(&site, &["job", "start", "picky", "--from-job", id]);
    assert_eq!((code, &third["nodes"]), (Some(0), &json!({"succeeded": ["b"]})));
    let id = third["id"].as_str().expect("an id");
    let (error, code) = document(&site, &["job", "start", "picky", "--from-job", id]);
    let message = format!("No nodes to run job on. No node of job {id} ended without success: 1 succeeded.");
    assert_eq!((code, error), (Some(1), json!({"error": {"message": message, "exit_status": 1}})));
}

#[test]
fn a_job_is_cancelled_and_says_so() {
    let site = site();
    let mut waiting = background(&site, "waiting", &["job", "start", "long", "a", "b"]);
    let id = job_of(&waiting);
    until("the commands to run", DEADLINE, || {
        let nodes = &document(&site, &["job", "status", &id]).0["nodes"];
        nodes["running"].as_array().filter(|names| names.len() == 2).map(|_| ())
    });
    let (error, code) = document(&site, &["job", "cancel", &id, "c"]);
    assert_eq!((code, &error["error"]["exit_status"]), (Some(100), &json!(100)));
    // One node, then the rest.
    assert_eq!(text(&run(&site, &["job", "cancel", &id, "a"]).stdout), "Cancelled on a.\n");
    assert_eq!(document(&site, &["job", "status", &id]).0["status"], "running");
    assert_eq!(text(&run(&site, &["job", "cancel", &id]).stdout), "Cancelled on b.\n");
    assert_eq!(waiting.wait(DEADLINE), Some(23), "{}", waiting.output());
    let said = waiting.output();
    assert!(said.contains("\nAborted.\ncommand:     long\ncounts:      2 aborted\n"), "{said}");
    assert!(said.contains("\nreasons:\n  a: by admin (cancelled)\n  b: by admin (cancelled)\n"), "{said}");
    // Watching what has ended ends at once, with the same words and code.
    let watched = run(&site, &["job", "watch", &id]);
    assert_eq!(watched.status.code(), Some(23));
    let end = said.split_once("Aborted.").expect("the end").1;
    assert_eq!(text(&watched.stdout), format!("Aborted.{end}"));
    let again = run(&site, &["job", "cancel", &id]);
    assert_eq!(text(&again.stdout), "There was nothing left to cancel.\n");
    // A job that is complete cannot be cancelled.
    let (job, code) = document(&site, &["job", "start", "now", "a", "c"]);
    assert_eq!(code, Some(0), "{job}");
    let refused = run(&site, &["job", "cancel", job["id"].as_str().expect("an id")]);
    assert_eq!(refused.status.code(), Some(100));
    let why = "ERROR: That cannot be done now: the job has ended: complete\n";
    assert_eq!(text(&refused.stderr), why);
}

#[test]
fn reasons_reach_people_and_programs() {
    let mut site = site();
    site.agents()[1].kill();
    until("b to be missed", DEADLINE, || {
        let states = text(&run(&site, &["node", "status"]).stdout);
        states.contains("b\tunavailable").then_some(())
    });
    let output = run(&site, &["job", "start", "picky", "-q", "1", "a", "b", "c", "nobody"]);
    assert_eq!(output.status.code(), Some(20), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("counts:      1 failed, 2 unavailable, 1 nacked\n"), "{said}");
    for line in ["  a: exit status 1 (exit)\n", "  nobody: never seen (unavailable)\n"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let line = |node: &str| said.lines().find(|line| line.starts_with(node)).unwrap_or_default();
    assert!(line("  b: ").contains(" since 20") && line("  b: ").ends_with(" (unavailable)"), "{said}");
    assert!(line("  c: ").ends_with(" (not_whitelisted)"), "{said}");
    let id = said.split_once("Job ID: ").expect("an id").1.get(..32).expect("an id");
    let (job, code) = document(&site, &["job", "status", id]);
    assert_eq!((code, &job["reasons"]["a"]["code"]), (Some(0), &json!("exit")));
    assert_eq!(job["counts"], json!({"failed": 1, "unavailable": 2, "nacked": 1}));
}
