//! The end of a job's processes: server and agents as real programs, and commands that do what they can to stay.
//!
//! What a command starts sleeps for a number of seconds that nothing else on the machine sleeps for, so survivors are
//! found by their command lines, whatever they did to environment, session and parents.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushy_tests::http::Http;
use pushy_tests::site::Site;
use pushy_tests::until;
use serde_json::{Value, json};

/// For everything that is to happen, on a machine with other things to do.
const LIMIT: Duration = Duration::from_secs(60);

/// From the moment a job is to end until nothing of it runs.
const END: Duration = Duration::from_secs(5);

/// Ignores TERM and starts children that do the same: in its group, in sessions of their own, twice forked, without
/// the environment, and one that goes on starting more.
const NASTY: &str = r#"
trap '' TERM
(sleep $1) &
setsid sleep $1 &
(setsid sh -c "sleep $1 & (setsid sleep $1 &)" &)
(env -i setsid sleep $1 &)
(setsid sh -c "while :; do sleep 0.1; (setsid sleep $1 &); done" &)
sleep 0.3
echo started > $2
wait
wait
"#;

/// Its sleeps before the one that goes on has begun.
const AT_LEAST: usize = 5;

/// Processes that sleep for `seconds`.
fn sleepers(seconds: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A zombie's is empty.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.split('\0').any(|word| word == seconds) || line.contains(&format!("sleep {seconds}")) {
            found.push(pid);
        }
    }
    found
}

fn is_up(site: &Site, node: &str) -> bool {
    call(site, "GET", &format!("node_states/{node}"), "")["availability"] == "available"
}

fn call(site: &Site, method: &str, resource: &str, body: &str) -> Value {
    let path = format!("/organizations/acme/pushy/{resource}");
    let (status, body) =
        Http::new(site.host()).call(("admin", site.admin()), method, &path, body).expect("an answer");
    assert!(status < 300, "{method} {resource}: {status} {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}

fn start_job(site: &Site, node: &str, command: &str, run_timeout: u32) -> String {
    until(&format!("{node} to be available"), LIMIT, || is_up(site, node).then_some(()));
    let body = json!({ "command": command, "nodes": [node], "run_timeout": run_timeout }).to_string();
    let answer = call(site, "POST", "jobs", &body);
    answer["uri"].as_str().and_then(|uri| uri.rsplit('/').next()).expect("an address").to_owned()
}

fn wait_for(site: &Site, job: &str, status: &str) {
    until(&format!("the job to be {status}"), LIMIT, || {
        let now = call(site, "GET", &format!("jobs/{job}"), "");
        (now["status"] == status).then_some(())
    });
}

/// The agent's own cgroup of version 2, when a group can be made in it.
fn divisible_cgroup() -> Option<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    // The agent divides what systemd has delegated, and a session of a test is not.
    if !own.is_empty() && Path::new("/run/systemd/system").exists() {
        return None;
    }
    let base = Path::new(mount).join(own);
    let probe = base.join(format!("probe-{}", std::process::id()));
    fs::create_dir(&probe).ok()?;
    let kills = probe.join("cgroup.kill").exists();
    fs::remove_dir(&probe).ok()?;
    kills.then_some(base)
}

/// Whether the agent goes on after its job was ended.
#[derive(PartialEq, Eq)]
enum Agent {
    GoesOn,
    Ends,
}

/// Ends a nasty command of the agent `web1` in the way that `end` does, beside another agent's, and a service that an
/// earlier job left behind on purpose.
fn check(tag: &str, settings: &str, run_timeout: u32, end: impl FnOnce(&mut Site, &str) -> Agent) {
    let cgroup = settings.is_empty();
    if cgroup && divisible_cgroup().is_none() {
        println!("no cgroup of version 2 can be made here: not tried");
        return;
    }
    let mut site = Site::start(&[], "");
    let script = site.path("nasty.sh");
    fs::write(&script, NASTY).expect("written");
    let seconds = |what: u32| format!("36{what}.{}{tag}", std::process::id());
    let (nasty, service, bystander) = (seconds(1), seconds(2), seconds(3));
    let started = site.path("started");
    let whitelist = [
        ("nasty", format!("exec sh {} {nasty} {}", script.display(), started.display())),
        ("service", format!("setsid sleep {service} & exit 0")),
        ("other", format!("exec sleep {bystander}")),
        ("true", "true".to_owned()),
    ];
    for node in ["web1", "web2"] {
        site.start_agent_with(node, &whitelist, settings);
    }
    let job = start_job(&site, "web1", "service", 60);
    wait_for(&site, &job, "complete");
    assert_eq!(
        sleepers(&service).len(),
        1,
        "a service that a job started goes on when the job has succeeded"
    );
    let other = start_job(&site, "web2", "other", 60);

    let job = start_job(&site, "web1", "nasty", run_timeout);
    until("the command to have started everything", LIMIT, || started.exists().then_some(()));
    let running = sleepers(&nasty);
    assert!(running.len() >= AT_LEAST, "{running:?}");
    for pid in running {
        let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if !group.is_empty() {
            assert_eq!(group.contains("/pushy-"), cgroup, "{group}");
        }
    }
    let agent = end(&mut site, &job);
    let start = Instant::now();
    until("survivors to end", LIMIT, || sleepers(&nasty).is_empty().then_some(()));
    let took = start.elapsed();
    println!("cgroup {cgroup}: nothing was left after {took:?}");
    assert!(took < END, "{took:?}");

    assert_eq!(sleepers(&service).len(), 1, "a service of an earlier job is not the job's");
    assert_eq!(sleepers(&bystander).len(), 1, "another agent's job goes on");
    assert_eq!(call(&site, "GET", &format!("jobs/{other}"), "")["status"], "running");
    for pid in sleepers(&service) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    if agent == Agent::Ends {
        assert_eq!(site.agents()[0].wait(LIMIT), Some(0));
        return;
    }
    let job = start_job(&site, "web1", "true", 60);
    wait_for(&site, &job, "complete");
    // The service is gone by now: so is its job's group, with the next job at the latest.
    if let Some(base) = divisible_cgroup().filter(|_| cgroup) {
        let prefix = format!("pushy-{}-", site.agents()[0].pid());
        let left = || {
            let entries = fs::read_dir(&base).expect("a folder").flatten();
            entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).count()
        };
        until("groups of ended jobs to go", LIMIT, || (left() == 0).then_some(()));
    }
}

/// An hour: the end comes from elsewhere.
const LONG: u32 = 3600;

/// The setting that does without a cgroup; with no setting there is one where there can be.
const NO_CGROUP: &str = "job_cgroup false";

fn by_cancel(site: &mut Site, job: &str) -> Agent {
    call(site, "POST", &format!("jobs/{job}/cancel"), "");
    Agent::GoesOn
}

fn by_timeout(site: &mut Site, job: &str) -> Agent {
    wait_for(site, job, "timed_out");
    Agent::GoesOn
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing_behind_with_a_cgroup() {
    check("1", "", LONG, by_cancel);
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing_behind_without_a_cgroup() {
    check("2", NO_CGROUP, LONG, by_cancel);
}

#[test]
fn a_job_that_times_out_leaves_nothing_behind() {
    check("3", NO_CGROUP, 2, by_timeout);
}

#[test]
fn an_agent_that_is_told_to_stop_leaves_nothing_of_its_job_behind() {
    check("4", NO_CGROUP, LONG, |site, _job| {
        site.agents()[0].signal(Signal::SIGTERM);
        Agent::Ends
    });
}
