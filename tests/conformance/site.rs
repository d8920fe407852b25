//! Servers of ours: the program as a process, over one of the stores, with one way of knowing principals.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pushy_tests::chef_stub::ChefStub;
use pushy_tests::postgres;
use pushy_tests::{Process, bin_dir, until};
use serde_json::Value;

use crate::call::{Actor, DEADLINE, Place};
use crate::people::{ChefBacked, People, Standalone};
use crate::target::{Configured, actor};

/// Where jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// Who knows users and clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Principals {
    Standalone,
    Chef,
}

/// A combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) database: Database,
    pub(crate) principals: Principals,
}

/// All combinations.
pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "sqlite_standalone", database: Database::Sqlite, principals: Principals::Standalone },
    Kind { name: "sqlite_chef", database: Database::Sqlite, principals: Principals::Chef },
    Kind { name: "postgres_standalone", database: Database::Postgres, principals: Principals::Standalone },
    Kind { name: "postgres_chef", database: Database::Postgres, principals: Principals::Chef },
];

/// Timers short enough for tests; the quickest that a busy machine still keeps.
const SETTINGS: &str = "heartbeat_interval = 1.0\nvoting_timeout = 2.0\nrehab_timer = 0.2\nlinger = 1.0\nfeed_keep_alive = 0.5\n";

/// The quick server's: a node is lost after three intervals.
const QUICK: &str = "heartbeat_interval = 0.4\nfeed_retention = 1\n";

/// One server.
pub(crate) struct Site {
    pub(crate) kind: Kind,
    place: Place,
    people: Box<dyn People>,
    orgs: AtomicU32,
    process: Mutex<Process>,
    quick: OnceLock<Arc<Site>>,
    dir: PathBuf,
    root: Option<tempfile::TempDir>,
    // Goes last, after its server.
    _database: Option<postgres::Database>,
}

const OUTSIDER: &str = "outsider";

impl Kind {
    /// Whether this machine has what it takes.
    pub(crate) fn is_possible(&self) -> bool {
        self.database == Database::Sqlite || postgres::database().is_some()
    }
}

impl Site {
    /// Makes a directory and starts a server there. A setting given here replaces the tests' own.
    pub(crate) fn start(kind: Kind, settings: &str) -> Site {
        let root = tempfile::tempdir().expect("a temporary folder");
        let dir = root.path().join("server");
        let mut init = Command::new(bin_dir().join("pushy-server"));
        init.args(["init", "--free-ports"]).arg(&dir);
        let database = match kind.database {
            Database::Sqlite => None,
            Database::Postgres => Some(postgres::database().expect("the runner has asked for it")),
        };
        if let Some(database) = &database {
            init.args(["--database", &database.url()]);
        }
        let made = init.output().expect("pushy-server starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (people, more): (Box<dyn People>, String) = match kind.principals {
            Principals::Standalone => (Box::new(Standalone::new(&dir)), String::new()),
            Principals::Chef => {
                let stub = ChefStub::start();
                let more = stub.settings_with_caches(&dir);
                (Box::new(ChefBacked::new(stub)), more)
            }
        };
        write_settings(&dir.join("server.toml"), &[SETTINGS, &more, settings]);
        let process = Site::run(&dir);
        let about = read_about(&dir);
        let place = Place {
            tls: false,
            address: about["api"].as_str().expect("an address").to_owned(),
            verify: false,
        };
        people.add_outsider(OUTSIDER);
        let process = Mutex::new(process);
        Site {
            kind,
            place,
            people,
            orgs: AtomicU32::new(0),
            process,
            quick: OnceLock::new(),
            dir,
            root: Some(root),
            _database: database,
        }
    }

    fn run(dir: &Path) -> Process {
        let _ = std::fs::remove_file(dir.join("run.json"));
        let mut command = Command::new(bin_dir().join("pushy-server"));
        let log = dir.join("server.log");
        let mut process =
            Process::start("pushy-server", &log, command.arg("run").arg(dir)).expect("pushy-server starts");
        until("the server to be ready", Duration::from_secs(20), || {
            assert!(process.is_running(), "{}", process.output());
            dir.join("run.json").exists().then_some(())
        });
        process
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Stops the server as an operator does.
    pub(crate) fn stop(&self) {
        let mut process = self.process();
        process.stop();
    }

    /// Starts a stopped server again, on its ports.
    pub(crate) fn start_again(&self) {
        *self.process() = Site::run(&self.dir);
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What it must tell its nodes.
    pub(crate) fn configured(&self) -> Configured {
        let about = read_about(&self.dir);
        let port = |name: &str| {
            let address = about[name].as_str().expect("an address");
            address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
        };
        let settings = std::fs::read_to_string(self.dir.join("server.toml")).expect("server.toml");
        let interval = settings.lines().find_map(|l| l.strip_prefix("heartbeat_interval = "));
        Configured {
            heartbeat_interval: interval.and_then(|i| i.parse().ok()).expect("it is set"),
            heartbeat_port: port("heartbeat"),
            command_port: port("command"),
        }
    }

    pub(crate) fn people(&self) -> &dyn People {
        &*self.people
    }

    /// A server of the same kind with quicker timers, for all tests that want one.
    pub(crate) fn quick(&self) -> &Arc<Site> {
        self.quick.get_or_init(|| Arc::new(Site::start(self.kind, QUICK)))
    }

    /// Somebody of another organization.
    pub(crate) fn outsider(&self) -> Actor {
        actor(OUTSIDER, 0)
    }

    /// A number for names of this server's organizations.
    pub(crate) fn number(&self) -> u32 {
        self.orgs.fetch_add(1, Ordering::Relaxed)
    }

    /// A folder for files of a test.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let root = self.root.as_ref().expect("there until the end");
        let folder = root.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// Keeps the server's files beyond its end; answers where they are.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.root.take().expect("kept once").keep()
    }
}

/// Appends settings; a later one replaces an earlier one of its name.
fn write_settings(file: &Path, settings: &[&str]) {
    let text = std::fs::read_to_string(file).expect("server.toml");
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in settings.iter().flat_map(|s| s.lines()).filter(|l| l.contains('=')) {
        lines.retain(|old| name(old) != name(line));
        lines.push(line.trim().to_owned());
    }
    std::fs::write(file, lines.join("\n") + "\n").expect("server.toml");
}

fn read_about(dir: &Path) -> Value {
    until("run.json", DEADLINE, || {
        let text = std::fs::read_to_string(dir.join("run.json")).ok()?;
        serde_json::from_str(&text).ok()
    })
}
