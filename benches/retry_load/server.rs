//! A server process: the one to measure, and the echo to measure it against.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Json;
use axum::routing::post;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// The option that makes this very program the echo.
pub const ECHO: &str = "--be-the-echo";

/// A process that serves.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// From its start until it said that it is ready.
    pub ready_after: Duration,
}

impl Server {
    /// Starts the server on `directory`.
    pub async fn start(directory: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--max-retries", "4294967295", "--data-dir"]);
        command.arg(directory).args(options).env("RUST_LOG", "error");
        Self::spawn(command).await
    }

    /// Starts the echo.
    pub async fn echo() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ECHO);
        Self::spawn(command).await
    }

    async fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("the server does not start")?;
        let output = child.stdout.take().context("it has no output")?;
        let line = BufReader::new(output).lines().next_line().await?.context("the server ended before it was ready")?;
        let ready_after = began.elapsed();
        let line: Value = serde_json::from_str(&line)?;
        let url = line["url"].as_str().context("it did not say where it listens")?;
        let address = url.trim_start_matches("http://").parse()?;
        Ok(Self { child, address, ready_after })
    }

    /// Kills it as hard as can be.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Tells it to end, and waits until it has.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid()?.try_into()?).context("it has no id")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the server ended")
    }

    /// How much memory it has, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        Ok(self.counter("status", "VmRSS:")? * 1_024)
    }

    /// How many bytes it has sent to the disk.
    pub fn written(&self) -> anyhow::Result<u64> {
        self.counter("io", "write_bytes:")
    }

    /// How much processor time it has used, in clock ticks of the system.
    pub fn ticks(&self) -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let behind = stat.rsplit(')').next().context("no name")?;
        let fields: Vec<&str> = behind.split_whitespace().collect();
        Ok(fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?)
    }

    fn counter(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid()?))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("there is no such counter")?;
        Ok(line.split_whitespace().next().context("it is empty")?.parse()?)
    }
}

/// How many bytes a directory takes on disk.
pub fn size_of(directory: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::read_dir(directory)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        Ok(sum + if metadata.is_dir() { size_of(&entry.path())? } else { metadata.blocks() * 512 })
    })
}

/// An empty directory.
pub fn fresh(directory: &Path) -> anyhow::Result<PathBuf> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)?;
    Ok(directory.to_owned())
}

/// Serves what the ratios are measured against: JSON in, the same JSON out.
pub async fn be_the_echo() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", serde_json::json!({ "url": format!("http://{}", listener.local_addr()?) }));
    let app = axum::Router::new().route("/echo", post(|Json(body): Json<Value>| async move { Json(body) }));
    Ok(axum::serve(listener, app).await?)
}
