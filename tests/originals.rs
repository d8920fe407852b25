//! Against the originals: pushy-client 3.0.13 and knife-push 2.0.1, from the folder that `CHEF_LAB` names. `script/lab`
//! runs these checks one by one. What they measure they print as lines that begin with `lab:`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pushy_core::auth::SigningKey;
use pushy_tests::http::Http;
use pushy_tests::{Process, bin_dir, until};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
/// Seconds between heartbeats: a server's default, and what makes these checks quick.
const DEFAULT: u32 = 10;
const QUICK: u32 = 2;
/// The whitelist of every client here. `MINE` stands for the start of the path of the node's own files.
const WHITELIST: &[(&str, &str)] = &[
    ("succeed", "true"),
    ("fail", "exit 3"),
    ("sleep", "echo $$ > MINE.pid; exec sleep 60"),
    ("eight", "echo $CHEF_PUSH_JOB_ID >> MINE.eight; sleep 8"),
    ("say", "echo to-stdout; echo to-stderr >&2"),
    (
        "options",
        "echo $COLOUR `pwd` `cat $CHEF_PUSH_JOB_FILE` $CHEF_PUSH_NODE_NAME $CHEF_PUSH_JOB_ID > MINE.options",
    ),
];

/// The lab's folder; without one the check is skipped, and a line says so.
fn lab() -> Option<PathBuf> {
    let dir = std::env::var_os("CHEF_LAB").filter(|d| !d.is_empty());
    if dir.is_none() {
        println!("lab: skipped: CHEF_LAB names no folder with knife and the original client");
    }
    dir.map(PathBuf::from)
}

/// `program` as the lab's environment finds it, in this very process id.
fn original(lab: &Path, program: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", ". \"$CHEF_LAB/env.sh\"; exec \"$@\"", "lab", program]).env("CHEF_LAB", lab);
    command
}

/// Makes sure that the lab holds what these checks were written against.
fn check_version(lab: &Path, what: &str, program: &[&str], version: &str) {
    let said = original(lab, program[0]).args(&program[1..]).output().expect("it starts");
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    assert!(said.ends_with(version), "{what} {version}, not {said:?}");
    found(what, version);
}

/// What a check found, with its figure.
fn found(what: &str, figure: impl std::fmt::Display) {
    println!("lab: {what}: {figure}");
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A server and its clients.
struct Site {
    lab: PathBuf,
    // Ended first, as the fields are dropped in this order.
    clients: BTreeMap<&'static str, Process>,
    server: Process,
    http: Http,
    admin: SigningKey,
    dir: tempfile::TempDir,
}

impl Site {
    fn new(lab: &Path, interval: u32) -> Site {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("ran")).expect("a folder");
        let home = dir.path().join("server");
        let seconds = interval.to_string();
        let made = Command::new(bin_dir().join("pushy-server"))
            .args(["init", "--org", "intro", "--free-ports", "--heartbeat-interval", &seconds])
            .arg(&home)
            .output()
            .expect("pushy-server starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key = fs::read(home.join("admin/.chef/admin.pem")).expect("the administrator's key");
        let server = serve(dir.path());
        let host = setting(&home.join("server.toml"), "api_listen");
        let (http, admin) = (Http::new(&host), SigningKey::from_pem(key).expect("a key"));
        Site { lab: lab.to_path_buf(), clients: BTreeMap::new(), server, http, admin, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn call(&mut self, method: &str, resource: &str, body: &str) -> (u16, Vec<u8>) {
        let path = format!("/organizations/intro/pushy/{resource}");
        self.http.call(("admin", &self.admin), method, &path, body).expect("the server answers")
    }

    fn get(&mut self, resource: &str) -> Value {
        let (status, body) = self.call("GET", resource, "");
        assert_eq!(status, 200, "{resource}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Makes a node and starts its client: an original, or ours. `more` are whitelist entries of its own.
    fn client(&mut self, name: &'static str, ours: bool, more: &[(&str, &str)]) {
        let server = self.path("server");
        let mut add = Command::new(bin_dir().join("pushy-server"));
        let added = add.arg("--dir").arg(&server).args(["node", "add", name]).output().expect("it starts");
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let files = self.path("ran");
        let entries: String = WHITELIST
            .iter()
            .chain(more)
            .map(|(job, command)| {
                let command = command.replace("MINE", &files.join(name).to_string_lossy());
                format!("  '{job}' => '{command}',\n")
            })
            .collect();
        let config = self.path(&format!("{name}.rb"));
        let mut text = format!(
            "chef_server_url 'http://{}/organizations/intro'\nnode_name '{name}'\nclient_key '{}'\n\
             file_dir '{}'\nwhitelist({{\n{entries}}})\n",
            setting(&server.join("server.toml"), "api_listen"),
            server.join(format!("nodes/{name}/client.pem")).display(),
            self.path(&format!("{name}.files")).display(),
        );
        let mut command = if ours {
            text.push_str(&format!("state_dir '{}'\n", self.path(&format!("{name}.state")).display()));
            Command::new(bin_dir().join("push-jobs-client"))
        } else {
            original(&self.lab, "pushy-client")
        };
        fs::write(&config, text).expect("its configuration is written");
        command.arg("-c").arg(&config).args(["-l", "info"]);
        let process =
            Process::start(name, &self.path(&format!("{name}.log")), &mut command).expect("it starts");
        self.clients.insert(name, process);
    }

    fn is_available(&mut self, name: &str) -> bool {
        self.get(&format!("node_states/{name}"))["availability"] == "available"
    }

    /// Waits until all of these are available; answers when each one was, counted from `from`.
    fn available(&mut self, names: &[&str], from: Instant, limit: Duration) -> Vec<Duration> {
        let mut times = vec![None; names.len()];
        until(&format!("{names:?} to be available"), limit, || {
            for (name, time) in names.iter().zip(&mut times) {
                if time.is_none() && self.is_available(name) {
                    *time = Some(from.elapsed());
                }
            }
            std::thread::sleep(SECOND / 20);
            times.iter().copied().collect()
        })
    }

    fn start_job(&mut self, body: &Value) -> String {
        let (status, answer) = self.call("POST", "jobs", &body.to_string());
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        answer["uri"].as_str().and_then(|u| u.rsplit('/').next()).expect("the job's address").to_owned()
    }

    /// Waits until a job is as `is` says.
    fn job(&mut self, id: &str, limit: Duration, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        until(&format!("the job (last: {last})"), limit, || {
            std::thread::sleep(SECOND / 50);
            last = self.get(&format!("jobs/{id}"));
            is(&last).then(|| last.clone())
        })
    }

    /// Runs a job and compares how it ends: its status, and its nodes by theirs.
    fn check(&mut self, what: &str, body: Value, status: &str, nodes: Value) -> String {
        let began = Instant::now();
        let id = self.start_job(&body);
        let job = self.job(&id, SECOND * 30, has_ended);
        assert_eq!((&job["status"], &job["nodes"]), (&json!(status), &nodes), "{what}");
        found(what, format_args!("{status} {nodes} in {}", seconds(began.elapsed())));
        id
    }

    /// How often nodes have fetched their configuration.
    fn fetches(&self) -> usize {
        self.server.output().lines().filter(|l| l.contains("/pushy/config/")).count()
    }

    /// KILL, silence, and the same server again on the same ports; answers when it was ready.
    fn outage(&mut self, time: Duration) -> Instant {
        let killed = Instant::now();
        self.server.kill();
        std::thread::sleep(time.saturating_sub(killed.elapsed()));
        self.server = serve(self.dir.path());
        found("server away after KILL", seconds(killed.elapsed()));
        Instant::now()
    }
}

impl Drop for Site {
    /// Clients get the time to end their jobs' processes.
    fn drop(&mut self) {
        for client in self.clients.values() {
            client.signal(nix::sys::signal::Signal::SIGTERM);
        }
        let end = Instant::now() + SECOND * 5;
        while Instant::now() < end && self.clients.values_mut().any(Process::is_running) {
            std::thread::sleep(SECOND / 50);
        }
    }
}

fn has_ended(job: &Value) -> bool {
    !matches!(job["status"].as_str(), Some("voting" | "running" | "new"))
}

/// Runs the server of `dir` and waits until it answers.
fn serve(dir: &Path) -> Process {
    let (home, log) = (dir.join("server"), dir.join("server.log"));
    let program = bin_dir().join("pushy-server");
    let mut command = Command::new(&program);
    command.arg("run").arg(&home).args(["--log-level", "debug"]);
    let server = Process::start("pushy-server", &log, &mut command).expect("the server starts");
    until("the server to be ready", SECOND * 20, || {
        Command::new(&program).arg("status").arg(&home).output().ok()?.status.success().then_some(())
    });
    server
}

/// A text value of `server.toml`.
fn setting(file: &Path, key: &str) -> String {
    let text = fs::read_to_string(file).expect("the server's settings");
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.trim().strip_prefix("= ")).expect("a setting");
    line.trim_matches('"').to_owned()
}

/// Two originals, available within 10 s of their start.
fn two_originals(lab: &Path, interval: u32) -> Site {
    let mut site = Site::new(lab, interval);
    let began = Instant::now();
    for name in ["one", "two"] {
        site.client(name, false, &[]);
    }
    for (name, time) in ["one", "two"].iter().zip(site.available(&["one", "two"], began, SECOND * 10)) {
        found(&format!("original {name} available, heartbeats every {interval} s"), seconds(time));
    }
    site
}

#[test]
fn a_originals_register_and_are_available() {
    let Some(lab) = lab() else { return };
    check_version(&lab, "original client", &["pushy-client", "--version"], "3.0.13");
    for interval in [DEFAULT, QUICK] {
        let mut site = two_originals(&lab, interval);
        let both = json!(["one", "two"]);
        let done = json!({ "succeeded": both });
        site.check("their first job", json!({ "command": "succeed", "nodes": both }), "complete", done);
        assert_eq!(site.fetches(), 2, "each fetches its configuration once");
    }
}

#[test]
fn b_originals_run_fail_refuse_and_time_out() {
    let Some(lab) = lab() else { return };
    let mut site = two_originals(&lab, DEFAULT);
    let both = json!(["one", "two"]);
    let job = |command: &str| json!({ "command": command, "nodes": both });
    site.check("succeed", job("succeed"), "complete", json!({ "succeeded": both }));
    site.check("fail", job("fail"), "complete", json!({ "failed": both }));
    site.check("refuse", job("not-listed"), "quorum_failed", json!({ "nacked": both }));

    let mut timed = job("sleep");
    timed["run_timeout"] = json!(1);
    site.check("time out", timed, "timed_out", json!({ "timed_out": both }));
    let ended = Instant::now();
    for name in ["one", "two"] {
        let pid = fs::read_to_string(site.path("ran").join(format!("{name}.pid"))).expect("it has run");
        until("its process to end", SECOND * 10, || {
            (!Path::new(&format!("/proc/{}", pid.trim())).exists()).then_some(())
        });
    }
    found("its processes are gone after", seconds(ended.elapsed()));
    let times = site.available(&["one", "two"], ended, SECOND * 10);
    found("the nodes are available again after", seconds(times.into_iter().max().unwrap_or_default()));

    let mut captured = job("say");
    captured["capture_output"] = json!(true);
    let id = site.check("capture", captured, "complete", json!({ "succeeded": both }));
    for (channel, text) in [("stdout", "to-stdout\n"), ("stderr", "to-stderr\n")] {
        let (status, body) = site.call("GET", &format!("jobs/{id}/output/two/{channel}"), "");
        assert_eq!((status, String::from_utf8_lossy(&body).as_ref()), (200, text), "{channel}");
    }

    let mut options = job("options");
    let file = "base64:".to_owned() + "aW4tdGhlLWZpbGU=";
    options["env"] = json!({ "COLOUR": "red" });
    options["dir"] = json!("/usr");
    options["file"] = json!(file);
    let id = site.check("env, dir and file", options, "complete", json!({ "succeeded": both }));
    for name in ["one", "two"] {
        let wrote = fs::read_to_string(site.path("ran").join(format!("{name}.options"))).expect("it has run");
        assert_eq!(wrote, format!("red /usr in-the-file {name} {id}\n"));
    }

    let began = Instant::now();
    site.client("ours", true, &[]);
    site.available(&["ours"], began, SECOND * 10);
    let all = json!(["one", "two", "ours"]);
    let together = |command: &str| json!({ "command": command, "nodes": all });
    site.check("originals and ours together", together("succeed"), "complete", json!({ "succeeded": all }));
    site.check("originals and ours together", together("fail"), "complete", json!({ "failed": all }));
}

#[test]
fn c_originals_carry_on_over_a_restart() {
    let Some(lab) = lab() else { return };
    for interval in [DEFAULT, QUICK] {
        let mut site = two_originals(&lab, interval);
        let id = site.start_job(&json!({ "command": "eight", "nodes": ["one"] }));
        site.job(&id, SECOND * 10, |job| job["nodes"] == json!({ "running": ["one"] }));
        let fetches = site.fetches();

        let ready = site.outage(SECOND * 5 / 2);
        let job = site.job(&id, SECOND * 20, has_ended);
        assert_eq!((&job["status"], &job["nodes"]), (&json!("complete"), &json!({ "succeeded": ["one"] })));
        found(
            "the job that ran meanwhile",
            format_args!("succeeded, {} after the return", seconds(ready.elapsed())),
        );
        let ran = fs::read_to_string(site.path("ran").join("one.eight")).expect("it has run");
        assert_eq!(ran, format!("{id}\n"), "started once");

        // Whoever wanted another configuration would have asked by now: a changed server is noticed at its first
        // heartbeat, a silent channel after 4 s.
        std::thread::sleep((SECOND * (interval + 6)).saturating_sub(ready.elapsed()));
        site.available(&["one", "two"], ready, SECOND);
        let both = json!(["one", "two"]);
        let done = json!({ "succeeded": both });
        site.check("a job after that", json!({ "command": "succeed", "nodes": both }), "complete", done);
        assert_eq!(site.fetches(), fetches, "nobody fetches its configuration again");
        let after = seconds(ready.elapsed());
        found(
            "fetches of the configuration since the return",
            format_args!("0 in {after}, heartbeats every {interval} s"),
        );
    }
}

#[test]
fn d_originals_carry_on_over_an_outage() {
    let Some(lab) = lab() else { return };
    if std::env::var_os("PUSHY_LAB_LONG").is_none() {
        println!("lab: skipped: an outage of 60 s takes minutes; script/lab --long");
        return;
    }
    let lab = lab.as_path();
    std::thread::scope(|both| {
        for interval in [DEFAULT, QUICK] {
            both.spawn(move || outage_of_a_minute(lab, interval));
        }
    });
}

/// Some nodes idle; some run a job that ends after the server's return, and some one that ends before.
fn outage_of_a_minute(lab: &Path, interval: u32) {
    let every = format!("heartbeats every {interval} s");
    let mut site = two_originals(lab, interval);
    site.client("busy", false, &[("long", "sleep 80")]);
    site.client("failing", false, &[("long", "sleep 80; exit 7")]);
    site.client("early", false, &[("short", "sleep 30; exit 7")]);
    site.client("ours", true, &[]);
    site.client("ours-busy", true, &[("long", "sleep 80")]);
    site.client("ours-early", true, &[("short", "sleep 30; exit 7")]);
    let idle = ["one", "two", "ours"];
    let long = ["busy", "failing", "ours-busy"];
    site.available(&long, Instant::now(), SECOND * 20);
    site.available(&["early", "ours-early", "ours"], Instant::now(), SECOND * 20);
    let mut jobs = BTreeMap::new();
    for (command, nodes) in [("long", &long[..]), ("short", &["ours-early"]), ("short", &["early"])] {
        let id = site.start_job(&json!({ "command": command, "nodes": nodes }));
        site.job(&id, SECOND * 10, |job| job["nodes"] == json!({ "running": nodes }));
        jobs.insert(nodes, id);
    }

    let ready = site.outage(SECOND * 60);
    // What a server remembers of its nodes is no proof: each idle one does a job as soon as it is called available.
    let mut asked = BTreeMap::new();
    let mut ended = BTreeMap::new();
    until("every job to end", SECOND * (150 + 2 * interval), || {
        for name in idle {
            if !asked.contains_key(name) && site.is_available(name) {
                asked.insert(name, ready.elapsed());
                let list =
                    idle.iter().position(|n| *n == name).map(|at| &idle[at..=at]).expect("it is listed");
                jobs.insert(list, site.start_job(&json!({ "command": "succeed", "nodes": list })));
            }
        }
        for (nodes, id) in &jobs {
            if !ended.contains_key(nodes) {
                let job = site.get(&format!("jobs/{id}"));
                if has_ended(&job) {
                    ended.insert(*nodes, (job, ready.elapsed()));
                }
            }
        }
        std::thread::sleep(SECOND / 20);
        (ended.len() == 6).then_some(())
    });
    for name in idle {
        let (job, _) = &ended[&[name][..]];
        assert_eq!(job["nodes"], json!({ "succeeded": [name] }), "{name} was called available");
        found(&format!("idle {name} available again, {every}"), seconds(asked[name]));
        let limit = if name == "ours" { SECOND * (interval + 5) } else { SECOND * 130 };
        assert!(asked[name] < limit, "{name} is back within {limit:?}");
    }
    let real = json!({ "succeeded": ["busy", "ours-busy"], "failed": ["failing"] });
    for (nodes, expected) in [(&long[..], &real), (&["ours-early"], &json!({ "failed": ["ours-early"] }))] {
        let (job, time) = &ended[nodes];
        assert_eq!((&job["status"], &job["nodes"]), (&json!("complete"), expected));
        let what = if nodes == long { "the job that ran meanwhile" } else { "the job that ended meanwhile" };
        found(&format!("{what}, {every}"), format_args!("{expected}, {} after the return", seconds(*time)));
    }
    // An original says a result once and forgets it. Once it has missed more than three of the server's heartbeats it closes its
    // sockets, LINGER 0, and with them what waits in their queue (SNDHWM 3, which heartbeats fill before). So what ends
    // sooner, as here with heartbeats every 10 s, never leaves the host: no server can learn it, however long it
    // waits, for the client comes back idle and names no job; two intervals of that are `crashed` (D-25). What
    // ends later, as here with heartbeats every 2 s, is the first message in the new socket's queue and arrives.
    let (job, time) = &ended[&["early"][..]];
    let how = if interval == DEFAULT { "crashed" } else { "failed" };
    assert_eq!(job["nodes"], json!({ how: ["early"] }), "what ended meanwhile on an original, {every}");
    found(
        &format!("the same on an original, {every}"),
        format_args!("{}, {} after the return", job["nodes"], seconds(*time)),
    );
    let all = ["busy", "failing", "early", "ours-busy", "ours-early"];
    let times = site.available(&all, ready, SECOND * 130);
    found(
        &format!("all others available at the latest, {every}"),
        seconds(times.into_iter().max().unwrap_or_default()),
    );
}

#[test]
fn e_original_knife_push_starts_lists_and_shows_jobs() {
    let Some(lab) = lab() else { return };
    check_version(&lab, "knife", &["knife", "--version"], "18.11.21");
    let plugin = "puts Knife::Push::VERSION";
    check_version(&lab, "knife-push", &["ruby", "-r", "knife-push/version", "-e", plugin], "2.0.1");
    let site = two_originals(&lab, QUICK);
    let config = site.path("server/admin/.chef/config.rb");
    let knife = |args: &[&str]| {
        let mut command = original(&lab, "knife");
        let ran = command.args(args).arg("-c").arg(&config).output().expect("knife starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let check = |args: &[&str], code: i32, parts: &[&str]| {
        let began = Instant::now();
        let (status, out, err) = knife(args);
        assert_eq!(status, Some(code), "knife {args:?}:\n{out}{err}");
        for part in parts {
            assert!(out.contains(part), "knife {args:?} says {part:?}:\n{out}{err}");
        }
        found(
            &format!("knife {}", args.join(" ")),
            format_args!("exit {code} in {}", seconds(began.elapsed())),
        );
        for line in out.lines() {
            println!("lab:     {line}");
        }
        out
    };
    check(&["node", "status"], 0, &["one\tavailable\ntwo\tavailable\n"]);
    let nodes = "nodes:\n  succeeded:\n    one\n    two\n";
    // The empty "env:" tells the original from ours.
    let parts = ["Started.  Job ID: ", "Complete.\n", "\nenv:\n", nodes, "status:      complete\n"];
    let id = job_id(&check(&["job", "start", "succeed", "one", "two"], 0, &parts));
    let listed = check(&["job", "list"], 0, &[&id, "succeed"]);
    check(&["job", "status", &id], 0, &["command:     succeed\n", nodes, "status:      complete\n"]);
    let id = job_id(&check(&["job", "start", "--nowait", "eight", "one"], 0, &["Started.  Job ID: "]));
    assert!(!listed.contains(&id), "it is a new job");
    check(&["job", "status", &id], 0, &["  running: one\n", "status:      running\n"]);
    check(&["job", "start", "fail", "two"], 1, &["  failed: two\n", "status:      complete\n"]);
    check(&["job", "start", "not-listed", "two"], 1, &["  nacked: two\n", "status:      quorum_failed\n"]);
    let id = job_id(&check(&["job", "start", "--capture", "say", "two"], 0, &["  succeeded: two\n"]));
    check(&["job", "output", &id, "two"], 0, &["to-stdout\n"]);
    check(&["job", "output", &id, "two", "--channel", "stderr"], 0, &["to-stderr\n"]);
}

/// The id of the job that knife has started.
fn job_id(said: &str) -> String {
    let id = said.split("Job ID: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    id.expect("the job's id").to_owned()
}
