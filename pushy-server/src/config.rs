//! Every setting of `server.toml`, with its unit and its default.
//!
//! A file that cannot be used is refused with file, line and what to write instead: an unknown name with the
//! nearest known one, a value of the wrong kind with the kind that is wanted.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pushy_core::feed;
use pushy_core::server::{OnRestart, ServerConfig};
use pushy_core::time::Millis;
use pushy_core::{Error, ErrorCode, Result};

use crate::store::Place;

mod chef;
mod operation;
mod reader;
mod settings;

pub use chef::ChefServer;
pub use operation::{LogLevel, Network, Operation};
use reader::Reader;
pub use settings::{SETTINGS, Setting};

/// The name of the file in the server's directory.
pub const FILE: &str = "server.toml";

/// The settings of one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The server's directory: keys, database, socket of the operator's commands.
    pub dir: PathBuf,
    /// Where the REST API listens. Port 0: any free one.
    pub api_listen: SocketAddr,
    /// Where nodes hear the heartbeat.
    pub heartbeat_listen: SocketAddr,
    /// Where nodes talk with the server.
    pub command_listen: SocketAddr,
    /// Host told to nodes and users.
    pub advertise_host: Option<String>,
    /// Heartbeat address told to nodes.
    pub advertise_heartbeat_addr: Option<String>,
    /// Command address told to nodes.
    pub advertise_command_addr: Option<String>,
    /// REST address written into files to hand over.
    pub advertise_api_url: Option<String>,
    /// Where everything is kept.
    pub database: Place,
    /// Finished jobs are kept for so many days; `None`: for ever.
    pub keep_jobs_days: Option<u32>,
    /// So many finished jobs are kept; `None`: all.
    pub keep_jobs: Option<u32>,
    /// Certificate chain and key of the REST API.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Between two heartbeats.
    pub heartbeat_interval: Millis,
    /// A vote closes after this.
    pub voting_timeout: Millis,
    /// Seconds.
    pub default_run_timeout: u32,
    /// Between two aborts to a node in rehab.
    pub rehab_timer: Millis,
    /// A finished job stays in memory this long.
    pub linger: Millis,
    /// A silent feed says something after this.
    pub feed_keep_alive: Millis,
    /// An organization's feed remembers this long.
    pub feed_retention: Millis,
    /// A client that takes nothing of its answer is given up after this.
    pub send_timeout: Millis,
    /// Seconds.
    pub config_lifetime: u32,
    /// Seconds.
    pub max_message_skew: u32,
    /// Bytes.
    pub max_body_size: usize,
    /// What becomes of unfinished jobs at a restart.
    pub on_restart: OnRestart,
    /// Whether a node may fetch only its own configuration (3.3).
    pub validate_client_node_name: bool,
    /// How many nodes the descriptors must suffice for.
    pub max_nodes: u32,
    /// REST connections at once; `None`: what nodes leave.
    pub max_rest_connections: Option<u32>,
    /// Listeners to output at once.
    pub max_output_streams: u32,
    /// Connections from one address; `None`: no limit.
    pub max_connections_per_address: Option<u32>,
    /// The Chef server that knows who is who; `None`: the server's own directory does.
    pub chef: Option<ChefServer>,
    /// Metrics, audit log and the like.
    pub operation: Operation,
    /// Whether the log level came from the command line, so that a reload leaves it alone.
    pub keep_log_level: bool,
}

impl Config {
    /// Reads `server.toml` of a directory that `pushy-server init` made.
    ///
    /// # Errors
    /// When the file is missing, unreadable, or holds anything that is not a setting.
    pub fn load(dir: &Path) -> Result<Config> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                ErrorCode::InvalidConfig,
                format!(
                    "{}: no such file; make a server there with `pushy-server init {}`",
                    path.display(),
                    dir.display()
                ),
            ),
            _ => Error::new(ErrorCode::Io, format!("{}: {e}", path.display())),
        })?;
        Config::parse(dir, &path.display().to_string(), &text)
    }

    /// Reads the text of a `server.toml`; `file` is what error messages call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(dir: &Path, file: &str, text: &str) -> Result<Config> {
        let mut r = Reader::new(file, text)?;
        let tls = match (r.text("tls_cert")?, r.text("tls_key")?) {
            (Some(cert), Some(key)) => Some((dir.join(cert), dir.join(key))),
            (None, None) => None,
            (Some(_), None) => return Err(r.error("tls_cert", "needs `tls_key` beside it")),
            (None, Some(_)) => return Err(r.error("tls_key", "needs `tls_cert` beside it")),
        };
        let database = r.text("database")?;
        let database = Place::of(dir, database.as_deref()).map_err(|e| {
            r.error("database", e.message().strip_prefix("database: ").unwrap_or(e.message()))
        })?;
        let config = Config {
            dir: dir.to_owned(),
            database,
            keep_jobs_days: Some(r.integer("keep_jobs_days", 0, 36_500, 0)?).filter(|n| *n > 0),
            keep_jobs: Some(r.integer("keep_jobs", 0, i32::MAX as u32, 100_000)?).filter(|n| *n > 0),
            api_listen: r.address("api_listen", 10003)?,
            heartbeat_listen: r.address("heartbeat_listen", 10000)?,
            command_listen: r.address("command_listen", 10002)?,
            advertise_host: r.text("advertise_host")?,
            advertise_heartbeat_addr: r.tcp("advertise_heartbeat_addr")?,
            advertise_command_addr: r.tcp("advertise_command_addr")?,
            advertise_api_url: r.url("advertise_api_url")?,
            tls,
            heartbeat_interval: r.duration("heartbeat_interval", 10_000)?,
            voting_timeout: r.duration("voting_timeout", 60_000)?,
            default_run_timeout: r.integer("default_run_timeout", 0, i32::MAX as u32, 3600)?,
            rehab_timer: r.duration("rehab_timer", 1_000)?,
            linger: r.duration("linger", 5_000)?,
            feed_keep_alive: r.duration("feed_keep_alive", feed::KEEP_ALIVE_TIME.0)?,
            feed_retention: r.duration("feed_retention", feed::RETENTION.0)?,
            send_timeout: r.duration("send_timeout", 30_000)?,
            config_lifetime: r.integer("config_lifetime", 1, i32::MAX as u32, 3600)?,
            max_message_skew: r.integer("max_message_skew", 1, 86_400, 300)?,
            max_body_size: r.integer("max_body_size", 1024, 16 << 20, 65_536)? as usize,
            on_restart: r.choice(
                "on_restart",
                &[("continue", OnRestart::Continue), ("crash", OnRestart::Crash)],
                OnRestart::Continue,
            )?,
            validate_client_node_name: r.boolean("validate_client_node_name", true)?,
            max_nodes: r.integer("max_nodes", 1, 1_000_000, 5_000)?,
            max_output_streams: r.integer("max_output_streams", 1, 1_000_000, 1024)?,
            max_rest_connections: Some(r.integer("max_rest_connections", 0, 1_000_000, 0)?)
                .filter(|n| *n > 0),
            max_connections_per_address: Some(r.integer("max_connections_per_address", 0, 1_000_000, 0)?)
                .filter(|n| *n > 0),
            chef: ChefServer::read(&mut r, dir)?,
            operation: Operation::read(&mut r, dir)?,
            keep_log_level: false,
        };
        r.finish()?;
        Ok(config)
    }

    /// A configuration of defaults.
    pub fn defaults(dir: &Path) -> Config {
        Config::parse(dir, FILE, "").expect("the empty file is valid: every setting has a default")
    }

    /// The host told to nodes and users.
    pub fn host(&self) -> String {
        if let Some(host) = &self.advertise_host {
            return host.clone();
        }
        let ip = self.api_listen.ip();
        if ip.is_unspecified() { host_name() } else { ip.to_string() }
    }

    /// The settings of the machine, with the ports that are really listened on.
    pub fn machine(&self, heartbeat_port: u16, command_port: u16) -> ServerConfig {
        let host = self.host();
        let tcp = |given: &Option<String>, port| {
            given.clone().unwrap_or_else(|| format!("tcp://{}:{port}", bracketed(&host)))
        };
        ServerConfig {
            heartbeat_addr: tcp(&self.advertise_heartbeat_addr, heartbeat_port),
            command_addr: tcp(&self.advertise_command_addr, command_port),
            host,
            heartbeat_interval: self.heartbeat_interval,
            voting_timeout: self.voting_timeout,
            default_run_timeout: self.default_run_timeout,
            rehab_timer: self.rehab_timer,
            linger: self.linger,
            config_lifetime: self.config_lifetime,
            max_message_skew: self.max_message_skew,
            max_body_size: self.max_body_size,
            on_restart: self.on_restart,
            // With a Chef server, nodes are its business.
            nodes: self.chef.is_none(),
        }
    }

    /// How event feeds behave.
    pub fn feeds(&self) -> crate::feeds::Settings {
        crate::feeds::Settings {
            keep_alive: self.feed_keep_alive.into(),
            retention: self.feed_retention.into(),
            linger: self.linger.into(),
        }
    }

    /// The URL of the REST API, without a path, as users and nodes reach it.
    pub fn api_url(&self, port: u16) -> String {
        match &self.advertise_api_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}:{port}", bracketed(&self.host()))
            }
        }
    }

    /// The text of a new `server.toml`: the given settings, then every other one as a comment with its default.
    pub fn template(given: &[(&str, String)]) -> String {
        let mut text = String::from("# Settings of this push server. Restart it after a change.\n");
        for setting in SETTINGS {
            let _ = write!(text, "\n# {}\n", setting.help);
            let _ = match given.iter().find(|(name, _)| *name == setting.name) {
                Some((name, value)) => writeln!(text, "{name} = {value}"),
                None if setting.default.is_empty() => writeln!(text, "# {} =", setting.name),
                None => writeln!(text, "# {} = {}", setting.name, setting.default),
            };
        }
        text
    }
}

/// The settings that have other values in one text than in the other; unreadable texts have none.
pub(crate) fn differences(one: &str, other: &str) -> Vec<&'static str> {
    let (Ok(one), Ok(other)) = (one.parse::<toml::Table>(), other.parse::<toml::Table>()) else {
        return Vec::new();
    };
    SETTINGS.iter().map(|setting| setting.name).filter(|name| one.get(*name) != other.get(*name)).collect()
}

/// This host's name, for logs and heartbeats.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// An IPv6 literal needs brackets before a port.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(text: &str, message: &str) {
        let error = Config::parse(Path::new("/x"), "server.toml", text).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{text}");
        assert_eq!(error.message(), message, "{text}");
    }

    #[test]
    fn refusals_name_line_setting_and_remedy() {
        check_refused(
            "\n# c\nheartbeat_intervall = 5\n",
            "server.toml:3: unknown setting `heartbeat_intervall`; did you mean `heartbeat_interval`?",
        );
        check_refused("zebra = 1", "server.toml:1: unknown setting `zebra`");
        check_refused("[api]\nlisten = 1", "server.toml:1: unknown setting `api`");
        check_refused(
            "max_nodes = \"many\"",
            "server.toml:1: `max_nodes` must be a whole number from 1 to 1000000",
        );
        check_refused("max_nodes = 0", "server.toml:1: `max_nodes` must be a whole number from 1 to 1000000");
        check_refused(
            "heartbeat_interval = -1",
            "server.toml:1: `heartbeat_interval` must be seconds, at least 0.01 and at most 86400",
        );
        check_refused(
            "heartbeat_interval = nan",
            "server.toml:1: `heartbeat_interval` must be seconds, at least 0.01 and at most 86400",
        );
        check_refused(
            "a = 1\napi_listen = \"localhost\"",
            "server.toml:2: `api_listen` must be \"ADDRESS:PORT\", e.g. \"127.0.0.1:10003\" or \"[::1]:10003\"",
        );
        check_refused(
            "on_restart = \"stop\"",
            "server.toml:1: `on_restart` must be \"continue\" or \"crash\"",
        );
        check_refused(
            "database = \"mysql://root:secret@x/y\"",
            "server.toml:1: `database` must be \"postgres://USER:PASSWORD@HOST/DATABASE\"",
        );
        check_refused(
            "database = \"postgres://root:secret@x\"",
            "server.toml:1: `database` the URL names no database",
        );
        check_refused("tls_cert = \"c.pem\"", "server.toml:1: `tls_cert` needs `tls_key` beside it");
        check_refused(
            "advertise_command_addr = \"push.example.com:1\"",
            "server.toml:1: `advertise_command_addr` must be \"tcp://HOST:PORT\"",
        );
        check_refused(
            "\nvalidate_client_node_name = 1",
            "server.toml:2: `validate_client_node_name` must be true or false",
        );
        check_refused(
            "chef_client_key = \"c.pem\"",
            "server.toml:1: `chef_client_key` needs `chef_server_url` beside it",
        );
        let chef = |more: &str| {
            format!(
                "chef_server_url = \"https://chef\"\nchef_client_name = \"p\"\nchef_client_key = \"p.pem\"\n{more}"
            )
        };
        check_refused(
            "chef_server_url = \"https://chef\"",
            "server.toml:1: `chef_server_url` needs `chef_client_name` and `chef_client_key` beside it",
        );
        check_refused(
            "chef_server_url = \"https://chef/organizations/acme\"",
            "server.toml:1: `chef_server_url` is the root of the Chef server, without /organizations/ORG",
        );
        check_refused(
            &chef("chef_organizations = false"),
            "server.toml:4: `chef_organizations` needs `chef_organization = \"NAME\"` beside it",
        );
        check_refused(
            &chef("chef_organization = \"acme\""),
            "server.toml:4: `chef_organization` is only for `chef_organizations = false`",
        );
        check_refused(
            &chef("chef_principal_cache = 6"),
            "server.toml:4: `chef_principal_cache` must be seconds, at least 0 and at most 5",
        );
        check_refused("max_nodes = 5\nmax_nodes = 6", "server.toml:2: duplicate key");
    }

    #[test]
    fn the_template_holds_every_setting_and_reads_back() {
        let text =
            Config::template(&[("api_listen", "\"[::1]:0\"".into()), ("heartbeat_interval", "0.5".into())]);
        let config = Config::parse(Path::new("/x"), "server.toml", &text).unwrap();
        assert_eq!(config.heartbeat_interval, Millis(500));
        assert_eq!(config.api_url(4), "http://[::1]:4");
        assert_eq!(config.machine(1, 2).command_addr, "tcp://[::1]:2");
        for setting in SETTINGS {
            assert!(text.contains(&format!("{} =", setting.name)), "{}", setting.name);
            if !setting.default.is_empty() {
                let line = format!("{} = {}", setting.name, setting.default);
                let parsed = Config::parse(Path::new("/x"), "server.toml", &line).unwrap();
                assert_eq!(parsed, Config::defaults(Path::new("/x")), "{line}");
            }
        }
    }

    #[test]
    fn machine_defaults_are_those_of_the_core() {
        let mut machine = Config::defaults(Path::new("/x")).machine(10000, 10002);
        assert_eq!(machine.heartbeat_addr, "tcp://127.0.0.1:10000");
        let core = ServerConfig::default();
        (machine.host, machine.heartbeat_addr, machine.command_addr) =
            (core.host.clone(), core.heartbeat_addr.clone(), core.command_addr.clone());
        // A server with a directory of its own takes documents of nodes; the machine by itself does not.
        assert!(std::mem::replace(&mut machine.nodes, core.nodes));
        assert_eq!(machine, core);
    }
}
