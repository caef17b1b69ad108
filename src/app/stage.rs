//! What is behind the address: a store, its engine and its workers; and, for tests, how another takes its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::leftovers;
use super::{DataDirectory, Options};
use crate::clock::{Clock, ManualClock};
use crate::domain::Millis;
use crate::engine::{self, Engine, EventLog};
use crate::http::{Backstage, Front, Gateway, Refusal};
use crate::store;
use crate::worker::{self, Faults, InForce};

/// How long the server's time may be on its way to where it was moved, in real time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stage. Its clones share it.
#[derive(Clone)]
pub struct Stage {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    clock: Clock,
    /// What moves the clock, where tests may.
    manual: Option<ManualClock>,
    front: Front,
    drain: CancellationToken,
    failed: CancellationToken,
    scene: Mutex<Option<Scene>>,
    /// One change of scene, or of the time, after the other.
    turn: tokio::sync::Mutex<()>,
}

/// What is being played.
struct Scene {
    engine: Engine,
    faults: InForce,
    events: Option<EventLog>,
    /// Tells those who wait for something in it that they need not wait.
    over: CancellationToken,
    /// Removed with its contents when it is over.
    temporary: Option<tempfile::TempDir>,
}

/// A gateway to a scene that is not set yet.
fn gateway_of(options: &Options, drain: &CancellationToken) -> Gateway {
    let gateway = Gateway::new(options.pipeline_limit, &options.limits, drain.child_token());
    gateway.with_access(options.access.clone())
}

impl Stage {
    /// A stage on which nothing is played yet: requests are told so.
    pub(super) fn new(
        options: Options,
        (clock, manual): (Clock, Option<ManualClock>),
        drain: CancellationToken,
    ) -> (Self, Gateway) {
        let gateway = gateway_of(&options, &drain);
        let shared = Shared {
            front: Front::new(gateway.clone()),
            options,
            clock,
            manual,
            drain,
            failed: CancellationToken::new(),
            scene: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        (Self { shared: Arc::new(shared) }, gateway)
    }

    /// A stage for tests, without an address.
    ///
    /// # Errors
    /// Where the store does not open.
    pub async fn start(options: Options, manual: ManualClock) -> anyhow::Result<Self> {
        let clock = (manual.clock(), Some(manual));
        let (stage, gateway) = Self::new(options, clock, CancellationToken::new());
        stage.open(&gateway).await?;
        Ok(stage)
    }

    /// Opens the store, recovers, and lets `gateway` serve it.
    pub(super) async fn open(&self, gateway: &Gateway) -> anyhow::Result<()> {
        let temporary = match &self.shared.options.data {
            DataDirectory::Kept(_) => None,
            DataDirectory::Ephemeral => Some(leftovers::temporary().await?),
        };
        let scene = self.set(temporary, gateway).await?;
        gateway.open(scene.engine.clone());
        *self.scene() = Some(scene);
        Ok(())
    }

    async fn set(&self, temporary: Option<tempfile::TempDir>, gateway: &Gateway) -> anyhow::Result<Scene> {
        let options = &self.shared.options;
        let store = match (&options.data, &temporary) {
            (_, Some(temporary)) => store::Options { durable: false, ..store::Options::new(temporary.path()) },
            (DataDirectory::Kept(directory), None) => store::Options::new(directory),
            (DataDirectory::Ephemeral, None) => anyhow::bail!("there is no directory"),
        };
        let store =
            store::Options { journal_bytes: options.journal_bytes, retain_events: options.retain_events, ..store };
        let engine = engine::Options {
            rules: options.rules.clone(),
            retain_ms: options.retain_ms,
            credits: options.credits.clone(),
            ..engine::Options::new(store)
        };
        let engine = Engine::start(engine, self.shared.clock.clone()).await?;
        // Before anybody can cause an event.
        let events = self.shared.manual.as_ref().map(|_| EventLog::of(&engine));
        let faults = worker::start(&engine, &options.workers)?;
        let (failed, engine_failed) = (self.shared.failed.clone(), engine.failed().clone());
        let stopping = engine.stopping().clone();
        engine.spawn(async move {
            tokio::select! {
                biased;
                () = engine_failed.cancelled() => failed.cancel(),
                () = stopping.cancelled() => {}
            }
        });
        Ok(Scene { engine, faults, events, over: gateway.drain().clone(), temporary })
    }

    fn scene(&self) -> MutexGuard<'_, Option<Scene>> {
        self.shared.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine that is behind the address now; none before it has been opened.
    pub(super) fn engine_now(&self) -> Option<Engine> {
        self.scene().as_ref().map(|scene| scene.engine.clone())
    }

    /// Is cancelled when the engine cannot go on.
    pub(super) fn failed(&self) -> &CancellationToken {
        &self.shared.failed
    }

    /// What requests go to.
    #[must_use]
    pub fn front(&self) -> &Front {
        &self.shared.front
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Ends what is played.
    ///
    /// # Errors
    /// Where what was committed could not be settled.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.shared.drain.cancel();
        // The one that is there would keep the engine.
        self.shared.front.show(self.gateway());
        let scene = self.scene().take();
        match scene {
            Some(scene) => end(scene).await,
            None => Ok(()),
        }
    }

    /// Puts another store in the place of the one that is there: an empty one, or what `temporary` has in it. Whoever is
    /// being served goes on with the one that was there, as far as that still goes.
    async fn change(&self, prepared: Option<tempfile::TempDir>) -> Result<(), Refusal> {
        let failed = |error: anyhow::Error| Refusal::Failed(format!("{error:#}"));
        let temporary = match prepared {
            Some(prepared) => prepared,
            None => leftovers::temporary().await.map_err(failed)?,
        };
        let gateway = self.gateway();
        let scene = self.set(Some(temporary), &gateway).await.map_err(failed)?;
        gateway.open(scene.engine.clone());
        let before = self.scene().replace(scene);
        self.shared.front.show(gateway);
        if let Some(before) = before {
            before.over.cancel();
            // It goes, so nobody misses what is not settled in it.
            if let Err(error) = end(before).await {
                tracing::error!("a store that was put aside did not end well: {error:#}");
            }
        }
        Ok(())
    }

    fn gateway(&self) -> Gateway {
        gateway_of(&self.shared.options, &self.shared.drain)
    }

    fn must_be_ephemeral(&self) -> Result<(), Refusal> {
        match self.shared.options.data {
            DataDirectory::Ephemeral => Ok(()),
            DataDirectory::Kept(_) => {
                let reason = "the state is kept in a directory; only with --ephemeral it can be put aside";
                Err(Refusal::Conflict(reason.to_owned()))
            }
        }
    }
}

/// Ends what was played, and removes what it left.
async fn end(scene: Scene) -> anyhow::Result<()> {
    let Scene { engine, faults: _, events, over: _, temporary } = scene;
    engine.shutdown().await;
    // The last handle closes the store, which waits for its threads.
    let closing = tokio::task::spawn_blocking(move || {
        drop(events);
        let closed = engine.close();
        drop(temporary);
        closed
    });
    closing.await.context("the store did not close")??;
    Ok(())
}

impl Backstage for Stage {
    fn engine(&self) -> Result<Engine, Refusal> {
        self.engine_now().ok_or_else(|| Refusal::Failed("the store is not open".to_owned()))
    }

    fn events(&self) -> Option<EventLog> {
        self.scene().as_ref().and_then(|scene| scene.events.clone())
    }

    fn now(&self) -> Millis {
        self.shared.clock.now()
    }

    fn faults(&self) -> serde_json::Value {
        let faults = self.scene().as_ref().map(|scene| scene.faults.get());
        let rules = faults.iter().flat_map(|faults| faults.rules());
        serde_json::Value::Array(rules.filter_map(|rule| serde_json::to_value(rule).ok()).collect())
    }

    fn replace_faults(&self, json: &str) -> Result<(), Refusal> {
        let faults = Faults::parse(json).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Refusal::Invalid(format!("{error}{cause}"))
        })?;
        if let Some(scene) = &*self.scene() {
            scene.faults.replace(faults);
        }
        Ok(())
    }

    async fn advance(&self, duration_ms: u64) -> Result<Millis, Refusal> {
        let _turn = self.shared.turn.lock().await;
        let Some(manual) = &self.shared.manual else {
            return Err(Refusal::Conflict("this server goes by the system's clock".to_owned()));
        };
        manual.run(duration_ms, PATIENCE).await.map_err(|unfinished| Refusal::Unfinished(unfinished.to_string()))
    }

    async fn reset(&self) -> Result<(), Refusal> {
        let _turn = self.shared.turn.lock().await;
        self.must_be_ephemeral()?;
        self.change(None).await
    }

    async fn restore(&self, backup: bytes::Bytes) -> Result<(), Refusal> {
        let _turn = self.shared.turn.lock().await;
        self.must_be_ephemeral()?;
        let failed = |error: anyhow::Error| Refusal::Failed(format!("{error:#}"));
        let temporary = leftovers::temporary().await.map_err(failed)?;
        let prepare = move || {
            let file = tempfile::NamedTempFile::new().context("there is no room for the snapshot").map_err(failed)?;
            std::fs::write(file.path(), &backup).context("the snapshot cannot be written").map_err(failed)?;
            // As one that is kept: one that is not would be gone once it has been written.
            let restored = store::restore(&store::Options::new(temporary.path()), file.path());
            // What it was called here says nothing to whoever sent it.
            let name = format!("{} cannot be restored: ", file.path().display());
            restored.map_err(|error| Refusal::Invalid(error.to_string().replace(&name, "the snapshot: ")))?;
            Ok(temporary)
        };
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(|error| failed(error.into()))??;
        self.change(Some(prepared)).await
    }
}
