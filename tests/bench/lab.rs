//! A server, a fleet and a user: what the benches are made of.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openssl::rsa::Rsa;
use pushy_core::auth::SigningKey;
use pushy_tests::http::Http;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::load::Sender;

/// A result with a text for people.
pub(crate) type Outcome<T> = Result<T, String>;

const PREFIX: &str = "fleet";

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A program that was built together with this one.
fn program(name: &str) -> Outcome<PathBuf> {
    let path = std::env::current_exe().map_err(text)?.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing: build it with `cargo build --release -p pushy-server -p pushy-tests`",
        path.display()
    ))
}

/// One job: how long it took and the CPU time of the server.
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
}

/// A child that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the fleet said last: open, subscribed, done, aborted.
type Said = Arc<Mutex<[usize; 4]>>;

pub(crate) struct Lab {
    dir: TempDir,
    nodes: usize,
    host: String,
    user: SigningKey,
    http: Http,
    server: Option<Running>,
    fleet: Option<Running>,
    said: Said,
}

impl Lab {
    /// A running server that knows this many nodes.
    pub(crate) fn start(nodes: usize, interval: f64) -> Outcome<Lab> {
        let dir = tempfile::tempdir().map_err(text)?;
        let server = program("pushy-server")?;
        let home = dir.path().join("server");
        let run = |command: &mut Command| match command.stdout(Stdio::null()).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{command:?} ended with {status}")),
            Err(error) => Err(text(error)),
        };
        run(Command::new(&server).arg("init").arg(&home).args([
            "--free-ports",
            "--heartbeat-interval",
            &interval.to_string(),
        ]))?;
        // So that REST leaves them the descriptors.
        let settings = home.join("server.toml");
        let text_so_far = fs::read_to_string(&settings).map_err(text)?;
        fs::write(&settings, format!("{text_so_far}\nmax_nodes = {nodes}\n")).map_err(text)?;
        let pair = Rsa::generate(2048).map_err(text)?;
        let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).map_err(text);
        write("key.pem", &pair.private_key_to_pem().map_err(text)?)?;
        write("public.pem", &pair.public_key_to_pem().map_err(text)?)?;
        let names: Vec<String> = (1..=nodes).map(|i| format!("{PREFIX}{i}")).collect();
        write("names", names.join("\n").as_bytes())?;
        run(Command::new(&server)
            .arg("-d")
            .arg(&home)
            .args(["node", "add", "--shared", "--public-key"])
            .arg(dir.path().join("public.pem"))
            .arg(format!("@{}", dir.path().join("names").display())))?;
        let config = fs::read_to_string(home.join("admin/.chef/config.rb")).map_err(text)?;
        let host = config
            .split_once("http://")
            .and_then(|(_, rest)| Some(rest.split_once('/')?.0.to_owned()))
            .ok_or("the administrator's configuration has no URL")?;
        let key = fs::read(home.join("admin/.chef/admin.pem")).map_err(text)?;
        let user = SigningKey::from_pem(key).map_err(text)?;
        let http = Http::new(&host);
        let mut lab = Lab { dir, nodes, host, user, http, server: None, fleet: None, said: Arc::default() };
        lab.start_server()?;
        Ok(lab)
    }

    /// Who signs, for requests of one's own.
    pub(crate) fn sender(&self) -> Sender<'_> {
        Sender { host: &self.host, user: "admin", key: &self.user }
    }

    /// Stops the fleet in its tracks, or lets it go on.
    pub(crate) fn hold_fleet(&self, hold: bool) -> Outcome<()> {
        let fleet = self.fleet.as_ref().ok_or("the fleet does not run")?;
        kill(pid(fleet)?, if hold { Signal::SIGSTOP } else { Signal::SIGCONT }).map_err(text)
    }

    /// Starts a job on the first nodes and does not wait; its id.
    pub(crate) fn start_job(&mut self, nodes: usize) -> Outcome<String> {
        let names: Vec<String> = (1..=nodes).map(|i| format!("{PREFIX}{i}")).collect();
        let body = json!({ "command": "chef-client", "nodes": names }).to_string();
        let answer = self.call("POST", "jobs", &body)?;
        answer["uri"]
            .as_str()
            .and_then(|uri| uri.rsplit('/').next())
            .map(str::to_owned)
            .ok_or("no uri".into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the server and waits until it says that it is ready.
    pub(crate) fn start_server(&mut self) -> Outcome<()> {
        let log = fs::File::create(self.path("server.log")).map_err(text)?;
        let mut child = Command::new(program("pushy-server")?)
            .arg("run")
            .arg(self.path("server"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(text)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        self.server = Some(Running(child));
        match lines.next() {
            Some(Ok(line)) if line.starts_with("ready") => Ok(()),
            _ => Err(fs::read_to_string(self.path("server.log")).unwrap_or_default()),
        }
    }

    /// Stops the server as an operator does and waits for its end.
    pub(crate) fn stop_server(&mut self) -> Outcome<()> {
        let mut server = self.server.take().ok_or("the server does not run")?;
        kill(pid(&server)?, Signal::SIGTERM).map_err(text)?;
        server.0.wait().map_err(text)?;
        Ok(())
    }

    /// Starts the fleet and waits until all its connections stand and all nodes are available.
    pub(crate) fn start_fleet(&mut self) -> Outcome<()> {
        let log = fs::File::create(self.path("fleet.log")).map_err(text)?;
        let mut child = Command::new(program("fleet")?)
            .args(["--url", &format!("http://{}", self.host), "--org", "acme", "--prefix", PREFIX])
            .args(["--nodes", &self.nodes.to_string(), "--key"])
            .arg(self.path("key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(text)?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        self.fleet = Some(Running(child));
        let said = Arc::clone(&self.said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
                if let [_, open, subscribed, done, aborted] = numbers[..] {
                    *said.lock().unwrap_or_else(PoisonError::into_inner) = [open, subscribed, done, aborted];
                }
            }
        });
        let nodes = self.nodes;
        let fetched = Duration::from_secs(60) + Duration::from_millis(20) * nodes as u32;
        self.wait("connections of the fleet", fetched, |said| said[0] == nodes && said[1] == nodes)?;
        self.wait_available(nodes, Duration::from_secs(120))
    }

    fn said(&self) -> [usize; 4] {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, what: &str, limit: Duration, done: impl Fn([usize; 4]) -> bool) -> Outcome<()> {
        let end = Instant::now() + limit;
        while !done(self.said()) {
            if Instant::now() > end {
                let log = fs::read_to_string(self.path("fleet.log")).unwrap_or_default();
                return Err(format!("no {what} within {limit:?}: {:?} {log}", self.said()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> Outcome<Value> {
        let path = format!("/organizations/acme/pushy/{path}");
        let (status, body) = self.http.call(("admin", &self.user), method, &path, body).map_err(text)?;
        if status / 100 != 2 {
            return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(text)
    }

    /// Waits until this many nodes are available.
    pub(crate) fn wait_available(&mut self, nodes: usize, limit: Duration) -> Outcome<()> {
        let end = Instant::now() + limit;
        loop {
            // While the server restarts the call fails.
            let available = self.call("GET", "node_states", "").map_or(0, |states| {
                states
                    .as_array()
                    .map_or(0, |all| all.iter().filter(|s| s["availability"] == "available").count())
            });
            if available == nodes {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("{available} of {nodes} nodes are available after {limit:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a job on the first nodes, with a file of this many bytes.
    pub(crate) fn job(&mut self, nodes: usize, file: Option<usize>) -> Outcome<Run> {
        let names: Vec<String> = (1..=nodes).map(|i| format!("{PREFIX}{i}")).collect();
        let mut job = json!({ "command": "chef-client", "nodes": names });
        if let Some(size) = file {
            job["file"] = Value::from(format!("raw:{}", "x".repeat(size)));
        }
        let body = job.to_string();
        let done = self.said()[2] + nodes;
        let (start, cpu) = (Instant::now(), self.cpu()?);
        let answer = self.call("POST", "jobs", &body)?;
        let id = answer["uri"].as_str().and_then(|uri| uri.rsplit('/').next()).ok_or("no uri")?.to_owned();
        // A GET of a large job costs more than a node: it is asked once the fleet has done its part.
        self.wait("end of the job", Duration::from_secs(120), |said| said[2] >= done)?;
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let view = self.call("GET", &format!("jobs/{id}"), "")?;
            let run = Run { seconds: start.elapsed().as_secs_f64(), cpu: self.cpu()? - cpu };
            match view["status"].as_str() {
                Some("complete")
                    if view["nodes"]["succeeded"].as_array().is_some_and(|n| n.len() == nodes) =>
                {
                    return Ok(run);
                }
                Some("voting" | "running") if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                status => return Err(format!("the job ended as {status:?}")),
            }
        }
    }

    fn server_dir(&self) -> Outcome<PathBuf> {
        let server = self.server.as_ref().ok_or("the server does not run")?;
        Ok(Path::new("/proc").join(server.0.id().to_string()))
    }

    /// CPU time of the server's threads so far, in seconds.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        let mut sum = 0.0;
        for task in fs::read_dir(self.server_dir()?.join("task")).map_err(text)? {
            let path = task.map_err(text)?.path().join("schedstat");
            // A thread may end while we look.
            let stat = fs::read_to_string(path).unwrap_or_default();
            sum += stat.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e9;
        }
        Ok(sum)
    }

    /// Resident memory of the server, in kB.
    pub(crate) fn rss(&self) -> Outcome<f64> {
        rss(&self.server_dir()?).ok_or_else(|| "the server has ended".into())
    }

    /// Watches the server's memory until asked.
    pub(crate) fn watch_rss(&self) -> Watch {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let dir = self.server_dir().unwrap_or_default();
        let (seen, ended) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                seen.fetch_max(rss(&dir).unwrap_or(0.0) as u64, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Watch { most, stop, thread }
    }
}

fn pid(running: &Running) -> Outcome<Pid> {
    i32::try_from(running.0.id()).map(Pid::from_raw).map_err(text)
}

fn rss(dir: &Path) -> Option<f64> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.trim().split(' ').next()?.parse().ok()
}

/// See [`Lab::watch_rss`].
pub(crate) struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Ends it; the most that was seen, in kB.
    pub(crate) fn most(self) -> f64 {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.join();
        self.most.load(Ordering::SeqCst) as f64
    }
}
