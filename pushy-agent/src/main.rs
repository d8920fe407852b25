//! The program `push-jobs-client`: arguments, signals, exit status (7.9, 7.10).

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use pushy_agent::config::Check;
use pushy_agent::{Action, Args, Config, Control, check, run};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing to do when even that cannot be written.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    if args.version {
        println!("Push Client: {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if let Some(Action::Check(question)) = args.action.clone() {
        return check(args, &question);
    }
    match start(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("push-jobs-client: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `check`: a command, or the configuration as a whole.
fn check(mut args: Args, question: &Check) -> ExitCode {
    let (config, command) = question.question(&args);
    args.config = config;
    let answered = match command {
        Some(command) => check::answer(&args, question, &command).map(|answer| {
            // Nothing to do when it cannot be written.
            let _ = std::io::stdout().write_all(answer.text.as_bytes());
            answer.status
        }),
        None => Config::load(args).map(|config| {
            println!(
                "node {}, server {}, {} whitelist entries",
                config.node_name,
                config.chef_server_url,
                config.whitelist.len()
            );
            for notice in &config.notices {
                println!("{notice}");
            }
            check::ALLOWED
        }),
    };
    ExitCode::from(answered.unwrap_or_else(|error| {
        eprintln!("push-jobs-client: {error}");
        check::BAD_CONFIG
    }))
}

fn start(args: Args) -> Result<u8, Box<dyn std::error::Error>> {
    let config = Config::load(args)?;
    config.log.start()?;
    // One thread: an idle agent has nothing for a second one to do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sender, control) = mpsc::channel(8);
        tokio::spawn(watch_signals(Signals::new()?, sender));
        Ok(run(config, control).await?)
    })
}

/// The signals of 7.10, taken before anything else so that none is lost.
struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }
}

async fn watch_signals(mut signals: Signals, control: mpsc::Sender<Control>) {
    loop {
        let (name, asked) = tokio::select! {
            _ = signals.term.recv() => ("TERM", Control::Stop),
            _ = signals.int.recv() => ("INT", Control::Stop),
            _ = signals.quit.recv() => ("QUIT", Control::Stop),
            _ = signals.hup.recv() => ("HUP", Control::Reload),
            _ = signals.usr1.recv() => ("USR1", Control::Reconfigure),
        };
        match asked {
            Control::Stop => tracing::info!("received {name}, shutting down"),
            Control::Reload => tracing::info!("received {name}, reading the configuration again"),
            Control::Reconfigure => tracing::info!("received {name}, reconfiguring"),
        }
        if control.send(asked).await.is_err() {
            return;
        }
    }
}
