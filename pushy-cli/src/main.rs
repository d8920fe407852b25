//! `pushy`: the verbs of knife's push plug-in without Ruby.

fn main() -> std::process::ExitCode {
    pushy_cli::run(std::env::args_os())
}
