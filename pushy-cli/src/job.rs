//! `pushy job start|list|status|output` (10.2, 10.4).

use clap::CommandFactory as _;
use pushy_core::api::{self, Channel, Quorum, Started};
use pushy_core::client::{Client, Progress};
use pushy_core::ids::JobId;
use pushy_core::job::{JobOptions, JobRequest};
use pushy_core::time::Millis;
use pushy_core::watch::{Exit, WatchOptions};
use pushy_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::args::{Args, Global, List, Output, Start, Status};
use crate::config::{Config, plain};
use crate::ui::Ui;
use crate::{Outcome, Stop, names, node};

pub(crate) async fn start(global: &Global, args: &Start, ui: &Ui) -> Outcome {
    let Some(command) = args.command.as_deref() else {
        ui.error("No job specified.");
        ui.aside(&usage(&["job", "start"]));
        return Err(Stop::Exit(Exit::Usage));
    };
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let client = config.client()?;
    let given = |option: &Option<String>, name: &str| option.clone().or_else(|| config.knife_text(name));

    // Everything that can be wrong is looked at before the first request.
    let poll_interval = poll_interval(given(&args.poll_interval, "poll_interval").as_deref())?;
    let run_timeout = given(&args.timeout, "timeout").map(|text| run_timeout(&text)).transpose()?;
    let quorum = Quorum::parse(given(&args.quorum, "quorum").as_deref().unwrap_or("100%"))?;
    let options = JobOptions {
        user: given(&args.as_user, "as_user"),
        dir: given(&args.in_dir, "in_dir"),
        env: given(&args.with_env, "with_env")
            .map(|text| api::env_option(&text))
            .transpose()
            .map_err(|e| e.context("--with-env"))?,
        file: given(&args.file, "file").map(|name| file(&name)).transpose()?,
        capture: args.capture || config.knife_flag("capture"),
        parameters: None,
    };
    let nodes = match given(&args.search, "search") {
        Some(query) => {
            if !args.nodes.is_empty() {
                ui.warn("the named nodes are ignored because a search was given");
            }
            let found = node::search(&client, &query).await?;
            if found.is_empty() {
                ui.error(&format!("No nodes to run job on. The search {query:?} finds none."));
                return Err(Stop::Exit(Exit::Usage));
            }
            api::node_names(found)?
        }
        None => api::node_names(names::expand(&args.nodes)?)?,
    };
    let job = JobRequest {
        command: command.to_owned(),
        quorum: Some(quorum.of(nodes.len())),
        nodes,
        run_timeout,
        options,
    };

    let started = tokio::select! {
        biased;
        started = client.start_job(&job) => started?,
        _ = tokio::signal::ctrl_c() => {
            ui.aside("Interrupted. The job may have been started; see `pushy job list`.");
            return Ok(Exit::Interrupted);
        }
    };
    if started.v1 {
        ui.warn(api::V1_NOTICE);
    }
    ui.line(&started.line());
    if args.nowait || config.knife_flag("nowait") {
        if ui.is_document() {
            ui.document(&json!({"id": started.id.as_str(), "uri": started.uri}));
        }
        return Ok(Exit::Success);
    }
    let options = WatchOptions { poll_interval, ..WatchOptions::default() };
    let lenient = args.lenient_exit || config.knife_flag("lenient_exit");
    wait(global, &client, &started, options, lenient, ui).await
}

async fn wait(
    global: &Global,
    client: &Client,
    started: &Started,
    options: WatchOptions,
    lenient: bool,
    ui: &Ui,
) -> Outcome {
    let mut wait = client.wait(started.id.clone(), options);
    loop {
        let progress = tokio::select! {
            biased;
            progress = wait.next() => progress,
            _ = tokio::signal::ctrl_c() => {
                ui.aside(&format!("Interrupted. {}", look(global, &started.id)));
                return Ok(Exit::Interrupted);
            }
        };
        match progress {
            Progress::Tally(_) => {}
            Progress::Line(line) => ui.line(&line),
            Progress::Notice(text) => ui.warn(&text),
            Progress::Finished(job) => {
                ui.document(job.document());
                return Ok(Exit::of_job(&job, lenient));
            }
            Progress::GivenUp(error) => {
                ui.error(error.message());
                ui.aside(&look(global, &started.id));
                return Ok(Exit::of_error(&error));
            }
        }
    }
}

/// How to find the job again.
fn look(global: &Global, id: &JobId) -> String {
    let mut command = format!("pushy job status {id}");
    for (option, value) in [("-c", &global.config), ("--profile", &global.profile)] {
        if let Some(value) = value {
            command.push_str(&format!(" {option} {value}"));
        }
    }
    format!("The job goes on; look at it with: {command}")
}

pub(crate) async fn list(global: &Global, args: &List, ui: &Ui) -> Outcome {
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let jobs = config.client()?.jobs().await?;
    let skip = args.limit.map_or(0, |limit| jobs.len().saturating_sub(limit));
    let documents = jobs.into_iter().skip(skip).map(api::JobView::into_document).collect();
    ui.document(&Value::Array(documents));
    Ok(Exit::Success)
}

pub(crate) async fn status(global: &Global, args: &Status, ui: &Ui) -> Outcome {
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let job = config.client()?.job(&job_id(&args.id)?).await?;
    ui.document(job.document());
    Ok(Exit::Success)
}

pub(crate) async fn output(global: &Global, args: &Output, ui: &Ui) -> Outcome {
    let channel = Channel::parse(&args.channel)?;
    let id = job_id(&args.id)?;
    let nodes = api::node_names(names::expand(&args.nodes)?)?;
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let client = config.client()?;
    let mut exit = Exit::Success;
    let mut documents = Vec::new();
    for node in &nodes {
        match client.output(&id, node, channel).await {
            Ok(output) if ui.is_document() => documents.push(json!({
                "node_name": node.as_str(),
                "channel": channel.as_str(),
                "output": String::from_utf8_lossy(&output),
            })),
            Ok(output) => {
                if nodes.len() > 1 {
                    ui.raw(format!("==> {node} <==\n").as_bytes());
                }
                ui.raw(&output);
                // Keeps the next name at the margin; a single output is left as it is (D-76).
                if nodes.len() > 1 && !output.is_empty() && !output.ends_with(b"\n") {
                    ui.raw(b"\n");
                }
            }
            Err(error) if error.code() == ErrorCode::NotFound => {
                ui.error(&format!(
                    "{node}: no {} is kept of this job; was it started with --capture, and has it ended? ({})",
                    channel.as_str(),
                    error.message()
                ));
                exit = Exit::Http;
            }
            Err(error) => return Err(error.context(node).into()),
        }
    }
    if ui.is_document() {
        ui.document(&Value::Array(documents));
    }
    Ok(exit)
}

fn job_id(text: &str) -> Result<JobId> {
    JobId::new(text.trim()).map_err(|e| e.context(format!("{text:?}")))
}

fn poll_interval(text: Option<&str>) -> Result<Millis> {
    let Some(text) = text else {
        return Ok(WatchOptions::default().poll_interval);
    };
    let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite() && *s > 0.0 && *s <= 86_400.0);
    // At most 86,400,000, which every integer type here holds.
    seconds.map(|s| Millis((s * 1000.0).ceil() as u64)).ok_or_else(|| {
        bad(format!("--poll-interval {text:?} is not a number of seconds above 0 and up to 86400"))
    })
}

fn run_timeout(text: &str) -> Result<u32> {
    text.parse().map_err(|_| bad(format!("--timeout {text:?} is not a whole number of seconds")))
}

fn file(name: &str) -> Result<String> {
    let content = std::fs::read(name).map_err(|error| {
        let text = match error.kind() {
            std::io::ErrorKind::NotFound => format!("{name} not found"),
            _ => format!("cannot read {name}: {}", plain(&error)),
        };
        Error::new(ErrorCode::Io, text)
    })?;
    api::file_option(&content).map_err(|e| e.context(format!("--file {name}")))
}

fn bad(text: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, text)
}

/// The usage line of a verb.
fn usage(path: &[&str]) -> String {
    let mut command = Args::command();
    command.build();
    let mut found = &mut command;
    for name in path {
        match found.find_subcommand_mut(name) {
            Some(inner) => found = inner,
            None => return String::new(),
        }
    }
    found.render_usage().to_string()
}
