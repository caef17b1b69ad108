//! `rephase backup` and `rephase restore`.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::args::{BackupArguments, RestoreArguments};
use super::client::Client;
use super::failure::Failure;
use super::output::Output;
use super::progress::Bars;
use super::verify::{as_json, as_text};
use crate::app::{self, Restored};
use crate::clock::Clock;

/// How much of a backup is looked at, at each of its ends, to tell whether it is one, in bytes.
const MAX_END_BYTES: u64 = 64 * 1_024;

pub(super) async fn backup(arguments: BackupArguments) -> Result<(), Failure> {
    let BackupArguments { file, data_dir, common } = arguments;
    let file = target_of(&file)?;
    // What is there stays until the new one is whole.
    let partial = partial_of(&file);
    let written = match data_dir {
        Some(directory) => {
            let partial = partial.clone();
            let spinner = Bars::new();
            let _turning = spinner.spinner("the state is being read");
            let read = tokio::task::spawn_blocking(move || read_stopped(&directory, &partial)).await;
            read.context("the state could not be read").flatten().map_err(Failure::from)
        }
        None => download(&common.client()?, &partial).await,
    };
    let finished = written.and_then(|()| {
        let created_at = app::check_backup(&partial).context("the backup did not come to its end")?;
        fs::rename(&partial, &file).with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(created_at)
    });
    if finished.is_err() {
        // It is of no use, and may not be there.
        let _ = fs::remove_file(&partial);
    }
    let size = fs::metadata(&file).map_or(0, |metadata| metadata.len());
    let (created_at, output) = (finished?, Output::new(common.json));
    if output.is_json {
        output.json(&json!({ "file": file.to_string_lossy(), "bytes": size, "created_at": created_at }));
    } else {
        output.line(&format!("{}: {size} bytes, as of {created_at}", file.display()));
    }
    output.finish()
}

/// Where the backup goes: behind a link to what it links to, which stays the link's. What is there and is no file that can
/// be replaced, as a device or a pipe, is left alone.
fn target_of(file: &Path) -> Result<PathBuf, Failure> {
    let refused = |why: &str| {
        let failure = Failure::usage(format!("{} {why}", file.display()));
        failure.hint("name a file: a new one, or one that the backup takes the place of")
    };
    let is_link = fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_symlink());
    let target = if is_link { fs::canonicalize(file) } else { Ok(file.to_owned()) };
    let target = target.map_err(|error| refused(&format!("is a link that cannot be followed: {error}")))?;
    match fs::metadata(&target) {
        Ok(metadata) if !metadata.is_file() => Err(refused("is no regular file")),
        // What is not there, or cannot be looked at, is told once it is written.
        Ok(_) | Err(_) => Ok(target),
    }
}

fn partial_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}

fn create(file: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::create(file).with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(BufWriter::new(file))
}

fn finish(output: BufWriter<File>) -> anyhow::Result<()> {
    let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

fn read_stopped(directory: &Path, file: &Path) -> anyhow::Result<()> {
    let mut output = create(file)?;
    let created_at = Clock::system().now().to_timestamp().to_string();
    let mut failure = None;
    app::backup(directory, &created_at, &mut |line| match output.write_all(&line) {
        Ok(()) => true,
        Err(error) => {
            failure = Some(error);
            false
        }
    })?;
    failure.map_or(Ok(()), Err)?;
    finish(output)
}

async fn download(client: &Client, file: &Path) -> Result<(), Failure> {
    let opened = client.open("/internal/v1/backup").await;
    let mut response = opened.map_err(|failure| failure.hint("no backup was made"))?;
    let mut output = create(file)?;
    let bars = Bars::new();
    let bar = bars.bytes("backup");
    while let Some(chunk) = response.chunk().await.context("the backup was cut off")? {
        // Small writes into a buffer; a backup has nothing else to do meanwhile.
        output.write_all(&chunk).context("the backup cannot be written")?;
        bar.inc(chunk.len() as u64);
    }
    Ok(finish(output)?)
}

/// Refuses, in plain words, what is no backup or only the beginning of one. What is between its ends is checked later.
fn check_ends(file: &Path) -> Result<(), Failure> {
    let unreadable = |error: io::Error| Failure::usage(format!("{} cannot be read: {error}", file.display()));
    let mut opened = File::open(file).map_err(unreadable)?;
    let size = opened.metadata().map_err(unreadable)?.len();
    let mut first = String::new();
    let head = BufReader::new((&opened).take(MAX_END_BYTES)).read_line(&mut first);
    let is_line = |line: &str, name: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["line"] == name);
    if head.is_err() || !is_line(&first, "header") {
        let failure = Failure::failed(format!("{} is no backup of rephase", file.display()));
        return Err(failure.hint("`rephase backup FILE` makes one"));
    }
    let mut rest = Vec::new();
    opened.seek(SeekFrom::Start(size.saturating_sub(MAX_END_BYTES))).map_err(unreadable)?;
    opened.read_to_end(&mut rest).map_err(unreadable)?;
    let rest = String::from_utf8_lossy(&rest);
    if is_line(rest.lines().last().unwrap_or_default(), "trailer") {
        return Ok(());
    }
    let failure = Failure::failed(format!("{} is cut off: a backup ends with a trailer", file.display()));
    Err(failure.hint("take one that is whole; nothing was restored"))
}

pub(super) async fn restore(arguments: RestoreArguments) -> Result<(), Failure> {
    let RestoreArguments { file, data_dir, json } = arguments;
    check_ends(&file)?;
    let directory = data_dir.clone();
    let bars = Bars::new();
    let spinner = bars.spinner("the state is being made and checked");
    let restored = tokio::task::spawn_blocking(move || app::restore(&directory, &file)).await;
    spinner.finish_and_clear();
    let Restored { created_at, checked } = restored.context("the backup could not be restored")??;
    let output = Output::new(json);
    if output.is_json {
        output.json(&json!({
            "data_dir": data_dir.to_string_lossy(), "created_at": created_at, "checked": as_json(&checked),
        }));
    } else {
        output.line(&format!("{}: as of {created_at}; {}", data_dir.display(), as_text(&checked)));
    }
    output.finish()
}
