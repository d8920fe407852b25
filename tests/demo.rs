//! The demo is no show: what it prints is compared with files that the commands themselves wrote (decision 29).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use pushy_tests::{bin_dir, until};

/// The scene of the README, line by line; `#` stands for a job's id, `@` for a date.
const SCENE: &str = "\
$ pushy node status
1-lb-intro\tavailable
1-tomcat-intro\tavailable
1-tomcat2-intro\tavailable
?
$ pushy job start tomcat6_restart 1-tomcat-intro 1-tomcat2-intro
Started.  Job ID: #
Running (1/2 in progress) ...
Complete.
command:     tomcat6_restart
created_at:  @
id:          #
nodes:
  succeeded:
    1-tomcat-intro
    1-tomcat2-intro
run_timeout: 3600
status:      complete
updated_at:  @
";

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn fits(line: &str, pattern: &str) -> bool {
    if let Some(start) = pattern.strip_suffix('#') {
        return line.strip_prefix(start).is_some_and(is_id);
    }
    if let Some(start) = pattern.strip_suffix('@') {
        return line
            .strip_prefix(start)
            .is_some_and(|d| pushy_core::time::Wall::parse_http_date(d).is_some());
    }
    line == pattern
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

#[test]
fn the_demo_runs_real_processes() {
    // The number of nodes is not the demo's to know.
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").subsec_nanos();
    let nodes = 1 + clock / 1000 % 5;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let demo = Command::new(root.join("script/demo"))
        .args(["--keep", "--nodes", &nodes.to_string(), "--dir"])
        .arg(dir.path())
        .env("PUSHY_BIN_DIR", bin_dir())
        .env_remove("CHEF_LAB")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .output()
        .expect("the demo starts");
    let said = text(&demo);
    assert!(demo.status.success(), "{}\n{said}", demo.status);

    // The scene, with this run's own nodes after the first three.
    let mut lines = said.lines().skip_while(|l| *l != "$ pushy node status").peekable();
    for pattern in SCENE.lines() {
        if pattern == "?" {
            let own = std::iter::from_fn(|| lines.next_if(|l| l.starts_with("node-"))).count();
            assert_eq!(own, nodes as usize, "{said}");
        } else {
            let line = lines.next().unwrap_or_default();
            assert!(fits(line, pattern), "{line:?} instead of {pattern:?} in\n{said}");
        }
    }

    // What the nodes say they may be told to run, without a Chef server.
    let mut found =
        said.lines().skip_while(|l| *l != "$ pushy search 'name:*tomcat*' -a push_jobs.whitelist");
    for wanted in [
        "2 items found",
        "1-tomcat-intro:",
        "    tomcat6_restart: ",
        "1-tomcat2-intro:",
        "    tomcat6_restart: ",
    ] {
        assert!(found.any(|l| l.starts_with(wanted)), "{wanted:?} is missing in\n{said}");
    }
    assert!(found.any(|l| l == "$ pushy job start tomcat6_restart --search 'name:*tomcat*'"), "{said}");

    // Who ran what, by the files of the nodes and by what was printed.
    let mut printed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut id = String::new();
    for line in said.lines() {
        if let Some(rest) = line.strip_prefix("Started.  Job ID: ") {
            id = rest.to_owned();
        } else if let Some(name) = line.strip_prefix("    ") {
            if !name.contains(':') {
                printed.entry(name.to_owned()).or_default().push(id.clone());
            }
        } else if let Some(name) = line.strip_prefix("  succeeded: ") {
            printed.entry(name.to_owned()).or_default().push(id.clone());
        }
    }
    assert_eq!(printed.len(), 2 + nodes as usize, "{said}");
    for (name, ids) in &printed {
        let written =
            fs::read_to_string(dir.path().join(format!("{name}.ran"))).expect("the command wrote a file");
        assert_eq!(written.lines().collect::<Vec<_>>(), *ids, "{name}");
    }
    assert!(!dir.path().join("1-lb-intro.ran").exists(), "a refused command ran");

    // Its processes, and one more job with nothing but its hints.
    let kill = said.lines().find_map(|l| l.trim().strip_prefix("kill ")).expect("the hint how to end it");
    let pids: Vec<u32> = kill.split(' ').map(|p| p.parse().expect("a process id")).collect();
    assert_eq!(pids.len(), 1 + 3 + nodes as usize);
    assert!(pids.iter().all(|p| running(*p)), "{pids:?}");
    let hint = said
        .lines()
        .find(|l| l.contains("job start tomcat6_restart") && l.starts_with("  "))
        .expect("a hint");
    let again = Command::new("sh").args(["-c", hint]).output().expect("the hint runs");
    assert!(again.status.success(), "{hint}: {}", text(&again));
    let id = text(&again).lines().find_map(|l| l.strip_prefix("Started.  Job ID: ").map(str::to_owned));
    let written =
        fs::read_to_string(dir.path().join("1-tomcat-intro.ran")).expect("the command wrote a file");
    assert_eq!(written.lines().last(), id.as_deref());

    assert!(Command::new("sh").args(["-c", &format!("kill {kill}")]).status().expect("kill runs").success());
    until("the demo's processes to end", Duration::from_secs(20), || {
        pids.iter().all(|p| !running(*p)).then_some(())
    });
}
