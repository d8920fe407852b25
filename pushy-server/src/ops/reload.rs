//! What changes while the server runs: certificate and key, the log level, the file of the audit log.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum_server::tls_openssl::OpenSSLConfig;
use pushy_core::Result;
use tracing::level_filters::LevelFilter;

use super::{Ops, notify};
use crate::config::{self, Config};
use crate::tls;

/// Sets the level of log lines; there is one log in a process.
static SET_LEVEL: OnceLock<Box<dyn Fn(LevelFilter) + Send + Sync>> = OnceLock::new();

/// Takes note of how the level is set.
pub(crate) fn on_level(set: Box<dyn Fn(LevelFilter) + Send + Sync>) {
    // A second log in one process would be a test's.
    let _ = SET_LEVEL.set(set);
}

/// What tells one version of a file from another without reading it.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
}

/// Settings that a reload puts into effect; the others need a restart.
const LIVE: &[&str] = &["log_level", "tls_cert", "tls_key"];

/// See the module.
pub struct Reload {
    dir: PathBuf,
    ops: Arc<Ops>,
    tls: Option<OpenSSLConfig>,
    /// `--log-level` was given: it wins.
    keep_level: bool,
    state: Mutex<State>,
}

struct State {
    /// The settings that the server started with, as far as they cannot change.
    started: String,
    level: LevelFilter,
    files: Option<(PathBuf, PathBuf)>,
    stamps: [Stamp; 2],
    /// What was last wrong with them.
    trouble: Option<String>,
}

impl Reload {
    pub(crate) fn new(config: &Config, ops: Arc<Ops>, tls: Option<OpenSSLConfig>) -> Reload {
        let started = std::fs::read_to_string(config.dir.join(config::FILE)).unwrap_or_default();
        let stamps = match &config.tls {
            Some((cert, key)) => [stamp(cert), stamp(key)],
            None => [None, None],
        };
        let level = config.operation.log_level.0;
        let state = State { started, level, files: config.tls.clone(), stamps, trouble: None };
        let keep_level = config.keep_log_level;
        Reload { dir: config.dir.clone(), ops, tls, keep_level, state: Mutex::new(state) }
    }

    /// Reads everything again. Answers what was done and what was not, a line each; a thing that cannot be used leaves the
    /// old one in use.
    pub fn now(&self) -> Vec<String> {
        notify::tell(&notify::reloading());
        let mut lines = Vec::new();
        let mut say = |bad: bool, line: String| {
            if bad {
                tracing::error!("reload: {line}");
            } else {
                tracing::info!("reload: {line}");
            }
            lines.push(line);
        };
        match Config::load(&self.dir) {
            Err(error) => say(true, format!("the settings stay as they are: {}", error.message())),
            Ok(config) => {
                if let Some(level) = self.take_level(&config) {
                    say(false, format!("log_level is {level} now"));
                }
                let text = std::fs::read_to_string(self.dir.join(config::FILE)).unwrap_or_default();
                let mut state = self.state();
                for name in config::differences(&state.started, &text) {
                    if !LIVE.contains(&name) {
                        say(false, format!("{name} has changed: restart the server to put it into effect"));
                    }
                }
                match (&config.tls, &self.tls) {
                    (Some(files), Some(_)) => state.files = Some(files.clone()),
                    (None, None) => {}
                    _ => say(false, "TLS was switched: restart the server to put it into effect".into()),
                }
            }
        }
        match self.read_certificate() {
            Ok(true) => say(false, "certificate and key were read".into()),
            Ok(false) => {}
            Err(error) => say(true, format!("the old certificate stays in use: {}", error.message())),
        }
        match self.ops.audit.reopen() {
            Ok(()) => {}
            Err(error) => say(true, format!("the old audit log stays in use: {}", error.message())),
        }
        notify::tell("READY=1");
        lines
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change of it is a single assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_level(&self, config: &Config) -> Option<LevelFilter> {
        let level = config.operation.log_level.0;
        let mut state = self.state();
        if self.keep_level || state.level == level {
            return None;
        }
        state.level = level;
        if let Some(set) = SET_LEVEL.get() {
            set(level);
        }
        Some(level)
    }

    /// Whether there was anything to read.
    fn read_certificate(&self) -> Result<bool> {
        let Some(tls) = &self.tls else { return Ok(false) };
        let Some((cert, key)) = self.state().files.clone() else { return Ok(false) };
        // Before the files: what changes while they are read is read again.
        let stamps = [stamp(&cert), stamp(&key)];
        tls.reload_from_acceptor(tls::acceptor_of(&cert, &key)?);
        // Not sooner: what cannot be read is tried again, since a change of its owner shows in no stamp.
        let mut state = self.state();
        (state.stamps, state.trouble) = (stamps, None);
        Ok(true)
    }

    /// Reads certificate and key again if a file has changed since the last look.
    fn look(&self) {
        let changed = {
            let state = self.state();
            state.files.as_ref().is_some_and(|(cert, key)| [stamp(cert), stamp(key)] != state.stamps)
        };
        if !changed {
            return;
        }
        match self.read_certificate() {
            Ok(_) => tracing::info!("certificate and key have changed and were read"),
            Err(error) => {
                let text = error.message();
                if self.state().trouble.replace(text.to_owned()).as_deref() != Some(text) {
                    tracing::error!("certificate or key have changed, but the old ones stay in use: {text}");
                }
            }
        }
    }

    /// Looks at the files of the certificate now and then, and reloads on HUP, until dropped.
    pub(crate) async fn watch(self: Arc<Self>, every: std::time::Duration) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hup = match signal(SignalKind::hangup()) {
            Ok(hup) => hup,
            Err(error) => return tracing::error!("signal handlers: {error}"),
        };
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = hup.recv() => drop(self.now()),
                _ = ticks.tick(), if self.tls.is_some() => self.look(),
            }
        }
    }
}
