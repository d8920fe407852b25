//! A server to test, requests to it, and people who sign them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clap::Parser;
use pushy_core::auth::SigningKey;
use pushy_server::Listeners;
use pushy_server::admin::{Command, NewKey, ask};
use pushy_server::cli::Cli;
use pushy_server::config::Config;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Nothing in these tests takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Key pairs are dear: all tests share these.
static KEYS: LazyLock<Vec<(String, String)>> =
    LazyLock::new(|| (0..4).map(|_| pushy_server::keys::new_rsa_pair().expect("a key pair")).collect());

pub(crate) use crate::draft::Actor;

/// A request to a lab's server.
pub(crate) type Call<'a> = crate::draft::Draft<'a, Lab>;

impl Actor {
    pub(crate) fn new(name: &str, private: &str) -> Actor {
        Actor { name: name.into(), key: Arc::new(SigningKey::from_pem(private).expect("a private key")) }
    }

    /// Somebody with the key pair of this number; see [`public_key`].
    pub(crate) fn numbered(name: &str, number: usize) -> Actor {
        Actor::new(name, &KEYS[number].0)
    }
}

/// The public half of a shared pair.
pub(crate) fn public_key(number: usize) -> String {
    KEYS[number].1.clone()
}

/// `pushy-server ARGS`, in this process; answers what it prints.
pub(crate) async fn cli(args: &[&str]) -> Result<String, String> {
    let args = std::iter::once("pushy-server").chain(args.iter().copied());
    let cli = Cli::try_parse_from(args).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    cli.execute(&mut out).await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

/// A directory made by `init`, with ports chosen at each start.
pub(crate) async fn made(settings: &str) -> tempfile::TempDir {
    made_with(&[], settings).await
}

/// As [`made`], with more arguments for `init`.
pub(crate) async fn made_with(more: &[&str], settings: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("D");
    let any = "127.0.0.1:0";
    let args = ["init", "--api-listen", any, "--heartbeat-listen", any, "--command-listen", any];
    cli(&[&args[..], more, &[arg(&dir)]].concat()).await.expect("init");
    let file = dir.join("server.toml");
    let text = std::fs::read_to_string(&file).expect("server.toml");
    std::fs::write(&file, text + "\n" + settings).expect("server.toml");
    root
}

fn admin(dir: &Path) -> Actor {
    let pem = std::fs::read_to_string(dir.join("admin/.chef/admin.pem")).expect("the key");
    Actor::new("admin", &pem)
}

/// A running server.
pub(crate) struct Lab {
    pub(crate) root: Option<tempfile::TempDir>,
    pub(crate) dir: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) about: Value,
    pub(crate) admin: Actor,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<pushy_core::Result<()>>>,
}

impl Lab {
    pub(crate) async fn start() -> Lab {
        Lab::start_with("heartbeat_interval = 0.5\nvoting_timeout = 2\n").await
    }

    pub(crate) async fn start_with(settings: &str) -> Lab {
        Lab::start_in(made(settings).await).await
    }

    pub(crate) async fn start_in(root: tempfile::TempDir) -> Lab {
        let dir = root.path().join("D");
        let config = Config::load(&dir).expect("the settings");
        let listeners = Listeners::bind(&config).expect("free ports");
        let address = listeners.api.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let task = tokio::spawn(pushy_server::run(
            config,
            listeners,
            move |about| drop(ready.send(about.clone())),
            async { drop(stopped.await) },
        ));
        let about = match tokio::time::timeout(DEADLINE, is_ready).await.expect("a start in time") {
            Ok(about) => about,
            Err(_) => panic!("the server did not start: {:?}", task.await),
        };
        let admin = admin(&dir);
        Lab { root: Some(root), dir, address, about, admin, stop: Some(stop), task: Some(task) }
    }

    /// A server that runs elsewhere.
    pub(crate) fn attach(dir: &Path) -> Lab {
        let text = std::fs::read_to_string(dir.join("run.json")).expect("run.json");
        let about: Value = serde_json::from_str(&text).expect("JSON");
        let address = about["api"].as_str().expect("an address").parse().expect("an address");
        Lab { root: None, dir: dir.to_owned(), address, about, admin: admin(dir), stop: None, task: None }
    }

    /// Stops the server; its directory can be started again.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        let task = self.task.as_mut().expect("a server of our own");
        let ended = tokio::time::timeout(DEADLINE, task).await.expect("a stop in time");
        ended.expect("no panic").expect("a clean stop");
        self.root.take().expect("taken once")
    }

    /// An operator's command through the socket.
    pub(crate) async fn operate(&self, command: Command) -> Result<Value, String> {
        match ask(&self.dir, &command).await {
            Ok(answer) => Ok(answer.expect("the server runs")),
            Err(e) => Err(e.to_string()),
        }
    }

    /// A member of the organization with a shared key.
    pub(crate) async fn user(&self, name: &str, number: usize) -> Actor {
        let user = NewKey { name: name.into(), public_key: public_key(number) };
        self.operate(Command::UserAdd { org: Some("acme".into()), user, admin: false })
            .await
            .expect("a user");
        Actor::numbered(name, number)
    }

    /// A node with a shared key.
    pub(crate) async fn node(&self, name: &str, number: usize) -> Actor {
        let nodes = vec![NewKey { name: name.into(), public_key: public_key(number) }];
        self.operate(Command::NodeAdd { org: Some("acme".into()), nodes }).await.expect("a node");
        Actor::numbered(name, number)
    }

    /// A group with members, by kind and name.
    pub(crate) async fn group(&self, group: &str, members: &[(&str, &str)]) {
        let org = Some("acme".to_owned());
        self.operate(Command::GroupAdd { org: org.clone(), group: group.into() }).await.expect("a group");
        for (kind, member) in members {
            let command = Command::GroupAddMember {
                org: org.clone(),
                group: group.into(),
                kind: Some((*kind).into()),
                member: (*member).into(),
            };
            self.operate(command).await.expect("a member");
        }
    }

    /// Sends bytes and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let exchange = async {
            let stream = TcpStream::connect(self.address).await.expect("a connection");
            let (mut from, mut to) = stream.into_split();
            let mut answer = Vec::new();
            // A server that has seen enough answers before it has read everything.
            let (_, _) = tokio::join!(to.write_all(bytes), from.read_to_end(&mut answer));
            answer
        };
        tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time")
    }

    pub(crate) fn call<'a>(&'a self, method: &'a str, path: &str) -> Call<'a> {
        let path = match path.strip_prefix("~/") {
            Some(rest) => format!("/organizations/acme/pushy/{rest}"),
            None => path.to_owned(),
        };
        Call::new(self, method, path)
    }

    /// A signed GET.
    pub(crate) async fn get(&self, actor: &Actor, path: &str) -> Answer {
        self.call("GET", path).by(actor).send().await
    }

    /// A signed POST of a job.
    pub(crate) async fn post(&self, actor: &Actor, body: &str) -> Answer {
        self.call("POST", "~/jobs").by(actor).json(body).send().await
    }

    /// Asks for a job until `good` says so.
    pub(crate) async fn job_until(&self, id: &str, good: impl Fn(&Value) -> bool) -> Value {
        self.until(&format!("~/jobs/{id}"), good).await
    }

    /// Asks for a node's state until `good` says so.
    pub(crate) async fn state_until(&self, node: &str, good: impl Fn(&Value) -> bool) -> Value {
        self.until(&format!("~/node_states/{node}"), good).await
    }

    async fn until(&self, path: &str, good: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            let found = self.get(&self.admin, path).await.json();
            if good(&found) {
                return found;
            }
            assert!(tokio::time::Instant::now() < end, "still {found}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A failing test must not leave a server behind.
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Call<'_> {
    /// Sends it on a connection of its own.
    pub(crate) async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// Sends it on a connection of its own and leaves the answer to be read.
    pub(crate) async fn start(self) -> TcpStream {
        let mut stream = TcpStream::connect(self.to.address).await.expect("a connection");
        stream.write_all(&self.request()).await.expect("sent");
        stream
    }

    /// What would be sent.
    pub(crate) fn request(self) -> Vec<u8> {
        let host = self.to.address.to_string();
        let (text, body) = self.bytes(&host);
        [text.as_bytes(), &body].concat()
    }

    /// The same, to a server that may go away: `None`.
    pub(crate) async fn try_send(self) -> Option<Answer> {
        let head = self.method == "HEAD";
        let address = self.to.address;
        let (text, body) = self.bytes(&address.to_string());
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.ok()?;
            stream.write_all(text.as_bytes()).await.ok()?;
            // A server that refuses a long body may close before it has read it.
            let _ = stream.write_all(&body).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            Answer::parse(&answer, head)
        };
        tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time")
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// `None` when the connection ended before the answer did.
    fn parse(bytes: &[u8], head: bool) -> Option<Answer> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let lines = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
        let mut lines = lines.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
        let headers = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        let answer = Answer {
            status: status.expect("a status"),
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        };
        let announced = answer.header("content-length").map_or(0, |l| l.parse().expect("a length"));
        (head || answer.body.len() >= announced).then_some(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Status and whole body, and that JSON says it is JSON.
    #[track_caller]
    pub(crate) fn check(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.text().as_str()), (status, body));
        assert_eq!(self.header("content-type"), Some("application/json"));
    }

    /// Status only.
    #[track_caller]
    pub(crate) fn check_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text());
    }

    /// The id in a 201.
    #[track_caller]
    pub(crate) fn job_id(&self) -> String {
        self.check_status(201);
        let uri = self.json()["uri"].as_str().expect("a uri").to_owned();
        uri[uri.len() - 32..].to_owned()
    }
}

/// The path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
