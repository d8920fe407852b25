//! Runs the Python halves.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A Python program of this folder; killed when dropped.
pub(crate) struct Python {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stdin: Option<ChildStdin>,
}

/// A Python that has pyzmq: Debian's, if the one on the path has not.
fn interpreter() -> &'static str {
    let has_zmq = |python: &&str| {
        let probe = Command::new(python).args(["-c", "import zmq"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(has_zmq)
        .expect("pyzmq is needed for this test: script/bootstrap installs it (Debian: python3-zmq)")
}

impl Python {
    pub(crate) fn start(program: &str, args: &[String]) -> Python {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers").join(program);
        let mut child = Command::new(interpreter())
            .arg(path)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter answered just now");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let stdin = child.stdin.take();
        Python { child, lines, stdin }
    }

    /// The next line it prints.
    pub(crate) fn line(&mut self) -> String {
        self.lines
            .next()
            .expect("the peer ended without a word; see its error above")
            .expect("output is text")
    }

    /// Gives it a line to read.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it is open until the end");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("the peer listens");
    }

    /// Closes its input and waits for its end.
    pub(crate) fn finish(mut self) {
        self.stdin.take();
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "the peer ended with {status}");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
