//! The program: its options that only print, its errors, its signals (7.9, 7.10).

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_push-jobs-client"))
}

fn output(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("it runs")
}

#[test]
fn what_only_prints_exits_with_success() {
    let version = output(&["-v"]);
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("Push Client: {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = output(&["--help"]);
    assert!(help.status.success());
    for option in
        ["--config", "--log_level", "--logfile", "--client_key", "--file_dir", "--allow_unencrypted"]
    {
        assert!(String::from_utf8_lossy(&help.stdout).contains(option), "{option}");
    }
}

#[test]
fn what_cannot_start_says_why_and_exits_with_1() {
    for (arguments, expected) in
        [(&["-c", "/no/such/file.rb"][..], "cannot read /no/such/file.rb"), (&["--nonsense"], "--nonsense")]
    {
        let done = output(arguments);
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&done.stderr).contains(expected), "{done:?}");
    }
}

/// A running agent whose server nobody answers for.
struct Agent {
    child: Child,
    lines: Receiver<String>,
    seen: String,
    dir: TempDir,
}

fn write_config(dir: &Path, whitelist: &str) {
    // Port 1 of this host: nobody listens, and the refusal comes at once.
    let text = format!(
        "chef_server_url 'http://127.0.0.1:1/organizations/acme'\nnode_name 'web1'\n\
         client_key File.join(__dir__, 'client.pem')\nstate_dir File.join(__dir__, 'state')\nwhitelist({whitelist})\n"
    );
    std::fs::write(dir.join("agent.rb"), text).expect("written");
}

impl Agent {
    fn start() -> Agent {
        let dir = tempfile::tempdir().expect("a directory");
        let key = openssl::rsa::Rsa::generate(2048).expect("a key");
        std::fs::write(dir.path().join("client.pem"), key.private_key_to_pem().expect("PEM"))
            .expect("written");
        write_config(dir.path(), "{ 'a' => 'true' }");
        let mut child = command()
            .args(["-c", &dir.path().join("agent.rb").display().to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut agent = Agent { child, lines, seen: String::new(), dir };
        agent.wait_for("starts");
        agent.wait_for("no usable configuration");
        agent
    }

    fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(text) {
                        return;
                    }
                }
                Err(_) => panic!("{text:?} never came after:\n{}", self.seen),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("it is there");
    }

    fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// D-47: the original dies with status 1.
#[test]
fn term_int_and_quit_end_it_with_success() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut agent = Agent::start();
        agent.signal(signal);
        assert_eq!(agent.exit_code(), Some(0), "{signal}");
        let mut stderr = String::new();
        agent.child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("read");
        assert_eq!(stderr, "", "{signal}");
    }
}

/// D-60.
#[test]
fn hup_and_usr1_read_the_file_again() {
    let mut agent = Agent::start();
    write_config(agent.dir.path(), "{ 'b' => 'true' }");
    agent.signal(Signal::SIGHUP);
    agent.wait_for("received HUP");
    agent.wait_for("the new configuration is in force");
    write_config(agent.dir.path(), "whitelist unfinished");
    agent.signal(Signal::SIGHUP);
    agent.wait_for("configuration not reloaded");
    write_config(agent.dir.path(), "{ 'c' => 'true' }");
    agent.signal(Signal::SIGUSR1);
    agent.wait_for("received USR1, reconfiguring");
    agent.wait_for("the new configuration is in force");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit_code(), Some(0));
}

#[test]
fn check_says_what_is_remarkable() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = openssl::rsa::Rsa::generate(2048).expect("a key");
    std::fs::write(dir.path().join("client.pem"), key.private_key_to_pem().expect("PEM")).expect("written");
    write_config(dir.path(), "{ /^say (.*)$/ => 'echo \\\\1' }");
    let done = output(&["-c", &dir.path().join("agent.rb").display().to_string(), "check"]);
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(
        text.contains("node web1, server http://127.0.0.1:1/organizations/acme, 1 whitelist entries"),
        "{text}"
    );
    assert!(text.contains("shell characters"), "{text}");
}

/// Every way of changing a file is noticed; what is broken changes nothing.
#[test]
fn a_changed_whitelist_is_taken_over_without_being_told() {
    let mut agent = Agent::start();
    let dir = agent.dir.path().to_owned();
    // In place.
    write_config(&dir, "{ 'a' => 'true', 'b' => 'true' }");
    agent.wait_for("the whitelist has changed: 2 entries, 0 drop-in files");
    agent.wait_for("the new configuration is in force");
    // By renaming, as cookbooks and editors do.
    std::fs::write(
        dir.join("new"),
        std::fs::read_to_string(dir.join("agent.rb")).expect("read") + "kill_grace 7\n",
    )
    .expect("written");
    let text = std::fs::read_to_string(dir.join("new")).expect("read").replace("'b'", "'b' => 'x', 'c'");
    std::fs::write(dir.join("new"), text).expect("written");
    std::fs::rename(dir.join("new"), dir.join("agent.rb")).expect("renamed");
    agent.wait_for("start the agent again for what has changed besides: kill_grace");
    agent.wait_for("the whitelist has changed: 3 entries, 0 drop-in files");
    // A drop-in directory that comes later, with a file that replaces an entry.
    let folder = dir.join("push-jobs-client.d");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(folder.join("10.rb"), "whitelist({ 'd' => 'true',\n  'a' => 'false' })").expect("written");
    agent.wait_for("10.rb:2 counts, not the one of");
    agent.wait_for("the whitelist has changed: 4 entries, 1 drop-in files");
    // Broken: file, line, why.
    std::fs::write(folder.join("20.rb"), "whitelist({\n  'e' => 1 })").expect("written");
    agent.wait_for("the whitelist stays as it is");
    assert!(agent.seen.contains("20.rb:2: whitelist entry \"e\": the value is a number"), "{}", agent.seen);
    std::fs::remove_file(folder.join("20.rb")).expect("removed");
    agent.wait_for("can be read again and say what they said");
    // Removed, the file and then the folder.
    std::fs::remove_file(folder.join("10.rb")).expect("removed");
    agent.wait_for("the whitelist has changed: 3 entries, 0 drop-in files");
    std::fs::remove_dir(&folder).expect("removed");
    std::fs::create_dir(&folder).expect("made again");
    std::fs::write(folder.join("30.rb"), "whitelist 'f' => 'true'").expect("written");
    agent.wait_for("the whitelist has changed: 4 entries, 1 drop-in files");
    // A link that is pointed elsewhere, as where files are mounted from a store.
    std::fs::create_dir(dir.join("store")).expect("made");
    std::fs::write(dir.join("store/x.rb"), "whitelist({ 'g' => 'true', 'h' => 'true' })").expect("written");
    std::os::unix::fs::symlink(dir.join("store/x.rb"), folder.join("40.rb")).expect("linked");
    agent.wait_for("the whitelist has changed: 6 entries, 2 drop-in files");
    std::fs::write(dir.join("store/x.rb"), "whitelist({ 'g' => 'true' })").expect("written");
    agent.wait_for("the whitelist has changed: 5 entries, 2 drop-in files");
    // The main file goes: the old whitelist stays, and it is said once.
    std::fs::remove_file(dir.join("agent.rb")).expect("removed");
    agent.wait_for("the whitelist stays as it is: cannot read");
    write_config(&dir, "{ 'z' => 'true' }");
    agent.wait_for("the whitelist has changed: 3 entries, 2 drop-in files");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit_code(), Some(0));
}

#[test]
fn check_says_what_would_become_of_a_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("push-jobs-client.d");
    std::fs::create_dir(&folder).expect("made");
    // Neither key nor server is needed.
    write_config(
        dir.path(),
        "{\n  'a' => { command_line: 'echo $X', user: 'www', dir: '/srv', lock: '/run/a', env: { 'X' => 'secret' } },\n\
         \n  /say (.*)/ => 'echo \\\\1', 'never' => nil }",
    );
    std::fs::write(
        folder.join("10.rb"),
        "whitelist({\n'deploy' => { command_line: ['deploy', '{version}'], lock: true,\n\
         parameters: { version: { pattern: /[\\d.]+/ } } } })",
    )
    .expect("written");
    let config = dir.path().join("agent.rb").display().to_string();
    let drop_in = folder.join("10.rb").display().to_string();
    let check = |arguments: &[&str], status: i32, expected: &str| {
        let done = output(&[&["check", &config], arguments].concat());
        let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.status.code(), Some(status), "{arguments:?}: {done:?}");
        assert_eq!(stdout, expected, "{arguments:?}: {done:?}");
    };
    let entry = |line: &str, user: &str, place: &str, lock: &str| {
        format!("{line}\n  user:      {user}\n  directory: {place}\n  lock:      {lock}\n")
    };
    let own = "the job's, else the agent's own";
    check(
        &["a"],
        0,
        &format!(
            "allowed by whitelist entry \"a\" ({config}:6)\n{}  sets:      X\n",
            entry("  shell:     echo $X", "www", "/srv", "/run/a")
        ),
    );
    check(
        &["say it"],
        0,
        &format!(
            "allowed by whitelist entry /say (.*)/ ({config}:8)\n{}\
             notice: whitelist entry /say (.*)/: the pattern must match the whole command, not a part of it; \
             whitelist_match :anywhere gives the original's rule\n\
             notice: whitelist entry /say (.*)/: a caller may put shell characters into \\1; write quote: true or an \
             array as command_line, or narrow the pattern\n",
            entry("  arguments: \"echo\" \"it\"", own, own, "none")
        ),
    );
    check(
        &["deploy", "-p", "version=1.2"],
        0,
        &format!(
            "allowed by whitelist entry \"deploy\" ({drop_in}:2)\n{}",
            entry("  arguments: \"deploy\" \"1.2\"", own, own, "/var/chef/cache/chef-client-running.pid")
        ),
    );
    check(
        &["deploy"],
        1,
        &format!(
            "refused: whitelist entry \"deploy\" ({drop_in}:2): parameter version is missing; it must be text that \
             matches /[\\d.]+/\n"
        ),
    );
    check(&["never"], 1, &format!("refused: whitelist entry \"never\" ({config}:8) forbids it\n"));
    check(&["other"], 1, "refused: no whitelist entry answers to it\n");
    check(&["a", "-p", "nonsense"], 2, "");
    let done = output(&["-c", &config, "check", "-F", "json", "deploy", "-p", "version=1"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let document: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one document");
    assert_eq!(
        document,
        serde_json::json!({
            "command": "deploy", "allowed": true, "entry": "\"deploy\"", "file": drop_in, "line": 2,
            "runs": { "arguments": ["deploy", "1"] }, "user": null, "dir": null,
            "lock": "/var/chef/cache/chef-client-running.pid", "env": [], "notices": [],
        })
    );
    let done = output(&["check", &config, "-F", "json", "other"]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let document: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one document");
    assert_eq!(document["reason"]["code"], "not_whitelisted");
    std::fs::write(folder.join("10.rb"), "whitelist({ 'x' => 1 })").expect("written");
    check(&["a"], 2, "");
}
