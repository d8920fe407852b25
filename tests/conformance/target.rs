//! What a test runs against: one organization with its people, on a server of ours or behind a URL.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use pushy_core::auth::SigningKey;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Actor, Answer, Call, DEADLINE, Place};
use crate::people::{Member, NewOrg};
use crate::site::Site;

/// Which program's answers are right where the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    /// Ours: decision 18's exceptions and the better answers of the table of defects.
    Ours,
    /// The original's.
    Original,
}

/// The people of the checklist (2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Admin,
    Normal,
    Client,
    AdminClient,
    Outside,
}

/// Key pairs are dear, so all people share these.
static KEYS: LazyLock<Vec<KeyPair>> = LazyLock::new(|| {
    let pair = || {
        let (private, public) = pushy_server::keys::new_rsa_pair().expect("a key pair");
        KeyPair { key: Arc::new(SigningKey::from_pem(private.as_bytes()).expect("a key")), private, public }
    };
    (0..4).map(|_| pair()).collect()
});

struct KeyPair {
    key: Arc<SigningKey>,
    private: String,
    public: String,
}

/// Somebody with the shared key of this number.
pub(crate) fn actor(name: &str, number: usize) -> Actor {
    Actor { name: name.into(), key: Arc::clone(&KEYS[number].key) }
}

/// The public half of a shared key.
pub(crate) fn public_key(number: usize) -> &'static str {
    &KEYS[number].public
}

/// The private half, for programs that sign for themselves.
pub(crate) fn private_key(number: usize) -> &'static str {
    &KEYS[number].private
}

/// Keys of nodes are this one.
pub(crate) const NODE_KEY: usize = 2;
/// A key that nobody in the organization has.
const STRANGE_KEY: usize = 3;

/// One organization of a server.
pub(crate) struct Target {
    place: Place,
    site: Option<Arc<Site>>,
    pub(crate) expect: Expect,
    pub(crate) config: Configured,
    pub(crate) org: String,
    people: BTreeMap<Role, Actor>,
    /// No such principal.
    pub(crate) invalid: Actor,
    /// The client's name with another key.
    pub(crate) bogus: Actor,
}

/// What a file of `PUSHY_CONFORMANCE_ACTORS` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Actors {
    organization: String,
    expect: Expect,
    #[serde(default)]
    insecure: bool,
    admin: Credentials,
    normal: Credentials,
    client: Credentials,
    outside: Credentials,
    #[serde(default)]
    config: Configured,
}

/// What the server tells its nodes, where it is not the default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Configured {
    /// In seconds.
    pub(crate) heartbeat_interval: f64,
    pub(crate) heartbeat_port: u16,
    pub(crate) command_port: u16,
}

impl Default for Configured {
    fn default() -> Configured {
        Configured { heartbeat_interval: 10.0, heartbeat_port: 10_000, command_port: 10_002 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    name: String,
    key: String,
}

impl Target {
    /// A server that somebody else runs.
    pub(crate) fn remote(url: &str, file: &Path) -> Result<Target, String> {
        let text = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let actors: Actors = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        let place = Place::from_url(url, !actors.insecure)
            .ok_or_else(|| format!("{url}: must be http://HOST[:PORT] or https://HOST[:PORT]"))?;
        let mut people = BTreeMap::new();
        for (role, credentials) in [
            (Role::Admin, actors.admin),
            (Role::Normal, actors.normal),
            (Role::Client, actors.client),
            (Role::Outside, actors.outside),
        ] {
            let path = file.parent().unwrap_or(Path::new(".")).join(&credentials.key);
            let pem = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let key = SigningKey::from_pem(pem).map_err(|e| format!("{}: {e}", path.display()))?;
            people.insert(role, Actor { name: credentials.name, key: Arc::new(key) });
        }
        let mut target = Target::with(place, None, actors.expect, actors.organization, people);
        target.config = actors.config;
        Ok(target)
    }

    /// A new organization on a server of ours, with these groups.
    pub(crate) fn new(site: &Arc<Site>, groups: &[(&str, &[Member])]) -> Target {
        let number = site.number();
        let org = format!("org{number}");
        let mut people = BTreeMap::new();
        people.insert(Role::Admin, actor(&format!("admin{number}"), 0));
        people.insert(Role::Normal, actor(&format!("normal{number}"), 1));
        people.insert(Role::Client, actor("client", NODE_KEY));
        people.insert(Role::AdminClient, actor("admin-client", NODE_KEY));
        people.insert(Role::Outside, site.outsider());
        site.people().add_org(&NewOrg { name: &org, people: &people, groups });
        let mut target =
            Target::with(site.place().clone(), Some(Arc::clone(site)), Expect::Ours, org, people);
        target.config = site.configured();
        target
    }

    /// A server of ours as if somebody else ran it: known by its URL and a file of credentials.
    pub(crate) fn by_url(site: &Arc<Site>) -> Target {
        let own = Target::new(site, &[]);
        let folder = site.folder("actors");
        let config = &own.config;
        let mut file = json!({
            "organization": own.org, "expect": "ours",
            "config": {
                "heartbeat_interval": config.heartbeat_interval,
                "heartbeat_port": config.heartbeat_port,
                "command_port": config.command_port,
            },
        });
        for (role, name, key) in [
            (Role::Admin, "admin", 0),
            (Role::Normal, "normal", 1),
            (Role::Client, "client", NODE_KEY),
            (Role::Outside, "outside", 0),
        ] {
            let pem = format!("{name}.pem");
            std::fs::write(folder.join(&pem), private_key(key)).expect("a key is written");
            file[name] = json!({ "name": own.role(role).name, "key": pem });
        }
        let path = folder.join("actors.json");
        std::fs::write(&path, file.to_string()).expect("the file is written");
        let url = format!("http://{}", site.place().address);
        Target::remote(&url, &path).expect("it is as it must be")
    }

    fn with(
        place: Place,
        site: Option<Arc<Site>>,
        expect: Expect,
        org: String,
        people: BTreeMap<Role, Actor>,
    ) -> Target {
        let bogus = Actor { name: people[&Role::Client].name.clone(), key: actor("", STRANGE_KEY).key };
        let config = Configured::default();
        Target {
            place,
            site,
            expect,
            config,
            org,
            people,
            invalid: actor("no-such-principal", STRANGE_KEY),
            bogus,
        }
    }

    /// Another organization on the same server, with these groups.
    pub(crate) fn with_groups(&self, groups: &[(&str, &[Member])]) -> Target {
        Target::new(self.site(), groups)
    }

    /// A server like this one that counts a silent node as gone after 1.2 s and forgets events after 1 s.
    pub(crate) fn quick(&self) -> Target {
        Target::new(self.site().quick(), &[])
    }

    /// A server of its own with these settings, otherwise of the same kind.
    pub(crate) fn own(&self, settings: &str) -> Target {
        Target::new(&Arc::new(Site::start(self.site().kind, settings)), &[])
    }

    /// The server, unless somebody else runs it.
    pub(crate) fn known_site(&self) -> Option<&Arc<Site>> {
        self.site.as_ref()
    }

    /// The server, for tests that run only against ours.
    pub(crate) fn site(&self) -> &Arc<Site> {
        self.site.as_ref().expect("the runner gives such tests a server of ours")
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn role(&self, role: Role) -> &Actor {
        &self.people[&role]
    }

    pub(crate) fn admin(&self) -> &Actor {
        self.role(Role::Admin)
    }

    pub(crate) fn normal(&self) -> &Actor {
        self.role(Role::Normal)
    }

    pub(crate) fn client(&self) -> &Actor {
        self.role(Role::Client)
    }

    pub(crate) fn outside(&self) -> &Actor {
        self.role(Role::Outside)
    }

    /// A path of the organization.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/organizations/{}/pushy/{rest}", self.org)
    }

    pub(crate) fn call<'a>(&'a self, method: &'a str, path: &str) -> Call<'a> {
        let path = if path.starts_with('/') { path.to_owned() } else { self.path(path) };
        Call::new(self, method, path)
    }

    /// A signed GET.
    pub(crate) fn get(&self, actor: &Actor, path: &str) -> Answer {
        self.call("GET", path).by(actor).send()
    }

    /// A signed POST of a job.
    pub(crate) fn post(&self, actor: &Actor, body: &str) -> Answer {
        self.call("POST", "jobs").by(actor).json(body).send()
    }

    /// Starts a job as the administrator; answers its id.
    pub(crate) fn start(&self, body: &Value) -> String {
        self.post(self.admin(), &body.to_string()).job_id()
    }

    /// Starts a command on nodes.
    pub(crate) fn start_on(&self, command: &str, nodes: &[&str]) -> String {
        self.start(&json!({ "command": command, "nodes": nodes }))
    }

    /// The job as the administrator sees it.
    pub(crate) fn job(&self, id: &str) -> Value {
        self.get(self.admin(), &format!("jobs/{id}")).json()
    }

    /// Asks for a job until `good` says so.
    #[track_caller]
    pub(crate) fn job_until(&self, id: &str, good: impl Fn(&Value) -> bool) -> Value {
        self.until(&format!("jobs/{id}"), good)
    }

    /// Waits for a job's end, which must be this status with these nodes.
    #[track_caller]
    pub(crate) fn check_job(&self, id: &str, status: &str, nodes: Value) -> Value {
        let ended = |job: &Value| !matches!(job["status"].as_str(), Some("new" | "voting" | "running"));
        let mut job = self.job_until(id, ended);
        // Names come in no particular order (2.4.5).
        let mut nodes = nodes;
        sort_names(&mut job["nodes"]);
        sort_names(&mut nodes);
        assert_eq!((&job["status"], &job["nodes"]), (&json!(status), &nodes), "{job}");
        job
    }

    /// Waits until a node is shown so.
    #[track_caller]
    pub(crate) fn check_state(&self, node: &str, status: &str, availability: &str) {
        let expected = json!({ "node_name": node, "status": status, "availability": availability });
        self.until(&format!("node_states/{node}"), |state| *state == expected);
    }

    #[track_caller]
    fn until(&self, path: &str, good: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        let mut pause = Duration::from_millis(5);
        loop {
            let found = self.get(self.admin(), path).json();
            if good(&found) {
                return found;
            }
            assert!(Instant::now() < end, "{path} is still {found}");
            // Signatures cost, and other tests want to get on.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(80));
        }
    }
}

fn sort_names(nodes: &mut Value) {
    for names in
        nodes.as_object_mut().into_iter().flat_map(|n| n.values_mut()).filter_map(Value::as_array_mut)
    {
        names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}
