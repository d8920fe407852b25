//! The command line over the core's client and watch: options in, texts and exit codes of knife out (10.2–10.4).
//!
//! Nothing is decided here that knife, C or the `pushy` resource would have to decide again: requests, state lines, layout
//! and exit codes come from `pushy-core`.
#![forbid(unsafe_code)]

mod args;
mod cancel;
mod config;
mod job;
mod names;
mod node;
mod output;
mod search;
mod ui;
mod watch;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use pushy_core::present::{Format, render};
use pushy_core::watch::Exit;
use pushy_core::{Error, ErrorCode};

use args::{Args, JobVerb, NodeVerb, Verb};
use ui::Ui;

/// How a verb ends when it cannot do its work.
enum Stop {
    /// Say this, and end with the code that belongs to it.
    Error(Error),
    /// Everything is said.
    Exit(Exit),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

type Outcome = Result<Exit, Stop>;

/// Runs the program with these arguments, the first being its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let given: Vec<OsString> = args.into_iter().collect();
    let args = match Args::try_parse_from(&given) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers; everything else is usage. Nothing is left to do if the reader is gone.
            let _ = error.print();
            if let (true, Some(format)) = (error.use_stderr(), document_format(&given)) {
                let text = error.to_string();
                let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
                let _ = std::io::stdout()
                    .write_all(render(&ui::failure(None, text, Exit::Usage), format, false).as_bytes());
            }
            return ExitCode::from(if error.use_stderr() {
                Exit::Usage.code()
            } else {
                Exit::Success.code()
            });
        }
    };
    let ui = Ui::new(&args.global);
    let exit = match dispatch(&args, &ui) {
        Ok(exit) | Err(Stop::Exit(exit)) => exit,
        Err(Stop::Error(error)) => {
            ui.error(error.message());
            Exit::of_error(&error)
        }
    };
    ui.close(exit);
    ExitCode::from(exit.code())
}

fn dispatch(args: &Args, ui: &Ui) -> Outcome {
    if let Verb::Completions { shell } = &args.verb {
        clap_complete::generate(*shell, &mut Args::command(), "pushy", &mut std::io::stdout());
        return Ok(Exit::Success);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot make a runtime: {e}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            outcome = carry_out(args, ui) => outcome,
            // A wait for a job looks after Ctrl-C itself.
            () = interrupted(ui) => Ok(Exit::Interrupted),
        }
    });
    // Does not wait for a name look-up that nobody needs any more.
    runtime.shutdown_background();
    outcome
}

/// Ctrl-C that no verb takes.
async fn interrupted(ui: &Ui) {
    loop {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        if !ui.is_interruptible() {
            return;
        }
    }
}

/// The format asked for, of arguments that could not be read: programs get a document all the same.
fn document_format(args: &[OsString]) -> Option<Format> {
    let texts: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let named = texts.iter().enumerate().find_map(|(at, arg)| match *arg {
        "-F" | "--format" => texts.get(at + 1).copied(),
        arg => arg.strip_prefix("--format=").or_else(|| arg.strip_prefix("-F")),
    });
    Format::parse(named?).ok().filter(|format| format.is_document())
}

async fn carry_out(args: &Args, ui: &Ui) -> Outcome {
    let global = &args.global;
    match &args.verb {
        Verb::Job { verb: JobVerb::Start(start) } => job::start(global, start, ui).await,
        Verb::Job { verb: JobVerb::List(list) } => job::list(global, list, ui).await,
        Verb::Job { verb: JobVerb::Status(status) } => job::status(global, status, ui).await,
        Verb::Job { verb: JobVerb::Watch(watch) } => watch::watch(global, watch, ui).await,
        Verb::Job { verb: JobVerb::Cancel(cancel) } => cancel::cancel(global, cancel, ui).await,
        Verb::Job { verb: JobVerb::Output(output) } => output::output(global, output, ui).await,
        Verb::Node { verb: NodeVerb::Status(status) } => node::status(global, status, ui).await,
        Verb::Node { verb: NodeVerb::List } => search::list(global, ui).await,
        Verb::Node { verb: NodeVerb::Show(show) } => search::show(global, show, ui).await,
        Verb::Search(args) => search::search(global, args, ui).await,
        Verb::Completions { .. } => Ok(Exit::Success),
    }
}
