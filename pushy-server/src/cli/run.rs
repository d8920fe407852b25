//! Running the server, and what is said to a running one about its life.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use pushy_core::{Error, ErrorCode, Result};
use serde_json::Value;
use tracing::level_filters::LevelFilter;

use super::{Out, say};
use crate::admin::{Command, ask};
use crate::config::Config;
use crate::ops::{notify, reload};
use crate::{Listeners, doctor, files};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The server's directory
    pub(super) dir: Option<PathBuf>,
    /// Least level of log lines: error, warn, info, debug, trace [default: log_level of server.toml]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LevelFilter>,
    /// Form of log lines, on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The server's directory
    pub(super) dir: Option<PathBuf>,
    /// Form of the findings
    #[arg(short = 'F', long, value_enum, default_value_t = LogFormat::Text)]
    format: LogFormat,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// The server's directory
    pub(super) dir: Option<PathBuf>,
    /// Stop after this many seconds even if jobs are running [default: drain_timeout of server.toml]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<f64>,
    /// Take new jobs again, and do not stop
    #[arg(long)]
    cancel: bool,
    /// Do not wait until the server has stopped
    #[arg(long)]
    no_wait: bool,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let fits = |secs: &f64| (0.0..=86_400.0).contains(secs);
    text.parse().ok().filter(fits).ok_or_else(|| "must be seconds, at most 86400".to_owned())
}

pub(super) async fn run(out: Out<'_>, dir: &Path, args: &RunArgs) -> Result<()> {
    let mut config = Config::load(dir)?;
    config.keep_log_level = args.log_level.is_some();
    start_log(args.log_level.unwrap_or(config.operation.log_level.0), args.log_format);
    crate::broker::raise_descriptor_limit();
    let shutdown = stop_signal()?;
    // Before the ports, so that a second server in the directory hears the true reason.
    drop(files::DirLock::take(dir)?);
    let listeners = Listeners::bind(&config)?;
    let ready = |about: &Value| {
        let text = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
        say(
            out,
            format_args!(
                "ready api={} heartbeat={} command={}",
                text("api_url"),
                text("heartbeat_addr"),
                text("command_addr")
            ),
        );
        notify::tell(&format!("READY=1\nSTATUS=serving {}", text("api_url")));
    };
    let result = crate::run(config, listeners, ready, shutdown).await;
    notify::tell("STOPPING=1");
    result
}

/// Log lines on standard error: ours at the level asked for, those of libraries only when something is wrong.
fn start_log(level: LevelFilter, format: LogFormat) {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
    use tracing_subscriber::util::SubscriberInitExt as _;
    let levels = |level: LevelFilter| {
        Targets::new()
            .with_default(level.min(LevelFilter::WARN))
            .with_target("pushy_server", level)
            .with_target("pushy_core", level)
    };
    let (filter, handle) = tracing_subscriber::reload::Layer::new(levels(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    reload::on_level(Box::new(move |level| {
        // Fails only when the log is gone, and then there is nowhere to say so.
        let _ = handle.reload(levels(level));
    }));
}

/// Ready at TERM or INT.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| Error::new(ErrorCode::Io, format!("signal handlers: {e}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// What a running server answers; an error names the way to start one.
async fn ask_running(dir: &Path, command: &Command) -> Result<Value> {
    if let Some(answer) = ask(dir, command).await? {
        return Ok(answer);
    }
    Config::load(dir)?;
    let dir = dir.display();
    Err(Error::new(
        ErrorCode::InvalidState,
        format!("the server of {dir} does not run; start it with `pushy-server run {dir}`"),
    ))
}

pub(super) async fn status(out: Out<'_>, dir: &Path) -> Result<()> {
    let about = ask_running(dir, &Command::Status).await?;
    for (name, label) in [
        ("version", "version"),
        ("pid", "pid"),
        ("api_url", "REST API"),
        ("heartbeat_addr", "heartbeat"),
        ("command_addr", "command"),
        ("incarnation_id", "incarnation"),
        ("nodes", "nodes"),
        ("command_connections", "connections"),
        ("jobs", "jobs running"),
    ] {
        let value = match &about[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        say(out, format_args!("{label:<13}{value}"));
    }
    for reason in about["not_ready"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say(out, format_args!("{:<13}{reason}", "not ready"));
    }
    Ok(())
}

pub(super) async fn reload(out: Out<'_>, dir: &Path) -> Result<()> {
    let lines = ask_running(dir, &Command::Reload).await?;
    let lines = lines.as_array().map(Vec::as_slice).unwrap_or_default();
    for line in lines.iter().filter_map(Value::as_str) {
        say(out, line);
    }
    if lines.is_empty() {
        say(out, "nothing has changed");
    }
    Ok(())
}

pub(super) async fn drain(out: Out<'_>, dir: &Path, args: &DrainArgs) -> Result<()> {
    let command = Command::Drain { cancel: args.cancel, timeout: args.timeout };
    let answer = ask_running(dir, &command).await?;
    if args.cancel {
        say(out, "the server takes new jobs again");
        return Ok(());
    }
    let mut jobs = answer["unfinished_jobs"].clone();
    say(out, format_args!("draining: {jobs} jobs unfinished, waiting at most {} s", answer["timeout"]));
    if args.no_wait {
        return Ok(());
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // A server that has stopped has no socket; one that is stopping may break off its answer.
        let Ok(Some(about)) = ask(dir, &Command::Status).await else { break };
        if about["draining"] != true {
            return Err(Error::new(ErrorCode::InvalidState, "the drain was called off"));
        }
        if about["unfinished_jobs"] != jobs {
            jobs = about["unfinished_jobs"].clone();
            say(out, format_args!("{jobs} jobs unfinished"));
        }
    }
    while files::DirLock::try_take(dir)?.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(out, "the server has stopped");
    Ok(())
}

pub(super) async fn doctor(out: Out<'_>, dir: &Path, args: &DoctorArgs) -> Result<()> {
    let report = doctor::examine(dir).await;
    match args.format {
        LogFormat::Text => say(out, report.to_text().trim_end()),
        LogFormat::Json => say(out, report.to_json()),
    }
    match report.problems() {
        0 => Ok(()),
        1 => Err(Error::new(ErrorCode::InvalidState, "1 problem found")),
        count => Err(Error::new(ErrorCode::InvalidState, format!("{count} problems found"))),
    }
}
