//! The credentials file: TOML, one table for each profile (chef-config 3).

use super::{Places, Surroundings, absolute, beside, invalid};
use crate::error::Result;
use crate::ruby_config::Settings;
use crate::value::Value;

/// The profile taken when nothing names one.
const DEFAULT: &str = "default";

/// What a profile says.
pub(super) struct Profile {
    pub(super) settings: Settings,
    /// File and profile, for messages.
    pub(super) source: String,
}

/// Reads TOML as settings; `file` is for messages.
///
/// # Errors
/// [`crate::ErrorCode::InvalidConfig`] as `FILE:LINE:COLUMN: what is wrong`, without quoting the file, as it may hold keys.
pub fn parse_toml(file: &str, source: &[u8]) -> Result<Settings> {
    let Ok(text) = std::str::from_utf8(source) else {
        return Err(invalid(format!("{file}: the file is not UTF-8: save it as UTF-8")));
    };
    let value: Value = toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..at).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let message = e.message().lines().next().unwrap_or("not valid").to_owned();
        invalid(format!("{file}:{line}:{column}: not valid TOML: {message}"))
    })?;
    let mut settings = Settings::default();
    if let Value::Hash(pairs) = value {
        for (key, value) in pairs {
            if let Value::String(key) = key {
                settings.set(&key, value);
            }
        }
    }
    Ok(settings)
}

/// The active profile, or `None` when there is no credentials file or no `default` in it.
pub(super) fn load(
    surroundings: &dyn Surroundings,
    places: &Places,
    asked: Option<&str>,
) -> Result<Option<Profile>> {
    let named = match asked {
        Some(name) => Some(name.to_owned()),
        // Set at all: an empty value names the profile "".
        None => surroundings.env("CHEF_PROFILE"),
    };
    let from_environment = surroundings.env("CHEF_CREDENTIALS_FILE").filter(|path| !path.is_empty());
    let usual = beside(&places.dot_chef, "credentials");
    let mut found = None;
    for path in from_environment.map(|p| absolute(&p, &places.here)).into_iter().chain([usual.clone()]) {
        if let Some(source) = surroundings.read(&path)? {
            found = Some((path, source));
            break;
        }
    }
    let Some((path, source)) = found else {
        return match asked {
            Some(name) => Err(invalid(format!("profile {name:?}: there is no credentials file {usual}"))),
            None => Ok(None),
        };
    };
    let name = match named {
        Some(name) => name,
        None => {
            let context = surroundings.read(&beside(&places.dot_chef, "context"))?;
            let context = context.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
            context.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT.to_owned())
        }
    };
    let file = parse_toml(&path, &source)?;
    let Some(Value::Hash(pairs)) = file.get(&name) else {
        if name == DEFAULT {
            return Ok(None);
        }
        let known: Vec<&str> =
            file.iter().filter(|(_, table)| table.as_hash().is_some()).map(|(name, _)| name).collect();
        return Err(invalid(format!(
            "{path}: there is no profile {name:?}; there are: {}",
            known.join(", ")
        )));
    };
    let source = format!("{path}, profile {name}");
    profile(pairs, &source).map(|settings| Some(Profile { settings, source }))
}

/// A profile's table as settings with the names of configuration files.
fn profile(pairs: &[(Value, Value)], source: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    let has = |name: &str| pairs.iter().any(|(key, _)| key.as_str() == Some(name));
    if has("client_name") && has("node_name") {
        return Err(invalid(format!("{source}: client_name and node_name are both set: keep one")));
    }
    for (key, value) in pairs {
        let Some(key) = key.as_str() else { continue };
        if value.member("secret").is_some() {
            return Err(invalid(format!(
                "{source}: {key} is to be fetched from a secrets store, which is not supported: write the value"
            )));
        }
        match (key, value) {
            ("client_name", value) => settings.set("node_name", value.clone()),
            // The original takes only PKCS#1 for text; any PEM heading is as clear.
            ("client_key", Value::String(text)) if text.trim_start().starts_with("-----BEGIN ") => {
                settings.set("client_key_contents", value.clone());
            }
            ("knife", Value::Hash(members)) => {
                for (member, value) in members {
                    if let Value::String(member) = member {
                        settings.set_member("knife", Value::Symbol(member.clone()), value.clone());
                    }
                }
            }
            (key, value) => settings.set(key, value.clone()),
        }
    }
    Ok(settings)
}
