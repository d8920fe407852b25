//! Where the log goes: standard output, standard error or a file; lines of text or of JSON.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use pushy_core::ids::JobId;
use pushy_core::server::LogLevel;
use tracing::level_filters::LevelFilter;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Debug,
    /// Normal life.
    Info,
    /// What somebody should know.
    Warn,
    /// What is broken.
    Error,
}

impl Level {
    /// Chef's names, with or without a colon; `auto` is `info`.
    pub fn parse(text: &str) -> Option<Level> {
        match text.trim_start_matches(':') {
            "trace" | "debug" => Some(Level::Debug),
            "info" | "auto" => Some(Level::Info),
            "warn" => Some(Level::Warn),
            "error" | "fatal" => Some(Level::Error),
            _ => None,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error => LevelFilter::ERROR,
        }
    }
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

impl Location {
    /// `STDOUT`, `STDERR` or a path.
    pub fn parse(text: &str) -> Location {
        match text {
            "" | "STDOUT" => Location::Stdout,
            "STDERR" => Location::Stderr,
            path => Location::File(path.into()),
        }
    }
}

/// The log's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How much.
    pub level: Level,
    /// Where to.
    pub location: Location,
    /// JSON lines in place of text.
    pub json: bool,
}

impl Log {
    /// Makes this the log of the whole process.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn start(&self) -> io::Result<()> {
        let builder =
            tracing_subscriber::fmt().with_max_level(self.level.filter()).with_target(false).with_ansi(false);
        let done = match &self.location {
            Location::Stdout if self.json => builder.json().try_init(),
            Location::Stdout => builder.try_init(),
            Location::Stderr if self.json => builder.with_writer(io::stderr).json().try_init(),
            Location::Stderr => builder.with_writer(io::stderr).try_init(),
            Location::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot open log file {}: {error}", path.display()))
                })?;
                if self.json {
                    builder.with_writer(Mutex::new(file)).json().try_init()
                } else {
                    builder.with_writer(Mutex::new(file)).try_init()
                }
            }
        };
        done.map_err(io::Error::other)
    }
}

/// Text from outside goes to the log without control characters.
pub(crate) fn say(level: LogLevel, job: Option<&JobId>, text: &str) {
    let text: String = text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    let job = job.map(tracing::field::display);
    match level {
        LogLevel::Debug => tracing::debug!(job, "{text}"),
        LogLevel::Info => tracing::info!(job, "{text}"),
        LogLevel::Warn => tracing::warn!(job, "{text}"),
        LogLevel::Error => tracing::error!(job, "{text}"),
    }
}
