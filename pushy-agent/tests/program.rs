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
