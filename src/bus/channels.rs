//! The channels of users: what somebody who is connected hears at once, and nobody else ever.
//!
//! Nothing is kept for a user without a connection. Each connection has a queue of its own; one that is full belongs to a
//! reader who is too slow, and is taken out rather than waited for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::contract::Notice;
use crate::contract::notifications::CONNECTIONS_A_USER;

/// How many notices may wait for one connection: several pipelines' worth for each of a dozen batches. A reader that is
/// further behind reads the state anew when it comes back.
const QUEUE: usize = 256;

/// The channels of all users.
#[derive(Debug, Default)]
pub(super) struct Channels {
    users: Mutex<HashMap<String, Vec<Place>>>,
    /// How many users have a connection. Read without the lock, so that telling nobody costs nothing.
    listening: AtomicUsize,
    next: AtomicUsize,
}

/// The sender's side of a connection.
#[derive(Debug)]
struct Place {
    number: usize,
    queue: mpsc::Sender<Arc<Notice>>,
    behind: CancellationToken,
}

/// A user has as many connections as one user can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one user can have {CONNECTIONS_A_USER} connections")]
pub struct TooManyConnections;

/// One connection of a user. Leaves the channel when it is dropped.
#[derive(Debug)]
pub struct Listener {
    user: String,
    number: usize,
    queue: mpsc::Receiver<Arc<Notice>>,
    behind: CancellationToken,
    channels: Arc<Channels>,
}

impl Channels {
    fn users(&self) -> MutexGuard<'_, HashMap<String, Vec<Place>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what `user` is told from now on.
    pub(super) fn listen(self: &Arc<Self>, user: &str) -> Result<Listener, TooManyConnections> {
        let mut users = self.users();
        let places = users.entry(user.to_owned()).or_default();
        if places.len() >= CONNECTIONS_A_USER {
            return Err(TooManyConnections);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, queue) = mpsc::channel(QUEUE);
        let behind = CancellationToken::new();
        places.push(Place { number, queue: sender, behind: behind.clone() });
        self.listening.store(users.len(), Ordering::Release);
        drop(users);
        Ok(Listener { user: user.to_owned(), number, queue, behind, channels: Arc::clone(self) })
    }

    /// Tells each of these users what is for them. It never waits.
    pub(super) fn tell<U: AsRef<str>>(&self, notices: Vec<(U, Notice)>) {
        if notices.is_empty() || self.listening.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut users = self.users();
        for (user, notice) in notices {
            let Some(places) = users.get_mut(user.as_ref()) else { continue };
            let notice = Arc::new(notice);
            places.retain(|place| {
                let is_told = place.queue.try_send(Arc::clone(&notice)).is_ok();
                if !is_told {
                    place.behind.cancel();
                }
                is_told
            });
            if places.is_empty() {
                users.remove(user.as_ref());
            }
        }
        self.listening.store(users.len(), Ordering::Release);
    }

    fn leave(&self, user: &str, number: usize) {
        let mut users = self.users();
        if let Some(places) = users.get_mut(user) {
            places.retain(|place| place.number != number);
            if places.is_empty() {
                users.remove(user);
            }
        }
        self.listening.store(users.len(), Ordering::Release);
    }
}

impl Listener {
    /// The next notice; none once the reader was too slow.
    pub async fn next(&mut self) -> Option<Arc<Notice>> {
        self.queue.recv().await
    }

    /// As [`Listener::next`], for whoever polls.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<Notice>>> {
        self.queue.poll_recv(context)
    }

    /// Is cancelled where the reader was too slow, while what it has yet to read may still wait.
    #[must_use]
    pub const fn behind(&self) -> &CancellationToken {
        &self.behind
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.channels.leave(&self.user, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(text: &'static str) -> Notice {
        Notice::Requested(text.into())
    }

    fn heard(listener: &mut Listener) -> Vec<String> {
        let mut heard = Vec::new();
        while let Ok(notice) = listener.queue.try_recv() {
            let Notice::Requested(body) = &*notice else { panic!("nobody said that: {notice:?}") };
            heard.push(String::from_utf8(body.to_vec()).expect("text"));
        }
        heard
    }

    #[test]
    fn a_user_hears_what_is_for_that_user_on_every_connection() {
        let channels = Arc::new(Channels::default());
        channels.tell(vec![("a", notice("before"))]);
        let [mut one, mut two] = ["a", "a"].map(|user| channels.listen(user).expect("room"));
        let mut other = channels.listen("b").expect("room");
        channels.tell(vec![("a", notice("1")), ("b", notice("2")), ("c", notice("3")), ("a", notice("4"))]);
        let told = [&mut one, &mut two, &mut other].map(heard);
        assert_eq!(told, [vec!["1", "4"], vec!["1", "4"], vec!["2"]]);
    }

    #[test]
    fn a_sixth_connection_is_refused_until_one_has_left() {
        let channels = Arc::new(Channels::default());
        let mut listeners: Vec<_> = (0..5).map(|_| channels.listen("a").expect("room")).collect();
        assert_eq!(channels.listen("a").err(), Some(TooManyConnections));
        assert!(channels.listen("b").is_ok(), "another user has places of their own");
        listeners.remove(2);
        listeners.push(channels.listen("a").expect("room again"));
        listeners.clear();
        assert_eq!(channels.listening.load(Ordering::Relaxed), 0);
        assert!(channels.users().is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn who_does_not_read_is_taken_out_and_others_go_on() {
        let channels = Arc::new(Channels::default());
        let (mut slow, mut quick) = (channels.listen("a").expect("room"), channels.listen("a").expect("room"));
        for _ in 0..QUEUE {
            channels.tell(vec![("a", notice("n"))]);
            assert_eq!(heard(&mut quick).len(), 1);
        }
        assert!(!slow.behind().is_cancelled());
        channels.tell(vec![("a", notice("last"))]);
        assert!(slow.behind().is_cancelled() && !quick.behind().is_cancelled());
        assert_eq!((heard(&mut slow).len(), heard(&mut quick)), (QUEUE, vec!["last".to_owned()]));
        assert_eq!(channels.users()["a"].len(), 1);
    }
}
