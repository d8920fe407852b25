//! A push server in this process in front of some Chef server, and people who sign requests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clap::Parser as _;
use pushy_core::auth::SigningKey;
use pushy_server::Listeners;
use pushy_server::cli::Cli;
use pushy_server::config::Config;
use pushy_tests::http::Http;
use serde_json::Value;
use tokio::sync::oneshot;

/// Key pairs are dear: all tests share these. Private and public, PEM.
static KEYS: LazyLock<Vec<(String, String)>> =
    LazyLock::new(|| (0..4).map(|_| pushy_server::keys::new_rsa_pair().expect("a key pair")).collect());

/// The public half of a shared pair.
pub(crate) fn public(number: usize) -> &'static str {
    &KEYS[number].1
}

/// The private half.
pub(crate) fn private(number: usize) -> &'static str {
    &KEYS[number].0
}

/// Somebody who signs.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) key: Arc<SigningKey>,
}

/// Somebody with a shared key pair.
pub(crate) fn actor(name: &str, number: usize) -> Actor {
    actor_with(name, &KEYS[number].0)
}

/// Somebody with this private key.
pub(crate) fn actor_with(name: &str, private: &str) -> Actor {
    Actor { name: name.into(), key: Arc::new(SigningKey::from_pem(private).expect("a private key")) }
}

/// An empty folder for a server and what belongs to it.
pub(crate) struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder { root: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `pushy-server init` in front of a Chef server with these arguments, ports chosen at the start.
    pub(crate) fn init(&self, chef: &[&str]) -> PathBuf {
        let dir = self.path("D");
        let any = "127.0.0.1:0";
        let ports = ["--api-listen", any, "--heartbeat-listen", any, "--command-listen", any];
        let dir_text = dir.to_str().expect("UTF-8");
        cli(&[&["init", dir_text, "--heartbeat-interval", "0.2"], &ports[..], chef].concat()).expect("init");
        dir
    }
}

/// `pushy-server ARGS` in this process.
pub(crate) fn cli(args: &[&str]) -> Result<String, String> {
    let args = std::iter::once("pushy-server").chain(args.iter().copied());
    let cli = Cli::try_parse_from(args).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(cli.execute(&mut out)).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

/// A running push server; stops when dropped.
pub(crate) struct Server {
    pub(crate) about: Value,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<pushy_core::Result<()>>>,
}

impl Server {
    /// Starts the server of a directory.
    pub(crate) fn start(dir: &Path) -> Server {
        let config = Config::load(dir).expect("the settings");
        let listeners = Listeners::bind(&config).expect("free ports");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
            runtime.block_on(pushy_server::run(
                config,
                listeners,
                move |about| drop(ready.send(about.clone())),
                async { drop(stopped.await) },
            ))
        });
        match is_ready.recv_timeout(Duration::from_secs(20)) {
            Ok(about) => Server { about, stop: Some(stop), thread: Some(thread) },
            Err(_) => panic!("the server did not start: {:?}", thread.join()),
        }
    }

    /// Host and port of the REST API.
    pub(crate) fn host(&self) -> &str {
        self.about["api"].as_str().expect("an address")
    }

    /// One signed request; status and body. `~/` stands for the organization `acme`.
    pub(crate) fn call(&self, who: &Actor, method: &str, path: &str, body: &str) -> (u16, String) {
        let path = match path.strip_prefix("~/") {
            Some(rest) => format!("/organizations/acme/pushy/{rest}"),
            None => path.to_owned(),
        };
        let answer = Http::new(self.host()).call((&who.name, &who.key), method, &path, body);
        let (status, body) = answer.expect("an answer");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    pub(crate) fn get(&self, who: &Actor, path: &str) -> (u16, String) {
        self.call(who, "GET", path, "")
    }

    /// The status alone.
    pub(crate) fn status(&self, who: &Actor, path: &str) -> u16 {
        self.get(who, path).0
    }

    /// The status of a request for a job.
    pub(crate) fn post(&self, who: &Actor) -> u16 {
        self.call(who, "POST", "~/jobs", r#"{"command":"x","nodes":["n"]}"#).0
    }

    #[track_caller]
    pub(crate) fn check(&self, who: &Actor, path: &str, status: u16, error: &str) {
        let found = self.get(who, path);
        assert_eq!(found, (status, serde_json::json!({ "error": [error] }).to_string()), "{who:?} {path}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no panic").expect("a clean stop");
        }
    }
}

/// The path of a node's configuration with some key.
pub(crate) fn config_path(node: &str) -> String {
    let ccpk = "1234567890".repeat(4);
    format!("~/config/{node}?ccpk={ccpk}")
}
