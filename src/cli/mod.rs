//! The command line: arguments, and the commands that use the server over HTTP as anybody would.

mod access;
mod args;
mod backup;
mod client;
mod config;
mod demo;
mod log;
mod ready;
mod serve;
mod signals;
mod timeline;
mod verify;

use std::process::ExitCode;

pub use args::{Arguments, Command};
pub use config::parse;
pub use log::LogArguments;

/// Runs what the arguments say.
///
/// # Errors
/// What a person should read on standard error before the program ends with 1.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve(serve) => serve::run(&serve, &arguments.settings).await.map(|()| ExitCode::SUCCESS),
        Command::Config(shown) => config::run(&shown, &arguments.settings).map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Backup(arguments) => backup::backup(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Restore(arguments) => backup::restore(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Verify(arguments) => verify::run(arguments).await,
    }
}
