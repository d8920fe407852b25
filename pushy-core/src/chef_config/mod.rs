//! Workstation configuration: which files say how to reach the Chef server, in which order, and what they mean.
//!
//! Sources, later ones winning key by key (chef-config 2.1): the active profile of the credentials file, one Ruby
//! file, `config.d/*.rb` beside it, `PUSHY_SERVER_URL`, `PUSHY_USER` and `PUSHY_KEY` (decision 23), the command
//! line. The machine is asked through [`Surroundings`], so that the rules are the same, and testable, everywhere.

use std::fmt;

use crate::error::{Error, ErrorCode, Result};
use crate::ruby_config::{self, Settings};
use crate::value::Value;

mod credentials;
mod meaning;

pub use credentials::parse_toml;

/// What the rules need to know about the machine. Every path is absolute.
pub trait Surroundings {
    /// A variable of the environment.
    fn env(&self, name: &str) -> Option<String>;
    /// The content of a file; `None` when there is no such file.
    ///
    /// # Errors
    /// [`ErrorCode::Io`] naming the file when it is there and cannot be read.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>>;
    /// Whether a directory is there.
    fn is_dir(&self, path: &str) -> bool;
    /// Names of the plain files in a directory; empty when there is none.
    fn files(&self, dir: &str) -> Vec<String>;
    /// The working directory, for when `PWD` does not say it.
    fn current_dir(&self) -> String;
    /// The user's login name.
    fn login(&self) -> Option<String>;
}

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `-c`: the configuration file.
    pub config_file: Option<String>,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--server-url`.
    pub server_url: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `-k`: path of the key.
    pub key: Option<String>,
}

/// The key that requests are signed with.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// A PEM file, and who named it.
    Path {
        /// Absolute path.
        path: String,
        /// What to name in messages, such as `client_key of /home/x/.chef/config.rb`.
        source: String,
    },
    /// PEM text, and who gave it.
    Pem {
        /// The text; a secret.
        pem: String,
        /// What to name in messages.
        source: String,
    },
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Path { path, source } => write!(f, "Path({path:?}, {source:?})"),
            Key::Pem { source, .. } => write!(f, "Pem({source:?})"),
        }
    }
}

/// TLS settings (chef-auth 9.12). Paths are absolute and not yet looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// `ssl_verify_mode :verify_none` without `verify_api_cert`: certificates are not checked.
    pub no_verify: bool,
    /// `ssl_ca_path`; wins over the next two.
    pub ca_path: Option<String>,
    /// `ssl_ca_file`; wins over the next.
    pub ca_file: Option<String>,
    /// `SSL_CERT_FILE` of the environment.
    pub env_cert_file: Option<String>,
    /// `trusted_certs_dir`, or its default; need not exist.
    pub trusted_certs_dir: Option<String>,
    /// `ssl_client_cert`.
    pub client_cert: Option<String>,
    /// `ssl_client_key`.
    pub client_key: Option<String>,
}

/// Proxy settings (chef-auth 9.11). May hold passwords: not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` servers.
    pub http: Option<String>,
    /// For `https://` servers.
    pub https: Option<String>,
    /// Servers asked directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// Everything a program needs to talk to the server as the user.
#[derive(Clone, PartialEq)]
pub struct ClientSettings {
    /// `chef_server_url`, trimmed; starts with `http://` or `https://`.
    pub chef_server_url: String,
    /// The name requests are signed as.
    pub client_name: String,
    /// The key.
    pub key: Key,
    /// `authentication_protocol_version`, `1.1` when nothing sets it.
    pub auth_version: String,
    /// TLS settings.
    pub tls: Tls,
    /// Proxies.
    pub proxies: Proxies,
    /// `rest_timeout` in seconds.
    pub rest_timeout: u64,
    /// `http_retry_count`, when set.
    pub http_retry_count: Option<u32>,
    /// `http_retry_delay` in seconds, when set.
    pub http_retry_delay: Option<u64>,
    /// Members of `knife[…]`: settings of the commands.
    pub knife: Vec<(String, Value)>,
    /// Everything the files set, merged.
    pub settings: Settings,
    /// The files that were read, in order; with the profile, when one was taken.
    pub sources: Vec<String>,
}

/// Without the members of `knife`, which may be passwords.
impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("chef_server_url", &self.chef_server_url)
            .field("client_name", &self.client_name)
            .field("key", &self.key)
            .field("tls", &self.tls)
            .field("proxies", &self.proxies)
            .field("settings", &self.settings)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

impl ClientSettings {
    /// A setting of the commands, such as `knife[:lenient_exit]`.
    pub fn knife(&self, name: &str) -> Option<&Value> {
        self.knife.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidConfig, message)
}

/// Where the configuration is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Places {
    /// The working directory, symbolic links kept (`PWD`).
    here: String,
    /// `~/.chef`.
    dot_chef: String,
}

impl Places {
    fn find(surroundings: &dyn Surroundings) -> Places {
        let here = match surroundings.env("PWD") {
            Some(pwd) if pwd.starts_with('/') && surroundings.is_dir(&pwd) => pwd,
            _ => surroundings.current_dir(),
        };
        let home = ["KNIFE_HOME", "CHEF_HOME", "HOME"]
            .into_iter()
            .filter_map(|name| surroundings.env(name))
            .filter(|dir| !dir.is_empty())
            .map(|dir| absolute(&dir, &here))
            .find(|dir| surroundings.is_dir(dir))
            .unwrap_or_else(|| here.clone());
        Places { here, dot_chef: beside(&home, ".chef") }
    }
}

/// `dir/name` with one slash.
fn beside(dir: &str, name: &str) -> String {
    format!("{}/{name}", dir.trim_end_matches('/'))
}

/// `path` as seen from `dir`.
fn absolute(path: &str, dir: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { beside(dir, path) }
}

fn parent(path: &str) -> Option<&str> {
    let trimmed = path.trim_end_matches('/');
    let slash = trimmed.rfind('/')?;
    Some(if slash == 0 { "/" } else { &trimmed[..slash] })
}

/// The configuration file: the one asked for, or the first that exists (chef-config 2.1).
fn config_file(
    surroundings: &dyn Surroundings,
    places: &Places,
    asked: Option<&str>,
) -> Result<Option<(String, Vec<u8>)>> {
    if let Some(asked) = asked {
        let path = absolute(asked, &places.here);
        return match surroundings.read(&path)? {
            Some(source) => Ok(Some((path, source))),
            None => Err(invalid(format!("{path}: the configuration file does not exist"))),
        };
    }
    let mut dirs = Vec::new();
    dirs.extend(surroundings.env("KNIFE_HOME").filter(|d| !d.is_empty()).map(|d| absolute(&d, &places.here)));
    dirs.push(places.here.clone());
    // The nearest .chef counts by its existence alone: an empty one hides those above it.
    let mut above = Some(places.here.as_str());
    while let Some(dir) = above {
        let dot_chef = beside(dir, ".chef");
        if surroundings.is_dir(&dot_chef) {
            dirs.push(dot_chef);
            break;
        }
        above = parent(dir).filter(|up| *up != dir);
    }
    dirs.push(places.dot_chef.clone());
    for dir in dirs {
        for name in ["config.rb", "knife.rb"] {
            let path = beside(&dir, name);
            if let Some(source) = surroundings.read(&path)? {
                return Ok(Some((path, source)));
            }
        }
    }
    Ok(None)
}

/// Finds, reads and interprets the configuration.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] naming file, place and the way out; [`ErrorCode::Io`] for a file that cannot be read.
pub fn resolve(surroundings: &dyn Surroundings, options: &Options) -> Result<ClientSettings> {
    let places = Places::find(surroundings);
    let environment = |name: &str| match name {
        // What `File.expand_path` and the like are to see.
        "PWD" => Some(places.here.clone()),
        name => surroundings.env(name),
    };
    let mut gathered = meaning::Gathered::default();
    if let Some(profile) = credentials::load(surroundings, &places, options.profile.as_deref())? {
        gathered.take(profile.settings, &profile.source, &places.dot_chef);
    }
    let file = config_file(surroundings, &places, options.config_file.as_deref())?;
    let beside_dir = match &file {
        Some((path, _)) => parent(path).unwrap_or("/").to_owned(),
        None => places.dot_chef.clone(),
    };
    if let Some((path, source)) = file {
        gathered.take(ruby_config::read(&path, &source, &environment)?, &path, &beside_dir);
    }
    let config_d = gathered.path("config_d_dir").unwrap_or_else(|| beside(&beside_dir, "config.d"));
    let mut names = surroundings.files(&config_d);
    names.retain(|name| name.ends_with(".rb"));
    names.sort();
    for name in names {
        let path = beside(&config_d, &name);
        if let Some(source) = surroundings.read(&path)? {
            gathered.take(ruby_config::read(&path, &source, &environment)?, &path, &beside_dir);
        }
    }
    gathered.finish(surroundings, &places, &beside_dir, options)
}

/// TLS and proxy settings of any settings, for programs that find their configuration in another way (the agent).
///
/// Relative paths are taken from `dir`; `environment` answers for `SSL_CERT_FILE` and the proxy variables.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] naming the setting of the wrong kind.
pub fn network(
    settings: &Settings,
    dir: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Tls, Proxies)> {
    Ok((meaning::tls(settings, dir, environment)?, meaning::proxies(settings, environment)?))
}
