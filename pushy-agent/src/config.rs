//! The agent's settings: command line over file over default (7.9).
//!
//! The file is an existing `push-jobs-client.rb`, read without running Ruby (decision 1), or TOML with the same keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use pushy_core::auth::SigningKey;
use pushy_core::client::{ProxySettings, TlsSettings};
use pushy_core::ids::{NodeName, OrgName};
use pushy_core::node::DEFAULT_MAX_BODY;
use pushy_core::node_document::NodeDocument;
use pushy_core::value::Value;
use pushy_core::whitelist::Whitelist;
use pushy_core::{Error, ErrorCode, Result};

use crate::about;
use crate::file::Settings;
use crate::log::{Level, Location, Log};
use crate::process::Policy;
use crate::spool::Limits;
use crate::whitelist;

/// Looked for when `--config` is not given; the first that exists. `client.rb` belongs to chef-client and counts only
/// with a whitelist.
pub const DEFAULT_FILES: [&str; 3] =
    ["/etc/chef/chef-push-client.rb", "/etc/chef/push-jobs-client.rb", "/etc/chef/client.rb"];

/// Bytes of the smallest `max_body_size`: less does not hold a message.
const MIN_MAX_BODY: i64 = 1024;

/// The Push Jobs node agent: runs whitelisted commands when a push server asks for them.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "push-jobs-client", disable_version_flag = true, disable_help_subcommand = true)]
pub struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// debug, info, warn, error or fatal
    #[arg(short, long = "log_level", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// The log file (default STDOUT)
    #[arg(short = 'L', long = "logfile", value_name = "LOGLOCATION")]
    pub logfile: Option<String>,
    /// The node's name
    #[arg(short = 'N', long = "node-name", value_name = "NODE_NAME")]
    pub node_name: Option<String>,
    /// The largest message to send, in bytes
    #[arg(short = 'M', long = "max-body-size", value_name = "MAX_BODY_SIZE")]
    pub max_body_size: Option<i64>,
    /// The Chef server's URL, ending in /organizations/ORG
    #[arg(short = 'S', long = "server", value_name = "CHEFSERVERURL")]
    pub server: Option<String>,
    /// The file with the node's private key
    #[arg(short = 'k', long = "client_key", value_name = "KEY_FILE")]
    pub client_key: Option<PathBuf>,
    /// Where files delivered with jobs are put
    #[arg(short = 'd', long = "file_dir", value_name = "DIR")]
    pub file_dir: Option<PathBuf>,
    /// Accepted and without effect: servers that do not encrypt are refused
    #[arg(long = "allow_unencrypted")]
    pub allow_unencrypted: bool,
    /// Print the version
    #[arg(short = 'v', long)]
    pub version: bool,
    /// What to do instead of serving
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Read the configuration and say what is remarkable about it; with COMMAND, whether it may run and as what. Exits
    /// with 0 when it may, 1 when not, 2 when the configuration cannot be used
    Check(Check),
}

/// Arguments of `check`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Check {
    /// The configuration file; left out when --config names it
    #[arg(value_name = "CONFIG")]
    pub file: Option<PathBuf>,
    /// A command as a job would name it
    pub command: Option<String>,
    /// A parameter of the job
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// The answer's format: text or json
    #[arg(short = 'F', long, value_parser = ["text", "json"], default_value = "text")]
    pub format: String,
}

impl Check {
    /// The configuration file, if one is named, and the command that is asked about. With --config the only
    /// argument is the command.
    pub fn question(&self, args: &Args) -> (Option<PathBuf>, Option<String>) {
        match (&args.config, &self.file, &self.command) {
            (Some(config), Some(command), None) => {
                (Some(config.clone()), Some(command.to_string_lossy().into_owned()))
            }
            (named, file, command) => (file.clone().or_else(|| named.clone()), command.clone()),
        }
    }
}

/// Everything an agent needs to know.
#[derive(Debug)]
pub struct Config {
    /// What it was made from; read again by [`Config::reload`].
    pub args: Args,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Node name.
    pub node_name: NodeName,
    /// The name requests are signed as: `client_name`, else the node's (D-61).
    pub client_name: String,
    /// Short host name.
    pub host: String,
    /// The organization.
    pub org: OrgName,
    /// `chef_server_url`.
    pub chef_server_url: String,
    /// The node's key. A secret.
    pub client_key: SigningKey,
    /// Where it was read.
    pub client_key_path: PathBuf,
    /// `authentication_protocol_version`.
    pub auth_version: pushy_core::auth::Version,
    /// The commands that may run.
    pub whitelist: Whitelist,
    /// How they run.
    pub policy: Policy,
    /// The largest message to send, in bytes.
    pub max_body_size: usize,
    /// Results not yet acknowledged and the server's public key are kept here.
    pub state_dir: PathBuf,
    /// Certificates.
    pub tls: TlsSettings,
    /// Proxies.
    pub proxy: ProxySettings,
    /// What the server is told of this node, but for the address; `None` with `publish_node false`.
    pub document: Option<NodeDocument>,
    /// Where the log goes.
    pub log: Log,
    /// Remarkable things about the settings, for the log.
    pub notices: Vec<String>,
    /// Where the whitelist was read.
    pub(crate) sources: whitelist::Sources,
    /// What the file said.
    settings: Settings,
}

/// The whitelist alone, after a change of its files.
#[derive(Debug)]
pub(crate) struct WhitelistConfig {
    pub(crate) read: whitelist::Read,
    /// The lock that chef-client holds while it runs.
    pub(crate) chef_lock: PathBuf,
    /// Settings that are not about the whitelist and that have another value than the agent was started with.
    pub(crate) changed: Vec<String>,
    settings: Settings,
}

impl WhitelistConfig {
    /// Reads it as [`Config::load`] would; needs neither key nor server.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load(args: &Args) -> Result<WhitelistConfig> {
        WhitelistConfig::read(args.config.clone().or_else(default_file).as_deref())
    }

    fn read(file: Option<&Path>) -> Result<WhitelistConfig> {
        let settings = file.map(Settings::read).transpose()?.unwrap_or_default();
        let read = whitelist::read(&settings, file, config_dir(file))?;
        Ok(WhitelistConfig { read, chef_lock: chef_lock(&settings)?, changed: Vec::new(), settings })
    }
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`], [`ErrorCode::InvalidKey`] or [`ErrorCode::InvalidWhitelist`]; the message names the
    /// file, with line and column where there are any, and the setting.
    pub fn load(args: Args) -> Result<Config> {
        let file = match &args.config {
            Some(path) => Some(path.clone()),
            None => default_file(),
        };
        let settings = match &file {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        build(args, file, settings)
    }

    /// Reads the whitelist again, from the same place, and compares the other settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn reload_whitelist(&self) -> Result<WhitelistConfig> {
        let mut read = WhitelistConfig::read(self.file.as_deref())?;
        let (old, new) = (self.settings.values(), read.settings.values());
        let names = old.iter().chain(new.iter()).map(|(key, _)| key);
        let mut changed: Vec<String> = names
            .filter(|key| !whitelist::SETTINGS.contains(key) && old.get(key) != new.get(key))
            .map(str::to_owned)
            .collect();
        changed.sort();
        changed.dedup();
        read.changed = changed;
        Ok(read)
    }

    /// Reads them again, from the same place.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn reload(&self) -> Result<Config> {
        Config::load(self.args.clone())
    }

    /// Notes what a file that was read anew says: from now on that is what changes are compared with.
    pub(crate) fn took_over(&mut self, later: Config) {
        self.sources = later.sources;
        self.settings = later.settings;
    }

    /// Logs what an operator should know about the settings.
    pub fn log_notices(&self) {
        for notice in &self.notices {
            tracing::warn!("{notice}");
        }
    }
}

fn default_file() -> Option<PathBuf> {
    let [own @ .., shared] = DEFAULT_FILES.map(PathBuf::from);
    if let Some(path) = own.into_iter().find(|path| path.exists()) {
        return Some(path);
    }
    // chef-client's own file may hold Ruby that we do not read; without a whitelist it is not meant for us.
    let has_whitelist = Settings::read(&shared).is_ok_and(|settings| settings.get("whitelist").is_some());
    has_whitelist.then_some(shared)
}

/// The folder that relative things of the configuration are beside.
fn config_dir(file: Option<&Path>) -> &Path {
    file.and_then(Path::parent).filter(|p| !p.as_os_str().is_empty()).unwrap_or(match file {
        Some(_) => Path::new("."),
        None => Path::new("/etc/chef"),
    })
}

/// The lock that chef-client holds while it runs.
fn chef_lock(settings: &Settings) -> Result<PathBuf> {
    let cache = settings.path("file_cache_path")?.unwrap_or_else(|| PathBuf::from("/var/chef/cache"));
    Ok(settings.path("lockfile")?.unwrap_or_else(|| cache.join("chef-client-running.pid")))
}

fn build(args: Args, file: Option<PathBuf>, read: Settings) -> Result<Config> {
    let settings = &read;
    let mut notices = Vec::new();
    let host_name = host_name();
    let node_name =
        args.node_name.clone().or(settings.text("node_name")?).unwrap_or_else(|| full_name(&host_name));
    let node_name = NodeName::new(&node_name).map_err(|error| settings.bad("node_name", error.message()))?;
    let chef_server_url = args.server.clone().or(settings.text("chef_server_url")?).ok_or_else(|| {
        settings.bad("chef_server_url", "is missing; write the URL of the Chef server or give --server")
    })?;
    let org = organization(&chef_server_url)
        .ok_or_else(|| settings.bad("chef_server_url", "must end in /organizations/ORG_NAME"))?;
    let config_dir = config_dir(file.as_deref());
    let client_key_path = args
        .client_key
        .clone()
        .or(settings.path("client_key")?)
        .unwrap_or_else(|| PathBuf::from("/etc/chef/client.pem"));
    let client_key = read_key(&client_key_path, settings, &mut notices)?;
    let state_dir = settings.path("state_dir")?.unwrap_or_else(default_state_dir);
    let max_body_size = match args.max_body_size {
        Some(size) if size >= MIN_MAX_BODY => size,
        Some(_) => return Err(invalid(format!("--max-body-size must be at least {MIN_MAX_BODY}"))),
        None => settings
            .integer("max_body_size", MIN_MAX_BODY..=i64::from(i32::MAX))?
            .unwrap_or(DEFAULT_MAX_BODY as i64),
    };
    // In range: at least 1024, and either from an i32 or a size that a machine of ours can address.
    let max_body_size = usize::try_from(max_body_size).unwrap_or(DEFAULT_MAX_BODY);
    let whitelist::Read { whitelist, published, notices: remarkable, sources } =
        whitelist::read(settings, file.as_deref(), config_dir)?;
    let (tls, proxy) = network(settings, config_dir)?;
    let document = about::document(settings, full_name(&host_name), published)?;
    notices.extend(remarkable);
    if args.allow_unencrypted || settings.flag("allow_unencrypted")?.unwrap_or(false) {
        notices.push("allow_unencrypted has no effect: servers that do not encrypt are refused".to_owned());
    }
    let grace = settings.seconds("kill_grace")?.unwrap_or(Duration::from_secs(3));
    let policy = Policy {
        file_dir: args
            .file_dir
            .clone()
            .or(settings.path("file_dir")?)
            .unwrap_or_else(|| state_dir.join("files")),
        chef_lock: chef_lock(settings)?,
        allowed_overwritable_env_vars: settings.texts("allowed_overwritable_env_vars")?,
        environment_passthrough: settings.texts("environment_passthrough")?.unwrap_or_default(),
        grace,
        cgroup: settings.flag("job_cgroup")?.unwrap_or(true),
        capture_limit: max_body_size,
        spool: spool_limits(settings)?,
    };
    let auth_version = match settings.number_text("authentication_protocol_version")? {
        None => pushy_core::auth::Version::default(),
        Some(text) => pushy_core::auth::Version::from_text(&text)
            .map_err(|_| settings.bad("authentication_protocol_version", "must be 1.0, 1.1 or 1.3"))?,
    };
    Ok(Config {
        client_name: settings.text("client_name")?.unwrap_or_else(|| node_name.as_str().to_owned()),
        host: host_name.split('.').next().unwrap_or("localhost").to_owned(),
        tls,
        proxy,
        document,
        log: log(&args, settings)?,
        args,
        file,
        node_name,
        org,
        chef_server_url,
        client_key,
        client_key_path,
        auth_version,
        whitelist,
        policy,
        max_body_size,
        state_dir,
        notices,
        sources,
        settings: read,
    })
}

/// What is kept of captured output, and for how long.
fn spool_limits(settings: &Settings) -> Result<Limits> {
    let defaults = Limits::default();
    let bytes = |name: &str, default: u64| {
        Ok::<u64, Error>(settings.integer(name, 0..=i64::MAX)?.map_or(default, |size| size.unsigned_abs()))
    };
    Ok(Limits {
        job: bytes("output_spool_limit", defaults.job)?,
        all: bytes("output_spool_total", defaults.all)?,
        keep: settings.seconds("output_spool_keep")?.unwrap_or(defaults.keep),
    })
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidConfig, text)
}

fn organization(url: &str) -> Option<OrgName> {
    let (_, rest) = url.split_once("/organizations/")?;
    OrgName::new(rest.trim_end_matches('/')).ok()
}

fn read_key(path: &Path, settings: &Settings, notices: &mut Vec<String>) -> Result<SigningKey> {
    let pem = std::fs::read(path).map_err(|error| {
        let text = format!("cannot read {}: {error}", path.display());
        Error::new(ErrorCode::InvalidKey, settings.bad("client_key", &text).message())
    })?;
    if let Some(mode) = crate::file::open_to_others(path) {
        notices.push(format!(
            "client_key {} can be read by others (mode {mode:o}); chmod 600 it",
            path.display()
        ));
    }
    SigningKey::from_pem(pem).map_err(|error| error.context(format!("client_key {}", path.display())))
}

/// Certificates and proxies mean what they mean to every Chef program.
fn network(settings: &Settings, config_dir: &Path) -> Result<(TlsSettings, ProxySettings)> {
    let dir = std::path::absolute(config_dir).unwrap_or_else(|_| config_dir.to_owned());
    let environment =
        |name: &str| [name.to_owned(), name.to_uppercase()].iter().find_map(|n| std::env::var(n).ok());
    let (tls, proxies) =
        pushy_core::chef_config::network(settings.values(), &dir.display().to_string(), &environment)
            .map_err(|error| error.context(settings.name()))?;
    let path = |text: Option<String>| text.map(PathBuf::from);
    let tls = TlsSettings {
        no_verify: tls.no_verify,
        ca_path: path(tls.ca_path),
        ca_file: path(tls.ca_file),
        env_cert_file: path(tls.env_cert_file),
        trusted_certs_dir: path(tls.trusted_certs_dir).or_else(|| Some(dir.join("trusted_certs"))),
        client_cert: path(tls.client_cert),
        client_key: path(tls.client_key),
    };
    let proxy = ProxySettings { http: proxies.http, https: proxies.https, no_proxy: proxies.no_proxy };
    Ok((tls, proxy))
}

fn log(args: &Args, settings: &Settings) -> Result<Log> {
    let level = match args.log_level.clone().or(settings.text("log_level")?) {
        None => Level::Info,
        Some(text) => Level::parse(&text)
            .ok_or_else(|| settings.bad("log_level", "must be debug, info, warn, error or fatal"))?,
    };
    let location = match (&args.logfile, settings.get("log_location")) {
        (Some(text), _) => Location::parse(text),
        (None, Some(Value::Stderr)) => Location::Stderr,
        (None, None | Some(Value::Nil | Value::Stdout | Value::Bool(_))) => Location::Stdout,
        (None, Some(_)) => Location::parse(&settings.text("log_location")?.unwrap_or_default()),
    };
    let json = match settings.text("log_format")?.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(_) => return Err(settings.bad("log_format", "must be text or json")),
    };
    Ok(Log { level, location, json })
}

fn default_state_dir() -> PathBuf {
    const NAME: &str = "push-jobs-client";
    if nix::unistd::geteuid().is_root() {
        return Path::new("/var/lib").join(NAME);
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(state), _) => state.join(NAME),
        (None, Some(home)) => home.join(".local/state").join(NAME),
        (None, None) => std::env::temp_dir().join(format!("{NAME}-{}", nix::unistd::geteuid())),
    }
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The full name of this host, as far as `/etc/hosts` knows it: the default node name.
fn full_name(host: &str) -> String {
    if host.contains('.') {
        return host.to_owned();
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .map(|line| line.split_ascii_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|names| names.contains(&host))
        .find_map(|names| names.iter().find(|name| name.contains('.')).map(|name| (*name).to_owned()))
        .unwrap_or_else(|| host.to_owned())
}
