//! A home directory with a configuration, a server that answers as told, and the program run between them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::TempDir;

/// A request as it came in: `GET /path`, body.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) body: String,
}

/// Status and body of an answer.
pub(crate) type Answer = (u16, String);

/// The status of an answer that is an event feed.
pub(crate) const FEED: u16 = 2000;

type Handler = dyn Fn(&Received) -> Answer + Send + Sync;

pub(crate) struct Lab {
    home: TempDir,
    port: u16,
    log: Arc<Mutex<Vec<Received>>>,
}

/// What the program said and how it ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Lab {
    /// A server with this behaviour, and `~/.chef/credentials` that lead to it.
    pub(crate) fn new(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Lab {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, shared): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &*handler, &log));
            }
        });
        let lab = Lab { home: TempDir::new().unwrap(), port, log };
        lab.write(".chef/credentials", lab.credentials("alice.pem"));
        lab.write(".chef/alice.pem", pem());
        lab
    }

    /// The default profile with this key.
    pub(crate) fn credentials(&self, key: &str) -> String {
        format!(
            "[default]\nclient_name = \"alice\"\nclient_key = \"{key}\"\nchef_server_url = \"{}\"\n",
            self.url()
        )
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/organizations/acme", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }

    /// The program, in the home directory, with an environment of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushy"));
        command.args(args).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        ran(child.wait_with_output().unwrap())
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

/// One key for all tests: making one takes longer than any of them.
fn pem() -> &'static [u8] {
    static PEM: OnceLock<Vec<u8>> = OnceLock::new();
    PEM.get_or_init(|| openssl::rsa::Rsa::generate(2048).unwrap().private_key_to_pem().unwrap())
}

fn serve(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Received>>) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        let mut signed = false;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            signed |= line == "x-ops-userid: alice";
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let line = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let received = Received { line, body: String::from_utf8(body).unwrap() };
        log.lock().unwrap().push(received.clone());
        let (status, body) =
            if signed { handler(&received) } else { (401, r#"{"error":["unsigned"]}"#.to_owned()) };
        let (status, kind) =
            if status == FEED { (200, "text/event-stream") } else { (status, "application/json") };
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
