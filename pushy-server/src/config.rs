//! Every setting of `server.toml`, with its unit and its default.
//!
//! A file that cannot be used is refused with file, line and what to write instead: an unknown name with the
//! nearest known one, a value of the wrong kind with the kind that is wanted.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pushy_core::server::{OnRestart, ServerConfig};
use pushy_core::time::Millis;
use pushy_core::{Error, ErrorCode, Result};
use toml::de::{DeTable, DeValue};

/// The name of the file in the server's directory.
pub const FILE: &str = "server.toml";

/// One line of the manual: what `server.toml` may hold.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its default as written in the file; empty: there is none.
    pub default: &'static str,
    /// What it does, with its unit.
    pub help: &'static str,
}

/// Every setting, in the order of the manual.
pub const SETTINGS: &[Setting] = &[
    Setting { name: "api_listen", default: "\"127.0.0.1:10003\"", help: "address and port of the REST API" },
    Setting {
        name: "heartbeat_listen",
        default: "\"127.0.0.1:10000\"",
        help: "address and port where nodes hear the server's heartbeat",
    },
    Setting {
        name: "command_listen",
        default: "\"127.0.0.1:10002\"",
        help: "address and port where nodes talk with the server (CURVE)",
    },
    Setting {
        name: "advertise_host",
        default: "",
        help: "host name or address that nodes and users reach this server by; default: the address of api_listen, or this host's name when it listens on every address",
    },
    Setting {
        name: "advertise_heartbeat_addr",
        default: "",
        help: "heartbeat address told to nodes, \"tcp://HOST:PORT\"; default: advertise_host and the port of heartbeat_listen",
    },
    Setting {
        name: "advertise_command_addr",
        default: "",
        help: "command address told to nodes, \"tcp://HOST:PORT\"; default: advertise_host and the port of command_listen",
    },
    Setting {
        name: "advertise_api_url",
        default: "",
        help: "URL of the REST API written into configuration files to hand over; default: advertise_host and the port of api_listen",
    },
    Setting {
        name: "tls_cert",
        default: "",
        help: "PEM file: certificate chain of the REST API; needs tls_key",
    },
    Setting { name: "tls_key", default: "", help: "PEM file: private key of tls_cert" },
    Setting {
        name: "heartbeat_interval",
        default: "10.0",
        help: "seconds between two heartbeats, both directions",
    },
    Setting { name: "voting_timeout", default: "60.0", help: "seconds until a vote closes" },
    Setting {
        name: "default_run_timeout",
        default: "3600",
        help: "run_timeout of a job that names none, in seconds",
    },
    Setting { name: "rehab_timer", default: "1.0", help: "seconds between two aborts to a node in rehab" },
    Setting { name: "linger", default: "5.0", help: "seconds a finished job stays in memory" },
    Setting {
        name: "config_lifetime",
        default: "3600",
        help: "seconds a node may use its configuration before fetching it again",
    },
    Setting {
        name: "max_message_skew",
        default: "300",
        help: "largest difference between a node's timestamp and the clock, in seconds",
    },
    Setting {
        name: "max_body_size",
        default: "65536",
        help: "largest message body taken from a node, in bytes",
    },
    Setting {
        name: "on_restart",
        default: "\"continue\"",
        help: "what becomes of unfinished jobs at a restart: \"continue\" or \"crash\"",
    },
    Setting {
        name: "validate_client_node_name",
        default: "true",
        help: "whether a node may fetch only its own configuration",
    },
    Setting {
        name: "max_nodes",
        default: "5000",
        help: "nodes this server must be able to hold; checked against the limit of open files at start",
    },
    Setting {
        name: "max_connections_per_address",
        default: "0",
        help: "connections taken from one network address on each node port; 0: no limit",
    },
];

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
    /// Connections from one address; `None`: no limit.
    pub max_connections_per_address: Option<u32>,
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
        let config = Config {
            dir: dir.to_owned(),
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
            max_connections_per_address: Some(r.integer("max_connections_per_address", 0, 1_000_000, 0)?)
                .filter(|n| *n > 0),
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

/// Takes settings out of a parsed file; what is left at the end is unknown.
struct Reader<'a> {
    file: &'a str,
    source: &'a str,
    table: DeTable<'a>,
    seen: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, source: &'a str) -> Result<Reader<'a>> {
        match DeTable::parse(source) {
            Ok(table) => Ok(Reader { file, source, table: table.into_inner(), seen: Vec::new() }),
            Err(e) => {
                let line = e.span().map_or(1, |span| line_of(source, span.start));
                let what = e.message().lines().next().unwrap_or("not TOML");
                Err(Error::new(ErrorCode::InvalidConfig, format!("{file}:{line}: {what}")))
            }
        }
    }

    fn take<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Result<Option<T>> {
        self.seen.push(name);
        let Some(value) = self.table.get(name) else { return Ok(None) };
        match read(value.get_ref()) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(name, &format!("must be {wanted}"))),
        }
    }

    fn error(&self, name: &str, what: &str) -> Error {
        let at = self.table.get(name).map_or(0, |value| value.span().start);
        let line = line_of(self.source, at);
        Error::new(ErrorCode::InvalidConfig, format!("{}:{line}: `{name}` {what}", self.file))
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name, "a text in quotes that is not empty", |v| {
            v.as_str().filter(|t| !t.is_empty()).map(str::to_owned)
        })
    }

    fn tcp(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name, "\"tcp://HOST:PORT\"", |v| {
            let rest = v.as_str()?.strip_prefix("tcp://")?;
            let (host, port) = rest.rsplit_once(':')?;
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host_ok = !host.is_empty() && (bare.is_some() || !host.contains(':'));
            (host_ok && port.parse::<u16>().is_ok()).then(|| format!("tcp://{rest}"))
        })
    }

    fn url(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name, "\"http://HOST:PORT\" or \"https://HOST:PORT\"", |v| {
            let text = v.as_str()?;
            let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
            (!rest.is_empty()).then(|| text.to_owned())
        })
    }

    fn address(&mut self, name: &'static str, port: u16) -> Result<SocketAddr> {
        let wanted = "\"ADDRESS:PORT\", e.g. \"127.0.0.1:10003\" or \"[::1]:10003\"";
        let given = self.take(name, wanted, |v| v.as_str()?.parse().ok())?;
        Ok(given.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port))))
    }

    fn duration(&mut self, name: &'static str, default_ms: u64) -> Result<Millis> {
        let given = self.take(name, "seconds, at least 0.01 and at most 86400", |v| {
            let secs: f64 = match v {
                DeValue::Integer(n) => n.to_string().parse().ok()?,
                DeValue::Float(n) => n.as_str().parse().ok()?,
                _ => return None,
            };
            (0.01..=86_400.0).contains(&secs).then_some(Millis((secs * 1000.0).round() as u64))
        })?;
        Ok(given.unwrap_or(Millis(default_ms)))
    }

    fn integer(&mut self, name: &'static str, least: u32, most: u32, default: u32) -> Result<u32> {
        let given = self.take(name, &format!("a whole number from {least} to {most}"), |v| match v {
            DeValue::Integer(n) => n.to_string().parse().ok().filter(|n| (least..=most).contains(n)),
            _ => None,
        })?;
        Ok(given.unwrap_or(default))
    }

    fn boolean(&mut self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.take(name, "true or false", |v| v.as_bool())?.unwrap_or(default))
    }

    fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)], default: T) -> Result<T> {
        let names: Vec<String> = choices.iter().map(|(n, _)| format!("\"{n}\"")).collect();
        let given = self.take(name, &names.join(" or "), |v| {
            let text = v.as_str()?;
            choices.iter().find(|(n, _)| *n == text).map(|(_, value)| *value)
        })?;
        Ok(given.unwrap_or(default))
    }

    fn finish(&self) -> Result<()> {
        let unknown = self
            .table
            .keys()
            .filter(|key| !self.seen.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        let Some(key) = unknown else { return Ok(()) };
        let line = line_of(self.source, key.span().start);
        let hint = match nearest(key.get_ref(), self.seen.iter().copied()) {
            Some(name) => format!("; did you mean `{name}`?"),
            None => String::new(),
        };
        Err(Error::new(
            ErrorCode::InvalidConfig,
            format!("{}:{line}: unknown setting `{}`{hint}", self.file, key.get_ref().escape_debug()),
        ))
    }
}

fn line_of(source: &str, at: usize) -> usize {
    source.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// The candidate with the fewest edits, if they are few enough to look like a slip of the pen.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (distance(name, c), c))
        .filter(|(d, c)| *d <= 1 + c.len() / 4)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
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
        check_refused("tls_cert = \"c.pem\"", "server.toml:1: `tls_cert` needs `tls_key` beside it");
        check_refused(
            "advertise_command_addr = \"push.example.com:1\"",
            "server.toml:1: `advertise_command_addr` must be \"tcp://HOST:PORT\"",
        );
        check_refused(
            "\nvalidate_client_node_name = 1",
            "server.toml:2: `validate_client_node_name` must be true or false",
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
        assert_eq!(machine, core);
    }
}
