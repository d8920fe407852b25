//! Child processes with their output kept, and waiting for an event with a deadline.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The folder with our programs, built if need be. `PUSHY_BIN_DIR` names another one.
pub fn bin_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("PUSHY_BIN_DIR") {
            return PathBuf::from(dir);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "pushy-server", "-p", "pushy-agent", "-p", "pushy-cli"])
            .current_dir(root)
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the programs do not build");
        // .../target/debug/deps/TEST-hash → .../target/debug
        let exe = std::env::current_exe().expect("the test has a path");
        exe.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps").to_path_buf()
    })
}

/// Asks `question` every few milliseconds until it answers, at most for `limit`.
///
/// # Panics
/// When the limit passes; the message says `what` was waited for.
pub fn until<T>(what: &str, limit: Duration, mut question: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process we started; ended with KILL on drop if it still runs.
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    /// Starts `command` with standard output and error in the file `log`.
    ///
    /// # Errors
    /// When the file or the process cannot be made.
    pub fn start(name: &str, log: &Path, command: &mut Command) -> io::Result<Process> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Process { child, log: log.to_path_buf(), name: name.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    pub fn output(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.nix_pid(), signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends and answers its exit code; `None` after a signal.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let what = format!("{} to end", self.name);
        until(&what, limit, || self.child.try_wait().ok().flatten()).code()
    }

    /// TERM, then waits.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait(Duration::from_secs(10))
    }

    /// KILL, then waits.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(10));
    }

    /// The newest value of a field of `/proc/PID/status` in kB, e.g. `VmRSS`.
    pub fn memory_kb(&self, field: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} printed:\n{}", self.name, self.output());
        }
    }
}
