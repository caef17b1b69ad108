//! What is asked of a batch, and what comes with it.

use std::sync::Arc;

use uuid::Uuid;

use super::once::Once;
use crate::contract::Message;
use crate::domain::{Input, Origin};

/// An input, and what comes with it.
#[derive(Debug)]
pub struct Submission {
    pub(super) input: Input,
    pub(super) correlation_id: Uuid,
    pub(super) contents: Vec<String>,
    pub(super) versions: Option<Vec<u64>>,
    pub(super) origin: Arc<Origin>,
    pub(super) once: Option<Once>,
    /// What the input was, for whoever watches; it goes to no group.
    pub(super) shown: Option<Message>,
}

impl Submission {
    /// `input`, connected with the request that it comes from.
    #[must_use]
    pub fn new(input: Input, correlation_id: Uuid) -> Self {
        let (contents, versions, origin) = (Vec::new(), None, Arc::default());
        Self { input, correlation_id, contents, versions, origin, once: None, shown: None }
    }

    /// Stores these texts in the same commit.
    #[must_use]
    pub fn with_contents(self, contents: Vec<String>) -> Self {
        Self { contents, ..self }
    }

    /// What the request says of itself.
    #[must_use]
    pub fn from_origin(self, origin: Origin) -> Self {
        Self { origin: Arc::new(origin), ..self }
    }

    /// Only if the batch is in one of these versions; whatever its version where there are none.
    #[must_use]
    pub fn if_version(self, versions: Option<Vec<u64>>) -> Self {
        Self { versions, ..self }
    }
}
