//! The command line: arguments, and the commands that use the server over HTTP as anybody would.
//!
//! A client's command answers nothing or a `Failure`, which is its exit code and says what to do next.
//! `output` is where everything is printed, and where whatever came from a server is made harmless.

mod access;
mod args;
mod backup;
mod batch;
mod client;
mod common;
mod config;
mod dead_letter;
mod demo;
mod failure;
mod filter;
mod health;
mod ids;
mod log;
mod output;
mod progress;
mod ready;
mod retry;
mod retry_job;
mod serve;
mod shell;
mod signals;
mod timeline;
mod token;
mod values;
mod verify;
mod watch;

use std::process::ExitCode;

pub use args::{Arguments, Command};
pub use config::parse;
pub use log::{LogArguments, SERVE_LEVEL};
use output::conclude;
pub use signals::Signals;

/// What is made from now on, a state or its backup, is for its owner alone: texts of pupils are in it. What is there
/// stays as it is.
fn keep_private() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Runs what the arguments say. A server is ended by `signals`, where they wait already.
///
/// # Errors
/// What a person should read on standard error before the program ends with 1.
pub async fn run(arguments: Arguments, signals: Option<Signals>) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings;
    if !matches!(arguments.command, Command::Man(_)) {
        keep_private();
    }
    let (is_json, ended) = match arguments.command {
        Command::Serve(arguments) => {
            return serve::run(&arguments, &settings, signals).await.map(|()| ExitCode::SUCCESS);
        }
        Command::Config(arguments) => return config::run(&arguments, &settings).map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => return demo::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Verify(arguments) => return verify::run(arguments).await,
        Command::Backup(arguments) => (arguments.common.json, backup::backup(arguments).await),
        Command::Restore(arguments) => (arguments.json, backup::restore(arguments).await),
        Command::Batch(arguments) => (arguments.common.json, batch::run(*arguments).await),
        Command::Retry(arguments) => (arguments.common.json, retry::run(*arguments).await),
        Command::RetryJob(arguments) => (arguments.common.json, retry_job::run(*arguments).await),
        Command::DeadLetter(arguments) => (arguments.common.json, dead_letter::run(*arguments).await),
        Command::Health(arguments) => (arguments.common.json, health::run(arguments).await),
        Command::Token(arguments) => (arguments.json, token::run(&arguments)),
        Command::Completions(arguments) => (false, shell::completions(&arguments)),
        Command::Man(arguments) => (false, shell::man(&arguments)),
    };
    Ok(conclude(is_json, ended))
}
