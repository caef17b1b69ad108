//! What users are told: collected with the step that causes it, said once that is durable.

use std::sync::Arc;

use serde::Deserialize;

use super::Engine;
use crate::bus::{Listener, TooManyConnections};
use crate::contract::{Message, Notice, Topic};
use crate::domain::Batch;

/// Whom a notice is for.
pub(super) enum Whom {
    Owner(Arc<Batch>),
    Named(String),
}

impl AsRef<str> for Whom {
    fn as_ref(&self) -> &str {
        match self {
            Self::Owner(batch) => &batch.details.user_id,
            Self::Named(user) => user,
        }
    }
}

/// The largest notification that a user is told, in bytes, its envelope included. It is one line; those from here have
/// less than two kilobytes.
const MAX_BYTES: usize = 64 * 1_024;

/// What `message` tells a user, if it is a notification.
pub(super) fn notice(message: &Message) -> Option<Notice> {
    if message.topic != Topic::TeacherNotificationRequested {
        return None;
    }
    if message.body.len() > MAX_BYTES {
        tracing::warn!(key = %message.key, bytes = message.body.len(), "a notification is too large to be told");
        return None;
    }
    Some(Notice::Requested(message.body.clone()))
}

/// A message, as far as it says whom it is for.
#[derive(Deserialize)]
struct Addressed {
    data: Addressee,
}

#[derive(Deserialize)]
struct Addressee {
    teacher_id: String,
}

/// As [`notice`], for a message of somebody else's. One that names nobody tells nobody.
pub(super) fn foreign(message: &Message) -> Option<(Whom, Notice)> {
    let notice = notice(message)?;
    let Addressed { data: Addressee { teacher_id } } = serde_json::from_slice(&message.body).ok()?;
    Some((Whom::Named(teacher_id), notice))
}

impl Engine {
    /// Hears what `user` is told from now on. It is told what is durable, so whoever listens first and reads the state
    /// then misses nothing.
    ///
    /// # Errors
    /// [`TooManyConnections`].
    pub fn listen(&self, user: &str) -> Result<Listener, TooManyConnections> {
        self.shared.bus.listen(user)
    }
}
