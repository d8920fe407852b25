//! What settings mean once they are read: kinds, defaults, and which directory a relative path is taken from.

use super::{ClientSettings, Key, Options, Places, Proxies, Surroundings, Tls, absolute, beside, invalid};
use crate::error::Result;
use crate::ruby_config::Settings;
use crate::value::Value;

/// Settings that are paths; relative ones are taken from the directory of the file that sets them.
const PATHS: [&str; 7] = [
    "client_key",
    "ssl_ca_path",
    "ssl_ca_file",
    "ssl_client_cert",
    "ssl_client_key",
    "trusted_certs_dir",
    "config_d_dir",
];

/// Settings of all sources, later ones winning, and who set the key.
#[derive(Default)]
pub(super) struct Gathered {
    settings: Settings,
    sources: Vec<String>,
    key_source: Option<String>,
    contents_source: Option<String>,
}

impl Gathered {
    /// Takes over a source's settings; its relative paths are taken from `dir`.
    pub(super) fn take(&mut self, mut settings: Settings, source: &str, dir: &str) {
        for name in PATHS {
            if let Some(Value::String(path)) = settings.get(name) {
                let path = absolute(path, dir);
                settings.set(name, Value::String(path));
            }
        }
        if settings.get("client_key").is_some() {
            self.key_source = Some(format!("client_key of {source}"));
        }
        if settings.get("client_key_contents").is_some() {
            self.contents_source = Some(format!("client_key of {source}"));
        }
        self.settings.merge(settings);
        self.sources.push(source.to_owned());
    }

    /// A path that is set so far.
    pub(super) fn path(&self, name: &str) -> Option<String> {
        self.settings.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    /// Applies environment, command line and defaults.
    pub(super) fn finish(
        self,
        surroundings: &dyn Surroundings,
        places: &Places,
        beside_dir: &str,
        options: &Options,
    ) -> Result<ClientSettings> {
        let settings = &self.settings;
        let variable = |name: &str| surroundings.env(name).filter(|value| !value.is_empty());
        let chosen = |option: &Option<String>, name: &str| option.clone().or_else(|| variable(name));

        let url = match chosen(&options.server_url, "PUSHY_SERVER_URL") {
            Some(url) => Some(url),
            None => text(settings, "chef_server_url")?,
        };
        let Some(url) = url.map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()) else {
            return Err(invalid(format!(
                "no chef_server_url: set it in {}, in a config.rb, in PUSHY_SERVER_URL, or give --server-url",
                beside(&places.dot_chef, "credentials")
            )));
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(invalid("chef_server_url must start with http:// or https://"));
        }
        let client_name = match chosen(&options.user, "PUSHY_USER") {
            Some(name) => name,
            None => match text(settings, "node_name")? {
                Some(name) => name,
                None => surroundings.login().ok_or_else(|| {
                    invalid(
                        "no user name: set client_name in the credentials file, PUSHY_USER, or give --user",
                    )
                })?,
            },
        };
        let key = self.key(surroundings, places, beside_dir, options, &client_name)?;
        let environment = |name: &str| surroundings.env(name);
        let mut tls = tls(settings, beside_dir, &environment)?;
        if tls.trusted_certs_dir.is_none() {
            let places = [beside_dir, places.dot_chef.as_str()].map(|dir| beside(dir, "trusted_certs"));
            tls.trusted_certs_dir = places.into_iter().find(|dir| surroundings.is_dir(dir));
        }
        let knife = match settings.get("knife") {
            None | Some(Value::Nil) => Vec::new(),
            Some(Value::Hash(pairs)) => {
                let named = pairs.iter().filter_map(|(k, v)| Some((k.as_text()?.to_owned(), v.clone())));
                named.collect()
            }
            Some(other) => return Err(wrong("knife", other, "a hash")),
        };
        Ok(ClientSettings {
            chef_server_url: url,
            client_name,
            key,
            auth_version: match settings.get("authentication_protocol_version") {
                // Without quotes it is a number.
                Some(Value::Float(version)) => format!("{version:.1}"),
                _ => text(settings, "authentication_protocol_version")?.unwrap_or_else(|| "1.1".to_owned()),
            },
            tls,
            proxies: proxies(settings, &environment)?,
            rest_timeout: number(settings, "rest_timeout")?.unwrap_or(300),
            http_retry_count: number(settings, "http_retry_count")?
                .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            http_retry_delay: number(settings, "http_retry_delay")?,
            knife,
            settings: self.settings,
            sources: self.sources,
        })
    }

    fn key(
        &self,
        surroundings: &dyn Surroundings,
        places: &Places,
        beside_dir: &str,
        options: &Options,
        client_name: &str,
    ) -> Result<Key> {
        if let Some(path) = &options.key {
            return Ok(Key::Path { path: absolute(path, &places.here), source: "--key".to_owned() });
        }
        if let Some(value) = surroundings.env("PUSHY_KEY").filter(|value| !value.is_empty()) {
            let source = "PUSHY_KEY".to_owned();
            return Ok(if value.trim_start().starts_with("-----BEGIN ") {
                Key::Pem { pem: value, source }
            } else {
                Key::Path { path: absolute(&value, &places.here), source }
            });
        }
        if let Some(pem) = text(&self.settings, "client_key_contents")? {
            let source = self.contents_source.clone().unwrap_or_else(|| "client_key_contents".to_owned());
            return Ok(Key::Pem { pem, source });
        }
        if let Some(path) = text(&self.settings, "client_key")? {
            let source = self.key_source.clone().unwrap_or_else(|| "client_key".to_owned());
            return Ok(Key::Path { path, source });
        }
        let source = "the default for client_key".to_owned();
        let first = format!("{client_name}.pem");
        for name in [first.as_str(), "user.pem"] {
            // A name with a slash would lead elsewhere.
            for dir in [beside_dir, &places.dot_chef] {
                let path = beside(dir, name);
                if !name.contains('/') && surroundings.read(&path)?.is_some() {
                    return Ok(Key::Path { path, source });
                }
            }
        }
        Ok(Key::Path { path: "/etc/chef/client.pem".to_owned(), source })
    }
}

fn wrong(name: &str, value: &Value, needed: &str) -> crate::Error {
    invalid(format!("{name} is {}; it must be {needed}", value.kind()))
}

fn text(settings: &Settings, name: &str) -> Result<Option<String>> {
    match settings.get(name) {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(name, other, "a string")),
    }
}

fn number(settings: &Settings, name: &str) -> Result<Option<u64>> {
    match settings.get(name) {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Integer(number)) if *number >= 0 => Ok(Some(number.unsigned_abs())),
        Some(other) => Err(wrong(name, other, "a whole number, not negative")),
    }
}

pub(super) fn tls(
    settings: &Settings,
    dir: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Tls> {
    let path = |name: &str| Ok::<_, crate::Error>(text(settings, name)?.map(|path| absolute(&path, dir)));
    let verify_none = match settings.get("ssl_verify_mode") {
        None | Some(Value::Nil) => false,
        Some(mode) => match mode.as_text().map(|mode| mode.trim_start_matches(':')) {
            Some("verify_peer") => false,
            Some("verify_none") => true,
            _ => return Err(invalid("ssl_verify_mode must be :verify_peer or :verify_none")),
        },
    };
    let verify_api = match settings.get("verify_api_cert") {
        None | Some(Value::Nil) => false,
        Some(Value::Bool(verify)) => *verify,
        Some(other) => return Err(wrong("verify_api_cert", other, "true or false")),
    };
    let tls = Tls {
        no_verify: verify_none && !verify_api,
        ca_path: path("ssl_ca_path")?,
        ca_file: path("ssl_ca_file")?,
        env_cert_file: environment("SSL_CERT_FILE").filter(|path| !path.is_empty()),
        trusted_certs_dir: path("trusted_certs_dir")?,
        client_cert: path("ssl_client_cert")?,
        client_key: path("ssl_client_key")?,
    };
    if tls.client_cert.is_some() != tls.client_key.is_some() {
        return Err(invalid("ssl_client_cert and ssl_client_key belong together: set both or neither"));
    }
    Ok(tls)
}

pub(super) fn proxies(settings: &Settings, environment: &dyn Fn(&str) -> Option<String>) -> Result<Proxies> {
    // What the environment says already is not overwritten by the file.
    let proxy = |scheme: &str| -> Result<Option<String>> {
        let name = format!("{scheme}_proxy");
        if let Some(value) = environment(&name).filter(|value| !value.is_empty()) {
            return Ok(Some(value));
        }
        let Some(address) = text(settings, &name)?.filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let Some(user) = text(settings, &format!("{name}_user"))? else { return Ok(Some(address)) };
        let pass = text(settings, &format!("{name}_pass"))?.unwrap_or_default();
        // A name without a scheme is a plain proxy.
        let (scheme, rest) = address.split_once("://").unwrap_or(("http", &address));
        Ok(Some(format!("{scheme}://{}:{}@{rest}", percent(&user), percent(&pass))))
    };
    let no_proxy = match environment("no_proxy").filter(|value| !value.is_empty()) {
        Some(value) => Some(value),
        None => match settings.get("no_proxy") {
            Some(Value::Array(entries)) => {
                let entries: Option<Vec<&str>> = entries.iter().map(Value::as_str).collect();
                Some(
                    entries
                        .ok_or_else(|| invalid("no_proxy must be a string or a list of strings"))?
                        .join(","),
                )
            }
            _ => text(settings, "no_proxy")?,
        },
    };
    Ok(Proxies { http: proxy("http")?, https: proxy("https")?, no_proxy })
}

/// Percent-encodes what may not stand in an address's user part.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
