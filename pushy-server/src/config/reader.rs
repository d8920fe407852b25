//! Reading `server.toml`: values of the wanted kind, errors that name line, setting and remedy.

use std::net::SocketAddr;
use std::time::Duration;

use pushy_core::time::Millis;
use pushy_core::{Error, ErrorCode, Result};
use toml::de::{DeTable, DeValue};

/// Takes settings out of a parsed file; what is left at the end is unknown.
pub(super) struct Reader<'a> {
    file: &'a str,
    source: &'a str,
    table: DeTable<'a>,
    seen: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, source: &'a str) -> Result<Reader<'a>> {
        match DeTable::parse(source) {
            Ok(table) => Ok(Reader { file, source, table: table.into_inner(), seen: Vec::new() }),
            Err(e) => {
                let line = e.span().map_or(1, |span| line_of(source, span.start));
                let what = e.message().lines().next().unwrap_or("not TOML");
                Err(Error::new(ErrorCode::InvalidConfig, format!("{file}:{line}: {what}")))
            }
        }
    }

    pub(super) fn take<T>(
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

    pub(super) fn error(&self, name: &str, what: &str) -> Error {
        let at = self.table.get(name).map_or(0, |value| value.span().start);
        let line = line_of(self.source, at);
        Error::new(ErrorCode::InvalidConfig, format!("{}:{line}: `{name}` {what}", self.file))
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name, "a text in quotes that is not empty", |v| {
            v.as_str().filter(|t| !t.is_empty()).map(str::to_owned)
        })
    }

    pub(super) fn tcp(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name, "\"tcp://HOST:PORT\"", |v| {
            let rest = v.as_str()?.strip_prefix("tcp://")?;
            let (host, port) = rest.rsplit_once(':')?;
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host_ok = !host.is_empty() && (bare.is_some() || !host.contains(':'));
            (host_ok && port.parse::<u16>().is_ok()).then(|| format!("tcp://{rest}"))
        })
    }

    pub(super) fn url(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name, "\"http://HOST:PORT\" or \"https://HOST:PORT\"", |v| {
            let text = v.as_str()?;
            let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
            (!rest.is_empty()).then(|| text.to_owned())
        })
    }

    pub(super) fn address(&mut self, name: &'static str, port: u16) -> Result<SocketAddr> {
        let wanted = "\"ADDRESS:PORT\", e.g. \"127.0.0.1:10003\" or \"[::1]:10003\"";
        let given = self.take(name, wanted, |v| v.as_str()?.parse().ok())?;
        Ok(given.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port))))
    }

    pub(super) fn duration(&mut self, name: &'static str, default_ms: u64) -> Result<Millis> {
        let seconds = self.number(name, 0.01, 86_400.0)?;
        Ok(seconds.map_or(Millis(default_ms), |secs| Millis((secs * 1000.0).round() as u64)))
    }

    pub(super) fn seconds(
        &mut self,
        name: &'static str,
        least: f64,
        most: f64,
        default: f64,
    ) -> Result<Duration> {
        Ok(Duration::from_secs_f64(self.number(name, least, most)?.unwrap_or(default)))
    }

    fn number(&mut self, name: &'static str, least: f64, most: f64) -> Result<Option<f64>> {
        self.take(name, &format!("seconds, at least {least} and at most {most}"), |v| {
            let secs: f64 = match v {
                DeValue::Integer(n) => n.to_string().parse().ok()?,
                DeValue::Float(n) => n.as_str().parse().ok()?,
                _ => return None,
            };
            (least..=most).contains(&secs).then_some(secs)
        })
    }

    /// Whether the file sets it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.get(name).is_some()
    }

    pub(super) fn integer(&mut self, name: &'static str, least: u32, most: u32, default: u32) -> Result<u32> {
        let given = self.take(name, &format!("a whole number from {least} to {most}"), |v| match v {
            DeValue::Integer(n) => n.to_string().parse().ok().filter(|n| (least..=most).contains(n)),
            _ => None,
        })?;
        Ok(given.unwrap_or(default))
    }

    pub(super) fn boolean(&mut self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.take(name, "true or false", |v| v.as_bool())?.unwrap_or(default))
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> Result<T> {
        let names: Vec<String> = choices.iter().map(|(n, _)| format!("\"{n}\"")).collect();
        let given = self.take(name, &names.join(" or "), |v| {
            let text = v.as_str()?;
            choices.iter().find(|(n, _)| *n == text).map(|(_, value)| *value)
        })?;
        Ok(given.unwrap_or(default))
    }

    pub(super) fn finish(&self) -> Result<()> {
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
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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
