//! `rephase completions` and `rephase man`: what a shell and its user's manual have from the arguments.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::args::Arguments;
use super::failure::Failure;
use super::output::Output;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// For which shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Directory that gets a page for each command; without it the first page goes to standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "rephase", &mut script);
    let output = Output::new(false);
    output.bytes(&script);
    output.finish()
}

pub(super) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let command = Arguments::command().name("rephase");
    if let Some(directory) = &arguments.dir {
        let unwritable = || format!("{} cannot be written", directory.display());
        std::fs::create_dir_all(directory).with_context(unwritable)?;
        clap_mangen::generate_to(command, directory).with_context(unwritable)?;
        return Ok(());
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).context("the page cannot be made")?;
    let output = Output::new(false);
    output.bytes(&page);
    output.finish()
}
