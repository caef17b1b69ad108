//! A backup of the running server, as a stream.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Engine, Error};
use crate::store;

/// How many bytes go out at once.
const CHUNK_BYTES: usize = 64 * 1_024;

/// How many chunks may wait for whoever reads them.
const QUEUE: usize = 4;

impl Engine {
    /// The state as it is now, as lines of JSON; commits go on meanwhile. A stream that ends without its last line is no
    /// backup.
    ///
    /// # Errors
    /// [`Error::BackupRunning`] where somebody takes one already, and [`Error::Unavailable`].
    pub fn backup(&self) -> Result<mpsc::Receiver<Result<Bytes, Error>>, Error> {
        let store = &self.shared.store;
        let snapshot = store.snapshot().ok_or(Error::BackupRunning)?;
        let created_at = self.clock().now().to_timestamp().to_string();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let write = move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let written = store::backup(&snapshot, &created_at, &mut |mut line| {
                chunk.append(&mut line);
                chunk.len() < CHUNK_BYTES || sender.blocking_send(Ok(std::mem::take(&mut chunk).into())).is_ok()
            });
            // Whoever reads may have gone away; then there is nobody to tell.
            let _ = match written {
                Ok(()) => sender.blocking_send(Ok(chunk.into())),
                Err(error) => sender.blocking_send(Err(error.into())),
            };
        };
        self.shared.tasks.spawn_blocking(write);
        Ok(receiver)
    }
}
