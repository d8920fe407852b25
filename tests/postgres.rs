//! A PostgreSQL of the tests' own: real processes on a Unix socket in a temporary directory, ended with the test.
//!
//! [`database`] makes an empty database and answers its URL, for `database = "…"` in `server.toml` or for
//! `pushy_server::store`. All databases of one process share one server; under `script/postgres COMMAND` (as
//! `script/test` does) all processes of the command share one. A test that stops, kills or configures PostgreSQL takes
//! a server for itself: [`Postgres::start`]. Both answer `None`, after one line that says so, when PostgreSQL is not
//! installed: the test is skipped then.
//!
//! ```ignore
//! let Some(database) = postgres::database() else { return };
//! let settings = format!("database = \"{}\"\n", database.url());
//!
//! let Some(mut postgres) = Postgres::start(&[]) else { return };
//! let database = postgres.database();
//! postgres.stop("KILL"); // INT: disconnects everybody and ends; QUIT: at once; KILL: a crash
//! postgres.start_again();
//! ```

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A running server for one test process or one test.
pub struct Postgres {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    url: String,
}

/// An empty database; removed on drop.
pub struct Database {
    server: String,
    name: String,
}

/// An empty database in the server that this process shares; `None` when PostgreSQL is not installed.
pub fn database() -> Option<Database> {
    static SHARED: OnceLock<Option<(String, Option<std::sync::Mutex<Postgres>>)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var("PUSHY_TEST_POSTGRES") {
        Ok(url) if !url.is_empty() => Some((url, None)),
        _ => Postgres::start(&[]).map(|own| (own.url.clone(), Some(std::sync::Mutex::new(own)))),
    });
    shared.as_ref().map(|(server, _)| Database::create(server))
}

impl Postgres {
    /// Starts a server for one test alone, with settings `name=value`; `None` when PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn start(settings: &[&str]) -> Option<Postgres> {
        let mut child = Command::new(script())
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script/postgres runs");
        let to = child.stdin.take();
        let mut from = BufReader::new(child.stdout.take().expect("a pipe"));
        let url = answer(&mut from, "ready ");
        match url {
            Some(url) => Some(Postgres { child, to, from, url }),
            None => {
                let status = child.wait().expect("script/postgres ends");
                assert_eq!(status.code(), Some(3), "script/postgres failed");
                eprintln!("skipped: PostgreSQL is not installed (script/bootstrap installs it)");
                None
            }
        }
    }

    /// An empty database in it.
    pub fn database(&self) -> Database {
        Database::create(&self.url)
    }

    /// Ends the server with `INT`, `QUIT` or `KILL` and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self, signal: &str) {
        self.tell(&format!("stop {signal}\n"), "stopped");
    }

    /// Starts it after [`Postgres::stop`], under the same URL.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        self.tell("start\n", "ready ");
    }

    fn tell(&mut self, line: &str, wanted: &str) {
        let to = self.to.as_mut().expect("open until the end");
        to.write_all(line.as_bytes()).expect("script/postgres listens");
        answer(&mut self.from, wanted).expect("script/postgres obeys");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The end of its input ends the script and everything it started; so does the end of this process.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

impl Database {
    fn create(server: &str) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        sql(server, &format!("CREATE DATABASE {name}"));
        Database { server: server.to_owned(), name }
    }

    /// Where it is: `postgres://pushy@/NAME?host=DIRECTORY`.
    pub fn url(&self) -> String {
        self.server.replace("/postgres?", &format!("/{}?", self.name))
    }

    /// Runs SQL text in it; answers what comes out, columns separated by `|`.
    ///
    /// # Panics
    /// When the text is refused.
    pub fn sql(&self, text: &str) -> String {
        sql(&self.url(), text)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be gone already; then so is the database.
        let _ =
            psql(&self.server).args(["-c", &format!("DROP DATABASE {} WITH (FORCE)", self.name)]).output();
    }
}

fn sql(url: &str, text: &str) -> String {
    let done = psql(url).args(["-v", "ON_ERROR_STOP=1", "-c", text]).output().expect("psql runs");
    assert!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn psql(url: &str) -> Command {
    let mut command = Command::new(std::env::var("PUSHY_TEST_PSQL").unwrap_or_else(|_| "psql".into()));
    command.args(["-X", "-q", "-A", "-t", "-d", url]).stdin(Stdio::null());
    command
}

/// The rest of the next line that begins with `wanted`; `None` at the end of the script's output.
fn answer(from: &mut BufReader<ChildStdout>, wanted: &str) -> Option<String> {
    let mut line = String::new();
    from.read_line(&mut line).expect("a pipe");
    line.trim_end().strip_prefix(wanted).map(str::to_owned)
}

fn script() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|dir| dir.join("script/postgres"))
        .find(|path| path.is_file())
        .expect("the script lies in the repository")
}
