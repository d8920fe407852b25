//! A Chef Infra Server as far as a push server asks one (3.2, 12.17): organizations, principals, groups; real HTTP on a
//! loopback port.
//!
//! ```no_run
//! # let (alice_pem, web1_pem, dir) = ("", "", std::path::Path::new("."));
//! use pushy_tests::chef_stub::{ChefStub, Instead};
//! let chef = ChefStub::start();                              // ends when dropped
//! chef.add_org("acme");                                      // with a GUID of its own, and an empty group `admins`
//! chef.put_user("alice", &[alice_pem]);                      // public keys, PEM; several are several entries
//! chef.associate("acme", "alice");
//! chef.put_client("acme", "web1", &[web1_pem]);
//! chef.put_group("acme", "pushy_job_writers", &["alice"], &[], &["ops"]);
//! let settings: String = chef.settings(dir);                 // lines for server.toml; writes the signing key into `dir`
//! chef.instead("/organizations/acme/groups/", Instead::Status(503));     // trouble; `chef.no_more_instead()` ends it
//! assert_eq!(chef.count("/principals/"), 0);                 // how often it was asked
//! ```
//!
//! `settings` turns the caches off (`chef_principal_cache = 0`), so that a change is seen by the next request; a test of
//! the caches leaves those two lines out. Questions about organizations and groups must be signed by the
//! stub's own user, as with a real server; the user belongs to every organization.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pushy_core::auth::{Head, MAX_SKEW, PublicKey};
use serde_json::{Value, json};

/// Who the push server signs as.
pub const SIGNER: &str = "pushy";

/// Key pairs are dear: every stub of a process shares this one.
static SIGNER_KEYS: LazyLock<(String, String)> =
    LazyLock::new(|| pushy_server::keys::new_rsa_pair().expect("a key pair"));

/// What comes in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instead {
    /// This status with an error body as a Chef server writes it.
    Status(u16),
    /// This status and this body; no API version header.
    Raw(u16, String),
    /// This status and body, with an API version header of this `response_version`.
    Versioned(u16, String, &'static str),
    /// The right answer, so much later.
    After(Duration),
    /// Nothing, for as long as the stub lives.
    Silence,
    /// The end of the connection.
    Close,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The path as sent.
    pub path: String,
    /// `X-Ops-UserId`.
    pub user: String,
    /// `X-Ops-Server-API-Version`.
    pub api_version: String,
}

#[derive(Default)]
struct Group {
    users: Vec<String>,
    clients: Vec<String>,
    groups: Vec<String>,
}

#[derive(Default)]
struct Org {
    guid: String,
    users: BTreeSet<String>,
    clients: BTreeMap<String, Vec<String>>,
    groups: BTreeMap<String, Group>,
}

#[derive(Default)]
struct State {
    orgs: BTreeMap<String, Org>,
    users: BTreeMap<String, Vec<String>>,
    version_0: bool,
    instead: Vec<(String, Instead)>,
    seen: Vec<Seen>,
    open: Vec<TcpStream>,
}

/// The running stub.
pub struct ChefStub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

impl Default for ChefStub {
    fn default() -> ChefStub {
        ChefStub::start()
    }
}

impl ChefStub {
    /// Starts on a free port of the loopback address.
    ///
    /// # Panics
    /// When there is none.
    pub fn start() -> ChefStub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let mut stub = ChefStub { address, state: Arc::default(), stop, thread: None };
        stub.serve(listener);
        stub
    }

    fn serve(&mut self, listener: TcpListener) {
        let (state, stop) = (Arc::clone(&self.state), Arc::clone(&self.stop));
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(copy) = stream.try_clone() else { continue };
                lock(&state).open.push(copy);
                let state = Arc::clone(&state);
                // Ends with its connection.
                std::thread::spawn(move || drop(converse(&state, stream)));
            }
        }));
    }

    /// Goes away: connections end, new ones are refused.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept; that it was refused would be as good.
        drop(TcpStream::connect(self.address));
        drop(thread.join());
        for stream in lock(&self.state).open.drain(..) {
            // One that is closed already needs no closing.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Comes back on the same port with all it knew.
    ///
    /// # Panics
    /// When the port is taken.
    pub fn restart(&mut self) {
        self.stop();
        self.stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(self.address).expect("the port it had");
        self.serve(listener);
    }

    /// Its root.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lines of `server.toml` for a push server in front of it, whose caches are off. Writes the signing key to `chef.pem`
    /// in `dir`, the push server's directory.
    ///
    /// # Panics
    /// When the key cannot be written.
    pub fn settings(&self, dir: &Path) -> String {
        format!("{}chef_principal_cache = 0\nchef_group_cache = 0\n", self.settings_with_caches(dir))
    }

    /// The same with caches as they are by default.
    ///
    /// # Panics
    /// As [`ChefStub::settings`].
    pub fn settings_with_caches(&self, dir: &Path) -> String {
        std::fs::write(dir.join("chef.pem"), &SIGNER_KEYS.0).expect("a key file");
        let url = self.url();
        format!(
            "chef_server_url = \"{url}\"\nchef_client_name = \"{SIGNER}\"\nchef_client_key = \"chef.pem\"\n"
        )
    }

    /// A new organization; answers its GUID.
    pub fn add_org(&self, name: &str) -> String {
        let guid = pushy_core::ids::OrgId::generate(&mut rand_core::OsRng).to_string();
        let org = Org { guid: guid.clone(), ..Org::default() };
        lock(&self.state).orgs.insert(name.into(), org);
        self.put_group(name, "admins", &[], &[], &[]);
        guid
    }

    /// The organization goes away with all that is in it.
    pub fn remove_org(&self, name: &str) {
        lock(&self.state).orgs.remove(name);
    }

    fn org<T>(&self, name: &str, change: impl FnOnce(&mut Org) -> T) -> T {
        let mut state = lock(&self.state);
        change(state.orgs.get_mut(name).unwrap_or_else(|| panic!("no organization {name}")))
    }

    /// A user with these keys in place of any it had.
    pub fn put_user(&self, name: &str, public_keys: &[&str]) {
        lock(&self.state).users.insert(name.into(), texts(public_keys));
    }

    /// A user goes away, from every organization.
    pub fn remove_user(&self, name: &str) {
        let mut state = lock(&self.state);
        state.users.remove(name);
        for org in state.orgs.values_mut() {
            org.users.remove(name);
        }
    }

    /// A user joins an organization.
    pub fn associate(&self, org: &str, user: &str) {
        self.org(org, |org| org.users.insert(user.into()));
    }

    /// A user leaves an organization.
    pub fn dissociate(&self, org: &str, user: &str) {
        self.org(org, |org| org.users.remove(user));
    }

    /// A client with these keys in place of any it had.
    pub fn put_client(&self, org: &str, name: &str, public_keys: &[&str]) {
        self.org(org, |org| org.clients.insert(name.into(), texts(public_keys)));
    }

    /// A client goes away.
    pub fn remove_client(&self, org: &str, name: &str) {
        self.org(org, |org| org.clients.remove(name));
    }

    /// A group with these members in place of any it had.
    pub fn put_group(&self, org: &str, name: &str, users: &[&str], clients: &[&str], groups: &[&str]) {
        let group = Group { users: texts(users), clients: texts(clients), groups: texts(groups) };
        self.org(org, |org| org.groups.insert(name.into(), group));
    }

    /// A group goes away.
    pub fn remove_group(&self, org: &str, name: &str) {
        self.org(org, |org| org.groups.remove(name));
    }

    /// Answers about principals in version 0, one object, as old servers do, or in version 1, a list.
    pub fn answer_in_version_0(&self, yes: bool) {
        lock(&self.state).version_0 = yes;
    }

    /// What comes in place of answers to paths that begin so; the last word about a path counts.
    pub fn instead(&self, path: &str, instead: Instead) {
        lock(&self.state).instead.insert(0, (path.into(), instead));
    }

    /// Right answers again.
    pub fn no_more_instead(&self) {
        lock(&self.state).instead.clear();
    }

    /// Every question so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// How many questions had this in their path.
    pub fn count(&self, part: &str) -> usize {
        lock(&self.state).seen.iter().filter(|seen| seen.path.contains(part)).count()
    }
}

impl Drop for ChefStub {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An answer: status, body, the `response_version` of the header.
type Reply = (u16, String, Option<&'static str>);

/// Questions and answers on one connection.
fn converse(state: &Mutex<State>, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if lines.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
        let instead = {
            let mut state = lock(state);
            state.seen.push(Seen {
                path: path.clone(),
                user: header("x-ops-userid"),
                api_version: header("x-ops-server-api-version"),
            });
            let found = state.instead.iter().find(|(prefix, _)| path.starts_with(prefix.as_str()));
            found.map(|(_, instead)| instead.clone())
        };
        let (status, body, version) = match instead {
            None => answer(&lock(state), &path, &headers),
            Some(Instead::After(delay)) => {
                std::thread::sleep(delay);
                answer(&lock(state), &path, &headers)
            }
            Some(Instead::Status(status)) => (status, error("out of order"), Some("1")),
            Some(Instead::Raw(status, body)) => (status, body, None),
            Some(Instead::Versioned(status, body, version)) => (status, body, Some(version)),
            // Until the stub shuts the connection down.
            Some(Instead::Silence) => return lines.read_line(&mut String::new()).map(drop),
            Some(Instead::Close) => return stream.shutdown(Shutdown::Both),
        };
        let length = body.len();
        let mut text =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
        if let Some(version) = version {
            let versions = json!({ "min_version": "0", "max_version": "2",
                "request_version": header("x-ops-server-api-version"), "response_version": version });
            text.push_str(&format!("X-Ops-Server-API-Version: {versions}\r\n"));
        }
        stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
    }
}

fn error(text: &str) -> String {
    json!({ "error": [text] }).to_string()
}

fn answer(state: &State, path: &str, headers: &BTreeMap<String, String>) -> Reply {
    let plain = |status, body: Value| (status, body.to_string(), Some("1"));
    let missing = |text: String| (404, error(&text), Some("1"));
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    match segments[..] {
        // Open to anybody, as with the real one.
        ["organizations", org, "principals", name] => principals(state, org, &unescape(name)),
        ["organizations", org, ..] if !signed(path, headers) => {
            (401, error(&format!("Failed to authenticate as the signer in {org}")), Some("1"))
        }
        ["organizations", name] => match state.orgs.get(name) {
            Some(org) => plain(200, json!({ "name": name, "full_name": name, "guid": org.guid })),
            None => missing(format!("organization '{name}' does not exist.")),
        },
        ["organizations", org_name, "groups", name] => match state.orgs.get(org_name) {
            None => missing(format!("organization '{org_name}' does not exist.")),
            Some(org) => match org.groups.get(&unescape(name)) {
                None => missing(format!("Cannot load group {name}")),
                Some(group) => {
                    let actors: Vec<&String> = group.clients.iter().chain(&group.users).collect();
                    plain(
                        200,
                        json!({ "actors": actors, "users": group.users, "clients": group.clients,
                        "groups": group.groups, "orgname": org_name, "name": name, "groupname": name }),
                    )
                }
            },
        },
        _ => missing("Object not found".into()),
    }
}

fn principals(state: &State, org_name: &str, name: &str) -> Reply {
    let version = if state.version_0 { "0" } else { "1" };
    let missing = |what: &str, text: String| {
        (404, json!({ "not_found": what, "error": text }).to_string(), Some(version))
    };
    let Some(org) = state.orgs.get(org_name) else {
        return missing("org", format!("Cannot find org {org_name}"));
    };
    let entry = |kind: &str, member: bool, key: &String| {
        json!({ "name": name, "type": kind, "public_key": key,
                "authz_id": "bfb2d2454ead3593028b467c2686df8b", "org_member": member })
    };
    let member = org.users.contains(name);
    let users = state.users.get(name).into_iter().flatten().map(|key| entry("user", member, key));
    let clients = org.clients.get(name).into_iter().flatten().map(|key| entry("client", true, key));
    let mut list: Vec<Value> = users.chain(clients).collect();
    if list.is_empty() {
        return missing("principal", format!("Cannot find principal {name}"));
    }
    let body = if state.version_0 { list.swap_remove(0) } else { json!({ "principals": list }) };
    (200, body.to_string(), Some(version))
}

/// Whether the stub's own user signed the question.
fn signed(path: &str, headers: &BTreeMap<String, String>) -> bool {
    let header = |name: &str| headers.get(&name.to_ascii_lowercase()).map(String::as_bytes);
    let Ok(head) = Head::read(header, crate::http::wall(), MAX_SKEW) else { return false };
    let Ok(key) = PublicKey::from_pem(&SIGNER_KEYS.1) else { return false };
    head.user() == SIGNER && head.verify("GET", path, b"", [&key]).is_ok()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
        match (first, tail.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
