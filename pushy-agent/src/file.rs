//! The configuration file's settings by name, with errors that name file and setting.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pushy_core::ruby_config;
use pushy_core::value::Value;
use pushy_core::{Error, ErrorCode, Result};

/// What a file says; without a file, nothing.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    name: String,
    values: ruby_config::Settings,
    digest: u64,
}

impl Settings {
    /// Reads Ruby, or TOML when the name ends in `.toml`.
    pub(crate) fn read(path: &Path) -> Result<Settings> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = path.display().to_string();
        let invalid = |text: String| Error::new(ErrorCode::InvalidConfig, text);
        let source = std::fs::read(&path).map_err(|error| invalid(format!("cannot read {name}: {error}")))?;
        let values = if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::str::from_utf8(&source)
                .map_err(|_| invalid(format!("{name}: the file is not UTF-8")))?;
            let table: std::collections::BTreeMap<String, Value> = toml::from_str(text).map_err(|error| {
                let line = error
                    .span()
                    .map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                invalid(format!("{name}:{line}: {}", error.message().replace('\n', " ")))
            })?;
            let mut values = ruby_config::Settings::default();
            for (key, value) in table {
                values.set(&key, value);
            }
            values
        } else {
            ruby_config::read(&name, &source, &|name| std::env::var(name).ok())?
        };
        let mut digest = DefaultHasher::new();
        source.hash(&mut digest);
        Ok(Settings { name, values, digest: digest.finish() })
    }

    /// Changes with the file's bytes.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The file, for messages.
    pub(crate) fn name(&self) -> &str {
        if self.name.is_empty() { "configuration" } else { &self.name }
    }

    /// An error about a setting.
    pub(crate) fn bad(&self, key: &str, what: &str) -> Error {
        Error::new(ErrorCode::InvalidConfig, format!("{}: {key} {what}", self.name()))
    }

    /// A value as written; `nil` too.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All of them.
    pub(crate) fn values(&self) -> &ruby_config::Settings {
        &self.values
    }

    fn read_as<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None | Some(Value::Nil) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.bad(key, &format!("must be {what}, not {}", value.kind()))),
            },
        }
    }

    /// A text or symbol.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>> {
        self.read_as(key, "a text", |value| value.as_text().map(str::to_owned))
    }

    /// A text or number, as text.
    pub(crate) fn number_text(&self, key: &str) -> Result<Option<String>> {
        self.read_as(key, "a number or text", |value| match value {
            Value::Float(number) => Some(number.to_string()),
            value => value.as_text().map(str::to_owned),
        })
    }

    /// A path.
    pub(crate) fn path(&self, key: &str) -> Result<Option<PathBuf>> {
        Ok(self.text(key)?.map(PathBuf::from))
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read_as(key, "true or false", Value::as_bool)
    }

    /// A whole number.
    pub(crate) fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let number = self.read_as(key, &what, Value::as_integer)?;
        match number {
            Some(number) if !range.contains(&number) => Err(self.bad(key, &format!("must be {what}"))),
            other => Ok(other),
        }
    }

    /// A number of seconds, fractions allowed.
    pub(crate) fn seconds(&self, key: &str) -> Result<Option<Duration>> {
        self.read_as(key, "a number of seconds from 0 to 3600", |value| {
            let seconds = match value {
                Value::Float(seconds) => *seconds,
                value => value.as_integer()? as f64,
            };
            (0.0..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
        })
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.read_as(key, "a list of texts", |value| {
            value.as_array()?.iter().map(|item| item.as_text().map(str::to_owned)).collect()
        })
    }
}

/// The mode of a secret file that others than its owner may read.
pub(crate) fn open_to_others(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}
