//! The program: arguments, logging, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use rephase::cli::{self, Command, Signals};
// Takes the place of the system's malloc: much of a commit is made on one thread and freed on another, which costs that a
// quarter of the processor's time of a retry. Not as Rust's own allocator: the compiler knows malloc, and leaves the 20 MiB
// alone then that the database fills with zeros. How much it keeps for later is in .cargo/config.toml.
use tikv_jemallocator as _;

/// All but the server tell their own story; a server inside of them only has to say what went wrong unexpectedly. That a
/// certificate is not trusted is told by the command.
const CLIENT_LOG: &str = "error,rustls_platform_verifier=off";

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("the runtime does not start")),
    };
    // Before the arguments are read: a server that is told to end while it starts is one that was told to end.
    let signals = match runtime.block_on(async { Signals::of_server() }) {
        Ok(signals) => signals,
        Err(error) => return fail(&error),
    };
    let arguments = match cli::parse() {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error),
    };
    let default_level = if matches!(arguments.command, Command::Serve(_)) { cli::SERVE_LEVEL } else { CLIENT_LOG };
    arguments.log.start(default_level);
    match runtime.block_on(cli::run(arguments, signals)) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Where nobody can be told, the exit code says it.
    let _ = writeln!(std::io::stderr(), "rephase: {error:#}");
    cli::exit_code(error)
}
