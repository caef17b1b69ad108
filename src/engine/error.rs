//! Why the engine did not do something.

use crate::domain::Rejected;
use crate::store;

/// Why the engine did not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The batch does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The request's key was used for another request.
    #[error("this Idempotency-Key was used for another request; use a new one for each request")]
    KeyReused,
    /// A request with the same key is being served.
    #[error("a request with this Idempotency-Key is being served; ask again for its answer")]
    KeyInFlight,
    /// A bulk retry would be about more batches than one can have.
    #[error("more than {limit} batches fit the filter; narrow it, by since and until for example")]
    TooManyBatches {
        /// The most there can be.
        limit: usize,
    },
    /// As many bulk retries are running as can.
    #[error("{limit} retry jobs are running already; wait for one to end, or stop one")]
    TooManyJobs {
        /// The most there can be.
        limit: usize,
    },
    /// One backup at a time.
    #[error("a backup is being made already; wait for its end")]
    BackupRunning,
    /// Too much is waiting already.
    #[error("too many requests are waiting; try again in a moment")]
    Overloaded,
    /// The store failed, or the program is ending.
    #[error("not available: {0}")]
    Unavailable(String),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
