//! The rules of ARCHITECTURE.md that a compiler does not check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

/// Every file git knows or would add, as paths from the root.
fn files() -> Vec<String> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let list = String::from_utf8(out.stdout).expect("paths are UTF-8");
    list.lines().filter(|p| root().join(p).is_file()).map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    String::from_utf8_lossy(&fs::read(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}")))
        .into_owned()
}

fn with_ending<'a>(files: &'a [String], ending: &str) -> Vec<&'a String> {
    files.iter().filter(|p| p.ends_with(ending)).collect()
}

/// Collects what breaks a rule and fails with all of it at once.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, ok: bool, finding: impl FnOnce() -> String) {
        if !ok {
            self.0.push(finding());
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "\n  {}\n", self.0.join("\n  "));
    }
}

#[test]
fn every_rust_file_says_what_it_is_for_and_stays_short() {
    let mut findings = Findings::default();
    let files = files();
    for path in with_ending(&files, ".rs") {
        let text = read(path);
        let first = text.lines().find(|l| !l.starts_with("#!")).unwrap_or_default();
        findings.check(first.starts_with("//!"), || format!("{path}: begins without a //! line"));
        let lines = text.lines().count();
        findings.check(lines <= 600, || format!("{path}: {lines} lines, at most 600"));
        if path.ends_with("/driver.rs") {
            findings.check(lines <= 400, || format!("{path}: {lines} lines, a driver has at most 400"));
        }
    }
    findings.none();
}

#[test]
fn nothing_is_left_unfinished() {
    // Spelled in two parts so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
        concat!("dbg", "!("),
        concat!("allow(dead", "_code"),
    ];
    let mut findings = Findings::default();
    let files = files();
    for ending in [".rs", ".rb", ".py", ".sh", ".toml"] {
        for path in with_ending(&files, ending) {
            for (number, line) in read(path).lines().enumerate() {
                for mark in marks {
                    findings.check(!line.contains(mark), || format!("{path}:{}: {mark}", number + 1));
                }
            }
        }
    }
    findings.none();
}

#[test]
fn unsafe_stays_where_the_architecture_allows_it() {
    let allowed = ["pushy-agent/src/process/", "ruby/ext/pushy/src/gvl.rs", "tests/alloc/", "tests/tidy.rs"];
    let mut findings = Findings::default();
    let files = files();
    for path in with_ending(&files, ".rs") {
        if allowed.iter().any(|a| path.starts_with(a)) {
            continue;
        }
        for (number, line) in read(path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let found =
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|u| code.contains(u));
            findings.check(!found, || format!("{path}:{}: unsafe code", number + 1));
        }
    }
    for lib in ["pushy-core/src/lib.rs", "pushy-server/src/lib.rs"] {
        findings.check(read(lib).contains("#![forbid(unsafe_code)]"), || {
            format!("{lib}: does not forbid unsafe code")
        });
    }
    findings.none();
}

#[test]
fn layers_keep_their_distance() {
    let mut findings = Findings::default();
    let agent = read("pushy-agent/Cargo.toml");
    for banned in ["axum", "hyper", "rusqlite", "postgres"] {
        findings.check(!agent.contains(banned), || format!("pushy-agent/Cargo.toml: depends on {banned}"));
    }
    // Signing and header building exist once, in the core.
    for manifest in ["pushy-server/Cargo.toml", "pushy-agent/Cargo.toml", "pushy-cli/Cargo.toml"] {
        for banned in
            ["hmac", "\nrsa", "sha1", "sha2", "fancy-regex", "ruby-prism", "x25519", "crypto_secretbox"]
        {
            findings.check(!read(manifest).contains(banned), || {
                format!("{manifest}: depends on {}", banned.trim())
            });
        }
    }
    let files = files();
    for path in with_ending(&files, ".rs") {
        let text = read(path);
        let outside = ["pushy-server/src/", "pushy-agent/src/", "pushy-cli/src/", "ruby/ext/"];
        if outside.iter().any(|o| path.starts_with(o)) {
            for banned in ["openssl::sign", "openssl::hash", "private_encrypt", "X-Ops-Authorization"] {
                findings.check(!text.contains(banned), || format!("{path}: {banned} belongs to pushy-core"));
            }
        }
        if path.starts_with("pushy-agent/src/") {
            findings.check(!text.contains("TcpListener"), || format!("{path}: the agent opens no port"));
        }
        if path.contains("src/broker/") || path.ends_with("src/channel.rs") {
            for banned in ["pushy_core::message", "JobId", "serde_json"] {
                findings.check(!text.contains(banned), || {
                    format!("{path}: moves frames, must not know {banned}")
                });
            }
        }
        if path.starts_with("pushy-server/src/api/") {
            for banned in ["rusqlite", "TcpStream"] {
                findings.check(!text.contains(banned), || format!("{path}: must not use {banned}"));
            }
        }
        if path.starts_with("pushy-server/src/store/") {
            findings.check(!text.contains("JobStatus::Running =>"), || {
                format!("{path}: the store must not know the rules of statuses")
            });
        }
    }
    for path in files.iter().filter(|p| p.starts_with("ruby/knife-pushy/lib/")) {
        for banned in ["JSON.generate", "to_json", "JSON.parse", "quorum_failed", "timed_out"] {
            findings.check(!read(path).contains(banned), || {
                format!("{path}: {banned}: that is decided in the core")
            });
        }
    }
    findings.none();
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("../sha", "red"),
        concat!("crates-", "mirror"),
        concat!("session ", "limit"),
    ];
    let mut findings = Findings::default();
    for path in files() {
        if path.ends_with(".json") || path.ends_with(".lock") {
            continue;
        }
        let text = read(&path);
        for word in words {
            findings.check(!text.contains(word), || format!("{path}: mentions {word}"));
        }
    }
    findings.none();
}

/// Words between backticks that look like a path of this repository.
fn paths_named_in(text: &str) -> Vec<String> {
    let tops = ["pushy-", "ruby/", "tests/", "script/", "docs/", ".ci/", "fuzz/", "include/", "examples/"];
    text.split('`')
        .skip(1)
        .step_by(2)
        .flat_map(|code| code.split_whitespace().next())
        .filter(|word| word.contains('/') && tops.iter().any(|t| word.starts_with(t)))
        .filter(|word| !word.contains(['{', '*', '<', '…']))
        .map(|word| word.trim_end_matches([',', '.', ';', ':']).to_owned())
        .collect()
}

#[test]
fn documents_name_files_that_exist() {
    let mut findings = Findings::default();
    let files = files();
    for doc in with_ending(&files, ".md") {
        let text = read(doc);
        for path in paths_named_in(&text) {
            findings.check(root().join(&path).exists(), || format!("{doc}: `{path}` does not exist"));
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let base = root().join(doc);
            let found = base.parent().is_some_and(|dir| dir.join(target).exists());
            findings.check(found, || format!("{doc}: link to {target}, which does not exist"));
        }
    }
    findings.none();
}

#[test]
fn scripts_are_executable_and_say_what_they_do() {
    use std::os::unix::fs::PermissionsExt;
    let mut findings = Findings::default();
    for path in files().iter().filter(|p| p.starts_with("script/") || *p == ".ci/run") {
        let mode = fs::metadata(root().join(path)).expect("it was listed").permissions().mode();
        findings.check(mode & 0o111 != 0, || format!("{path}: is not executable"));
        let text = read(path);
        findings.check(text.starts_with("#!"), || format!("{path}: no #! line"));
        findings.check(text.lines().nth(1).is_some_and(|l| l.starts_with('#')), || {
            format!("{path}: does not say what it does")
        });
        if text.starts_with("#!/usr/bin/env bash") {
            findings.check(text.contains("set -euo pipefail"), || format!("{path}: does not stop at errors"));
        }
    }
    findings.none();
}
