//! Configuration of this machine and user → a client.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pushy_core::auth::{SigningKey, Version};
use pushy_core::chef_config::{self, ClientSettings, Key, Options, Surroundings};
use pushy_core::client::{Client, ProxySettings, Settings, TlsSettings};
use pushy_core::value::Value;
use pushy_core::{Error, ErrorCode, Result};

use crate::args::Global;

/// What the files, the environment and the common options say.
pub(crate) struct Config {
    settings: ClientSettings,
}

impl Config {
    pub(crate) fn load(global: &Global) -> Result<Config> {
        let options = Options {
            config_file: global.config.clone(),
            profile: global.profile.clone(),
            server_url: global.server_url.clone(),
            user: global.user.clone(),
            key: global.key.clone(),
        };
        Ok(Config { settings: chef_config::resolve(&ThisMachine, &options)? })
    }

    /// A client for the configured server and user.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidKey`] naming the file; [`ErrorCode::InvalidConfig`] naming the setting.
    pub(crate) fn client(&self) -> Result<Client> {
        let from = &self.settings;
        let path = |path: &Option<String>| path.as_ref().map(PathBuf::from);
        let (key, source) = signing_key(&from.key)?;
        let mut settings =
            Settings::new(from.chef_server_url.as_str(), from.client_name.as_str()).with_key(key, source);
        settings.auth_version = Version::from_text(&from.auth_version).map_err(|e| {
            Error::new(ErrorCode::InvalidConfig, format!("authentication_protocol_version: {e}"))
        })?;
        settings.tls = TlsSettings {
            no_verify: from.tls.no_verify,
            ca_path: path(&from.tls.ca_path),
            ca_file: path(&from.tls.ca_file),
            env_cert_file: path(&from.tls.env_cert_file),
            trusted_certs_dir: path(&from.tls.trusted_certs_dir),
            client_cert: path(&from.tls.client_cert),
            client_key: path(&from.tls.client_key),
        };
        settings.proxy = ProxySettings {
            http: from.proxies.http.clone(),
            https: from.proxies.https.clone(),
            no_proxy: from.proxies.no_proxy.clone(),
        };
        settings.timeout = Duration::from_secs(from.rest_timeout);
        if let Some(count) = from.http_retry_count {
            settings.retries = count;
        }
        if let Some(seconds) = from.http_retry_delay {
            settings.retry_delay = Duration::from_secs(seconds);
        }
        settings.custom_headers = custom_headers(from.settings.get("custom_http_headers"))?;
        Client::new(settings)
    }

    /// `knife[:name]` as text; numbers and truths too.
    pub(crate) fn knife_text(&self, name: &str) -> Option<String> {
        match self.settings.knife(name)? {
            Value::String(text) | Value::Symbol(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    /// Whether `knife[:name]` is set and true.
    pub(crate) fn knife_flag(&self, name: &str) -> bool {
        self.settings.knife(name).is_some_and(Value::is_truthy)
    }
}

fn custom_headers(value: Option<&Value>) -> Result<Vec<(String, String)>> {
    let Some(value) = value.filter(|v| v.is_truthy()) else {
        return Ok(Vec::new());
    };
    let wrong = || {
        Error::new(
            ErrorCode::InvalidConfig,
            "custom_http_headers must be a hash of names and texts".to_owned(),
        )
    };
    let pairs = value.as_hash().ok_or_else(wrong)?;
    pairs
        .iter()
        .map(|(name, value)| match (name.as_text(), value.as_text()) {
            (Some(name), Some(value)) => Ok((name.to_owned(), value.to_owned())),
            _ => Err(wrong()),
        })
        .collect()
}

/// Reads the key; every way in which that fails names the file and who named it.
fn signing_key(key: &Key) -> Result<(SigningKey, String)> {
    let invalid = |text: String| Error::new(ErrorCode::InvalidKey, text);
    match key {
        Key::Pem { pem, source } => {
            SigningKey::from_pem(pem).map(|key| (key, source.clone())).map_err(|e| e.context(source))
        }
        Key::Path { path, source } => {
            let pem = std::fs::read(path).map_err(|error| match error.kind() {
                ErrorKind::NotFound => invalid(format!(
                    "the key {path} does not exist ({source}); give the right one with -k or client_key"
                )),
                ErrorKind::PermissionDenied => {
                    invalid(format!("the key {path} may not be read by this user ({source})"))
                }
                _ => invalid(format!("cannot read the key {path} ({source}): {}", plain(&error))),
            })?;
            SigningKey::from_pem(&pem).map(|key| (key, path.clone())).map_err(|e| e.context(path))
        }
    }
}

/// What the system says, without its error number.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The machine the program runs on.
struct ThisMachine;

impl Surroundings for ThisMachine {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(Error::new(ErrorCode::Io, format!("cannot read {path}: {}", plain(&error)))),
        }
    }

    fn is_dir(&self, path: &str) -> bool {
        Path::new(path).is_dir()
    }

    fn files(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(dir) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.path().is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    fn current_dir(&self) -> String {
        let dir = std::env::current_dir().ok().and_then(|dir| dir.into_os_string().into_string().ok());
        dir.unwrap_or_else(|| "/".to_owned())
    }

    fn login(&self) -> Option<String> {
        ["USER", "LOGNAME"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok())
            .filter(|name| !name.is_empty())
    }
}
