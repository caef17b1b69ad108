//! `rephase backup` and `rephase restore`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::args::{BackupArguments, RestoreArguments};
use super::verify::as_text;
use crate::app::{self, Restored};
use crate::clock::Clock;

pub(super) async fn backup(arguments: BackupArguments) -> anyhow::Result<()> {
    let BackupArguments { file, url, data_dir } = arguments;
    // What is there stays until the new one is whole.
    let partial = partial_of(&file);
    let written = match data_dir {
        Some(directory) => {
            let partial = partial.clone();
            tokio::task::spawn_blocking(move || read_stopped(&directory, &partial)).await?
        }
        None => download(&url, &partial).await,
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
    writeln!(io::stdout(), "{}: {size} bytes, as of {}", file.display(), finished?)?;
    Ok(())
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

async fn download(url: &str, file: &Path) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let asked = client.get(format!("{}/internal/v1/backup", url.trim_end_matches('/'))).send().await;
    let mut response = asked.with_context(|| format!("{url} does not answer; is the server running?"))?;
    if !response.status().is_success() {
        let problem: serde_json::Value = response.json().await.unwrap_or_default();
        anyhow::bail!("the server makes no backup: {}", problem["error"].as_str().unwrap_or("it does not say why"));
    }
    let mut output = create(file)?;
    while let Some(chunk) = response.chunk().await.context("the backup was cut off")? {
        // Small writes into a buffer; a backup has nothing else to do meanwhile.
        output.write_all(&chunk)?;
    }
    finish(output)
}

pub(super) async fn restore(arguments: RestoreArguments) -> anyhow::Result<()> {
    let RestoreArguments { file, data_dir } = arguments;
    let directory = data_dir.clone();
    let restored = tokio::task::spawn_blocking(move || app::restore(&directory, &file)).await?;
    let Restored { created_at, checked } = restored?;
    writeln!(io::stdout(), "{}: as of {created_at}; {}", data_dir.display(), as_text(&checked))?;
    Ok(())
}
