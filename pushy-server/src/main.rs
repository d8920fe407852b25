//! `pushy-server`: arguments in, exit status out. 0: done · 1: failed, the reason is on standard error · 2: wrong
//! arguments.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = pushy_server::cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pushy-server: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.execute(&mut std::io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pushy-server: {error}");
            ExitCode::FAILURE
        }
    }
}
