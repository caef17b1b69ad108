//! The program: arguments, logging, exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use rephase::cli::{self, Arguments, Command};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // All but the server tell their own story; a server inside of them only has to say what went wrong unexpectedly.
    let default_level = if matches!(arguments.command, Command::Serve(_)) { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    let is_terminal = std::io::stderr().is_terminal();
    // A log that cannot be written is no reason to stop working.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    log.log_internal_errors(false).init();

    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&format!("the runtime does not start: {error}"));
        }
    };
    match runtime.block_on(cli::run(arguments)) {
        Ok(code) => code,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(error: &str) -> ExitCode {
    // Where nobody can be told, the exit code says it.
    let _ = writeln!(std::io::stderr(), "rephase: {error}");
    ExitCode::FAILURE
}
