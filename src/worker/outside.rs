//! Phases that nobody in this process runs: their commands are offered by lease, or left to whoever sees the events.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::bus::Subscription;
use crate::domain::Phase;
use crate::engine::Engine;

/// How many commands are consumed side by side, so that they share their way to the disk.
const MAX_CONCURRENT: usize = 256;

/// Lays the commands of `phase` where workers ask for them.
pub(super) async fn offer(engine: Engine, phase: Phase, mut commands: Subscription) {
    while let Some(command) = commands.next().await {
        engine.offer(phase, command).await;
    }
}

/// Consumes commands that were shown to whoever watches before they came here. From then on the deadline of the attempt
/// watches over it.
pub(super) async fn leave_to_events(engine: Engine, mut commands: Subscription) {
    let places = Arc::new(Semaphore::new(MAX_CONCURRENT));
    while let Some(command) = commands.next().await {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let handle = engine.clone();
        engine.spawn(async move {
            if let Err(error) = handle.finish(command, Vec::new(), Vec::new()).await {
                tracing::warn!(%error, "a command was not consumed; it comes again");
            }
            drop(place);
        });
    }
}
