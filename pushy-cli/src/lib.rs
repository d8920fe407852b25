//! The command line over the core's client and watch: options in, texts and exit codes of knife out (10.2–10.4).
//!
//! Nothing is decided here that knife, C or the `pushy` resource would have to decide again: requests, state lines, layout
//! and exit codes come from `pushy-core`.
#![forbid(unsafe_code)]

mod args;
mod config;
mod job;
mod names;
mod node;
mod search;
mod ui;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
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
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers; everything else is usage. Nothing is left to do if the reader is gone.
            let _ = error.print();
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
            // A wait for a job sees Ctrl-C first and says more.
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    });
    // Does not wait for a name look-up that nobody needs any more.
    runtime.shutdown_background();
    outcome
}

async fn carry_out(args: &Args, ui: &Ui) -> Outcome {
    let global = &args.global;
    match &args.verb {
        Verb::Job { verb: JobVerb::Start(start) } => job::start(global, start, ui).await,
        Verb::Job { verb: JobVerb::List(list) } => job::list(global, list, ui).await,
        Verb::Job { verb: JobVerb::Status(status) } => job::status(global, status, ui).await,
        Verb::Job { verb: JobVerb::Output(output) } => job::output(global, output, ui).await,
        Verb::Node { verb: NodeVerb::Status(status) } => node::status(global, status, ui).await,
        Verb::Node { verb: NodeVerb::List } => search::list(global, ui).await,
        Verb::Node { verb: NodeVerb::Show(show) } => search::show(global, show, ui).await,
        Verb::Search(args) => search::search(global, args, ui).await,
        Verb::Completions { .. } => Ok(Exit::Success),
    }
}
