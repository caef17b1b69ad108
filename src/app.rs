//! Composition: open, recover, serve, drain.

mod leftovers;
mod stage;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, ManualClock};
use crate::domain::{Balances, Rules};
use crate::engine::Engine;
use crate::http;
pub use crate::http::{Access, Bearers, Browsers, Limits, Role, Tls, Tokens};
use crate::store;
pub use crate::store::{Checked, Restored};
use crate::worker;
pub use stage::Stage;

/// How long requests that are being served may take once the program is told to end.
const GRACE: Duration = Duration::from_secs(10);

/// Where the program keeps its state.
#[derive(Debug, Clone)]
pub enum DataDirectory {
    /// In this directory, durably.
    Kept(std::path::PathBuf),
    /// In a temporary directory that goes with the process; nothing is synced.
    Ephemeral,
}

/// How the program runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where it keeps its state.
    pub data: DataDirectory,
    /// How much its journal holds before that is settled, in bytes; see [`store::Options::journal_bytes`].
    pub journal_bytes: u64,
    /// The rules that batches run by.
    pub rules: Rules,
    /// How many pipelines one user can request in a minute; 0 is no limit.
    pub pipeline_limit: u32,
    /// The balances of credits to begin with; whoever has none pays nothing.
    pub credits: Balances,
    /// How long what is over is kept, in milliseconds; none for ever.
    pub retain_ms: Option<u64>,
    /// How many published messages stay readable in the log of events; 0 is no log.
    pub retain_events: u64,
    /// How its simulated workers behave.
    pub workers: worker::Options,
    /// How many connections there may be, and how long each may take for what.
    pub limits: Limits,
    /// Who may use what. Whoever asks is believed where nothing is said.
    pub access: Access,
    /// The certificate that it shows; none where it speaks plain HTTP.
    pub tls: Option<Tls>,
}

impl Options {
    /// The defaults, on this state: any port of the loopback interface, and no limit to a user's pipelines.
    #[must_use]
    pub fn new(data: DataDirectory) -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            data,
            journal_bytes: store::Options::DEFAULT_JOURNAL_BYTES,
            rules: Rules::default(),
            pipeline_limit: 0,
            credits: Balances::default(),
            retain_ms: None,
            retain_events: store::Options::DEFAULT_RETAIN_EVENTS,
            workers: worker::Options::default(),
            limits: Limits::default(),
            access: Access::default(),
            tls: None,
        }
    }
}

/// The program, serving.
pub struct App {
    address: SocketAddr,
    is_secure: bool,
    stage: Stage,
    server: JoinHandle<()>,
    drain: CancellationToken,
}

impl App {
    /// Listens, recovers, starts the workers, and serves. While it recovers, requests are told so.
    ///
    /// # Errors
    /// Where the address cannot be listened on, or the store does not open.
    pub async fn start(options: Options, clock: Clock) -> anyhow::Result<Self> {
        Self::begin(options, clock, None).await
    }

    /// The same by a clock that is moved by hand, with the routes below `/_test`.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_for_tests(options: Options, manual: ManualClock) -> anyhow::Result<Self> {
        Self::begin(options, manual.clock(), Some(manual)).await
    }

    async fn begin(mut options: Options, clock: Clock, manual: Option<ManualClock>) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
        let address = listener.local_addr().context("the listener has no address")?;
        if address.ip().to_canonical().is_loopback() {
            options.access.browsers = options.access.browsers.on_loopback();
        }
        let drain = CancellationToken::new();
        let (limits, tls, access) = (options.limits.clone(), options.tls.clone(), options.access.clone());
        let (is_test, is_secure) = (manual.is_some(), tls.is_some());
        let (stage, gateway) = Stage::new(options, (clock, manual), drain.clone());
        let front = stage.front();
        let (router, refusals) = if is_test {
            (http::test_router(stage.clone(), front, &limits, &access), http::test_refusals(front, &access))
        } else {
            (http::router(gateway.clone()), http::refusals(gateway.clone()))
        };
        let server = tokio::spawn(http::serve(listener, tls, (router, refusals), limits, drain.clone()));
        // Where the rest does not start, nobody is going to be served.
        let undo = drain.clone().drop_guard();
        stage.open(&gateway).await?;
        undo.disarm();
        Ok(Self { address, is_secure, stage, server, drain })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_secure { "https" } else { "http" }, self.address)
    }

    /// Its engine, as it is now.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.stage.engine_now().unwrap_or_else(|| unreachable!("there is one until the program ends"))
    }

    /// What is behind the address.
    #[must_use]
    pub const fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Serves until `shutdown`, then answers what is being served, and ends everything.
    ///
    /// # Errors
    /// Where the program could not go on, since the store failed or a part of it broke; or where it did not end well.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown => tracing::info!("told to end; draining"),
            () = self.stage.failed().cancelled() => {}
        }
        let is_broken = self.stage.failed().is_cancelled();
        let reason = self.engine().failure().unwrap_or("a part of it broke; see the log").to_owned();
        let ended = self.end().await;
        if is_broken {
            anyhow::bail!("the server could not go on: {reason}");
        }
        ended
    }

    /// Answers what is being served, and ends everything. What does not end well is told in the log.
    pub async fn stop(self) {
        if let Err(error) = self.end().await {
            tracing::error!("{error:#}");
        }
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.drain.cancel();
        match tokio::time::timeout(GRACE, &mut self.server).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the server broke"),
            Err(_) => {
                tracing::warn!("some connections were still open and are cut");
                // With it go its connections, and what they hold of the engine.
                self.server.abort();
                // It can only have ended by this.
                let _ = self.server.await;
            }
        }
        self.stage.stop().await.context(
            "the server has ended, but not everything was put away; nothing that was answered is lost, and the next start \
             goes on with it",
        )
    }
}

/// Makes a backup of the store in `directory`, which nobody may have open, and hands it to `write` until that says that
/// it wants no more.
///
/// # Errors
/// Where the store cannot be read.
pub fn backup(directory: &Path, created_at: &str, write: &mut dyn FnMut(Vec<u8>) -> bool) -> anyhow::Result<()> {
    anyhow::ensure!(directory.join("store").is_dir(), "there is no store in {}", directory.display());
    let store = store::Store::open(&store::Options::new(directory), Box::new(|_| {}))?;
    let snapshot = store.snapshot().context("somebody is making a backup")?;
    Ok(store::backup(&snapshot, created_at, write)?)
}

/// Checks that the backup in `file` is whole, and says when it was made.
///
/// # Errors
/// Where it is not.
pub fn check_backup(file: &Path) -> anyhow::Result<String> {
    Ok(store::check_backup(file)?)
}

/// Makes a store in an empty directory out of the backup in `file`.
///
/// # Errors
/// Where the file is no whole backup, or the directory is not fit.
pub fn restore(directory: &Path, file: &Path) -> anyhow::Result<Restored> {
    Ok(store::restore(&store::Options::new(directory), file)?)
}

/// Checks the store in `directory`, which nobody may have open, and tells each violation as it is found.
///
/// # Errors
/// Where the store cannot be read.
pub fn verify(directory: &Path, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Checked> {
    Ok(store::verify(&store::Options::new(directory), tell)?)
}
