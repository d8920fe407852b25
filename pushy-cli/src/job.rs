//! `pushy job start|list|status` (10.2, 10.4).

use clap::CommandFactory as _;
use pushy_core::api::{self, Quorum, Statuses};
use pushy_core::client::Client;
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{JobOptions, JobRequest};
use pushy_core::time::Millis;
use pushy_core::watch::{Exit, WatchOptions};
use pushy_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::args::{Args, Global, List, Start, Status};
use crate::config::{Config, plain};
use crate::output::Live;
use crate::ui::Ui;
use crate::watch::{self, Course};
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
    let parameters = args.parameters.iter().map(|text| api::parameter_option(text)).collect::<Result<_>>();
    let parameters = parameters.and_then(api::parameters).map_err(|e| e.context("--param"))?;
    let options = JobOptions {
        user: given(&args.as_user, "as_user"),
        dir: given(&args.in_dir, "in_dir"),
        env: given(&args.with_env, "with_env")
            .map(|text| api::env_option(&text))
            .transpose()
            .map_err(|e| e.context("--with-env"))?,
        file: given(&args.file, "file").map(|name| file(&name)).transpose()?,
        capture: args.capture || config.knife_flag("capture"),
        parameters,
    };
    let nodes = nodes(&client, args, given(&args.search, "search"), ui).await?;
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
    let course = Course {
        poll_interval,
        lenient: args.lenient_exit || config.knife_flag("lenient_exit"),
        detach: args.detach_on_interrupt || config.knife_flag("detach_on_interrupt"),
        joined: false,
    };
    let streams =
        job.options.capture && !(args.no_stream || config.knife_flag("no_stream") || ui.is_document());
    let live = streams.then(|| Live::new(client.stream_live(&started.id, &job.nodes)));
    watch::wait(global, &client, &started.id, course, live, ui).await
}

/// The nodes to run on: found, those of an earlier job, or named.
async fn nodes(
    client: &Client,
    args: &Start,
    search: Option<String>,
    ui: &Ui,
) -> std::result::Result<Vec<NodeName>, Stop> {
    if let Some(id) = &args.from_job {
        let statuses = args.statuses.as_deref().map(Statuses::parse).transpose();
        let statuses = statuses.map_err(|e| e.context("--where"))?.unwrap_or_default();
        let id = job_id(id).map_err(|e| e.context("--from-job"))?;
        return Ok(client.nodes_of_job(&id, &statuses).await?);
    }
    if args.statuses.is_some() {
        return Err(bad(
            "--where chooses among the nodes of an earlier job: give --from-job ID too".to_owned()
        )
        .into());
    }
    let Some(query) = search else {
        return Ok(api::node_names(names::expand(&args.nodes)?)?);
    };
    if !args.nodes.is_empty() {
        ui.warn("the named nodes are ignored because a search was given");
    }
    let found = node::search(client, &query).await?;
    if found.is_empty() {
        ui.error(&format!("No nodes to run job on. The search {query:?} finds none."));
        return Err(Stop::Exit(Exit::Usage));
    }
    Ok(api::node_names(found)?)
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
    ui.job(job.document());
    Ok(Exit::Success)
}

pub(crate) fn job_id(text: &str) -> Result<JobId> {
    JobId::new(text.trim()).map_err(|e| e.context(format!("{text:?}")))
}

pub(crate) fn poll_interval(text: Option<&str>) -> Result<Millis> {
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
