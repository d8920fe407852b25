//! A server with agents of ours as real processes in a temporary folder, for tests that end them in unkind ways.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pushy_core::auth::SigningKey;
use tempfile::TempDir;

use crate::process::{Process, bin_dir, until};

/// So long a server may take from its start to `ready`, on a machine with other things to do.
const START: Duration = Duration::from_secs(30);

/// A server's folder, the administrator's key and whatever runs there.
pub struct Site {
    // Ended first: fields are dropped in this order.
    agents: Vec<Process>,
    server: Option<Process>,
    admin: SigningKey,
    host: String,
    dir: TempDir,
}

impl Site {
    /// Makes and starts a server of the organization `acme`. `init` are more arguments of `pushy-server init`, `settings`
    /// lines for its `server.toml`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(init: &[&str], settings: &str) -> Site {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let home = dir.path().join("server");
        let mut make = Command::new(bin_dir().join("pushy-server"));
        run(make.arg("init").arg(&home).args(["--free-ports", "--heartbeat-interval", "1"]).args(init));
        let file = home.join("server.toml");
        let text = fs::read_to_string(&file).expect("server.toml");
        fs::write(&file, format!("{text}\n{settings}\n")).expect("server.toml is written");
        let key = fs::read(home.join("admin/.chef/admin.pem")).expect("the administrator's key");
        let mut site = Site {
            agents: Vec::new(),
            server: None,
            admin: SigningKey::from_pem(key).expect("a key"),
            host: setting(&text, "api_listen"),
            dir,
        };
        site.start_server();
        site
    }

    /// The folder that goes away with the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Host and port of the REST API; the same after a restart.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The key of the user `admin`.
    pub fn admin(&self) -> &SigningKey {
        &self.admin
    }

    /// The server's log of all its lives.
    pub fn server_log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// When it ends, or is not ready in time.
    pub fn start_server(&mut self) {
        let lives = ready_lines(&self.server_log());
        let mut command = Command::new(bin_dir().join("pushy-server"));
        command.arg("run").arg(self.path("server"));
        let server = Process::start("pushy-server", &self.path("server.log"), &mut command);
        let server = self.server.insert(server.expect("pushy-server starts"));
        until("the server to be ready", START, || {
            assert!(server.is_running(), "the server has ended:\n{}", server.output());
            (ready_lines(&server.output()) > lives).then_some(())
        });
    }

    /// KILL to the server.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_server(&mut self) {
        self.server.as_mut().expect("the server runs").kill();
    }

    /// Makes a node and starts its agent. `whitelist` pairs job names with shell commands without single quotes.
    ///
    /// # Panics
    /// When either fails.
    pub fn start_agent(&mut self, name: &str, whitelist: &[(&str, String)]) {
        self.start_agent_with(name, whitelist, "");
    }

    /// The same with more lines for the agent's configuration.
    ///
    /// # Panics
    /// When either fails.
    pub fn start_agent_with(&mut self, name: &str, whitelist: &[(&str, String)], settings: &str) {
        let home = self.path("server");
        run(Command::new(bin_dir().join("pushy-server")).arg("-d").arg(&home).args(["node", "add", name]));
        let entries: String =
            whitelist.iter().map(|(job, line)| format!("  '{job}' => '{line}',\n")).collect();
        let config = self.path(&format!("{name}.rb"));
        let text = format!(
            "chef_server_url 'http://{}/organizations/acme'\nnode_name '{name}'\nclient_key '{}'\n\
             file_dir '{}'\nstate_dir '{}'\nwhitelist({{\n{entries}}})\n{settings}\n",
            self.host,
            home.join(format!("nodes/{name}/client.pem")).display(),
            self.path(&format!("{name}.files")).display(),
            self.path(&format!("{name}.state")).display(),
        );
        fs::write(&config, text).expect("the agent's configuration is written");
        self.start_agent_again(name);
    }

    /// Starts another process of an agent.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_agent_again(&mut self, name: &str) {
        let config = self.path(&format!("{name}.rb"));
        let mut command = Command::new(bin_dir().join("push-jobs-client"));
        command.arg("-c").arg(&config);
        let log = self.path(&format!("{name}.log"));
        self.agents.push(Process::start(name, &log, &mut command).expect("the agent starts"));
    }

    /// Makes nodes with one key; answers where each finds it.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn add_nodes(&self, names: &[String]) -> Vec<PathBuf> {
        let key = openssl::rsa::Rsa::generate(2048).expect("a key");
        let (public, private) = (self.path("shared.pub"), self.path("shared.pem"));
        fs::write(&public, key.public_key_to_pem().expect("PEM")).expect("the key is written");
        fs::write(&private, key.private_key_to_pem().expect("PEM")).expect("the key is written");
        let mut add = Command::new(bin_dir().join("pushy-server"));
        add.arg("-d").arg(self.path("server")).args(["node", "add", "--shared", "--public-key"]);
        run(add.arg(&public).args(names));
        vec![private; names.len()]
    }

    /// Resident memory of the server in KB.
    ///
    /// # Panics
    /// When it does not run.
    pub fn server_memory_kb(&self) -> u64 {
        self.server.as_ref().and_then(|server| server.memory_kb("VmRSS")).expect("the server runs")
    }

    /// The agents, in the order they were started.
    pub fn agents(&mut self) -> &mut [Process] {
        &mut self.agents
    }
}

fn ready_lines(log: &str) -> usize {
    log.lines().filter(|line| line.starts_with("ready")).count()
}

/// The text of a setting in `server.toml`.
fn setting(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
    value.expect("the setting is there").trim().trim_matches('"').to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The server's database, for a look at it from outside.
pub fn sqlite_of(site: &Site) -> PathBuf {
    Path::new(&site.path("server")).join("pushy.db")
}
