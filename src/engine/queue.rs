//! The queue of a partition, with a bell.
//!
//! Waking a thread costs more than what most requests ask of it. So whoever sends does not wake the partition but has the
//! bell rung once the runtime has run what it found ready: all that came in at one turn is one wake-up, one round, and
//! one commit. A partition that is awake needs no bell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::{SendError, TryRecvError, TrySendError};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Where requests of one partition are sent to. Its end, once this is dropped, is told to the partition.
pub(super) struct Queue<T> {
    sender: Sender<T>,
    /// Behind the sender, since fields are dropped in order: a partition that wakes finds that there is none.
    bell: Bell,
}

/// Where the partition takes them from.
pub(super) struct Inbox<T>(Receiver<T>);

/// A queue for so many requests, as two halves; the first lacks its bell until it is known whom that wakes.
pub(super) fn queue<T>(capacity: usize) -> (Sender<T>, Inbox<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (sender, Inbox(receiver))
}

impl<T> Queue<T> {
    /// The queue that wakes `thread`, which has the inbox.
    pub(super) fn new(sender: Sender<T>, thread: Thread) -> Self {
        Self { sender, bell: Bell(Arc::new(Rope { is_pulled: AtomicBool::new(false), thread })) }
    }

    /// Sends a request where there is room.
    pub(super) fn try_send(&self, request: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(request)?;
        self.bell.ring();
        Ok(())
    }

    /// Sends a request once there is room.
    pub(super) async fn send(&self, request: T) -> Result<(), SendError<T>> {
        self.sender.send(request).await?;
        self.bell.ring();
        Ok(())
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }
}

impl<T> Inbox<T> {
    /// Waits for requests and moves them, at most `limit`, into `taken`; none once there will be no more.
    pub(super) fn take(&mut self, taken: &mut Vec<T>, limit: usize) -> usize {
        loop {
            let end = loop {
                if taken.len() == limit {
                    return limit;
                }
                match self.0.try_recv() {
                    Ok(request) => taken.push(request),
                    Err(end) => break end,
                }
            };
            if !taken.is_empty() || end == TryRecvError::Disconnected {
                return taken.len();
            }
            // Whoever sends after the look above unparks after it, and then this returns at once.
            thread::park();
        }
    }
}

struct Bell(Arc<Rope>);

struct Rope {
    /// Whether it is going to ring.
    is_pulled: AtomicBool,
    thread: Thread,
}

impl Bell {
    fn ring(&self) {
        if self.0.is_pulled.swap(true, Ordering::AcqRel) {
            return;
        }
        let pull = Pull(Arc::clone(&self.0));
        // Outside of a runtime there is no turn to wait for.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::task::yield_now().await;
                drop(pull);
            });
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.thread.unpark();
    }
}

/// Rings when it is dropped, so that it also does where the runtime ends before its turn.
struct Pull(Arc<Rope>);

impl Drop for Pull {
    fn drop(&mut self) {
        // Everything that was sent by those who found it pulled is seen by the thread that it wakes.
        self.0.is_pulled.swap(false, Ordering::AcqRel);
        self.0.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use super::*;

    /// A bell that does not ring would let a test wait for ever.
    const NEVER: Duration = Duration::from_mins(1);

    async fn in_time<F: Future>(something: F) -> F::Output {
        tokio::time::timeout(NEVER, something).await.expect("it is not waited for in vain")
    }

    /// A queue, and a thread that says what it took each time.
    fn served(capacity: usize, limit: usize) -> (Queue<u32>, JoinHandle<Vec<Vec<u32>>>) {
        let (sender, mut inbox) = queue(capacity);
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            loop {
                let mut taken = Vec::new();
                if inbox.take(&mut taken, limit) == 0 {
                    return all;
                }
                all.push(taken);
            }
        });
        (Queue::new(sender, thread.thread().clone()), thread)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whatever_is_sent_arrives_and_the_end_does_too() {
        let (queue, thread) = served(8, 4);
        let queue = Arc::new(queue);
        let senders = (0..8).map(|sender| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                for number in 0..2_000 {
                    // Some find no room, and wait for it; now and then the thread has nothing to do.
                    queue.send(sender * 2_000 + number).await.expect("it is served");
                    if number % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            in_time(sender).await.expect("it has sent all");
        }
        drop(queue);
        let taken = thread.join().expect("it ended");
        assert!(taken.iter().all(|some| some.len() <= 4));
        let mut all = taken.concat();
        all.sort_unstable();
        assert_eq!(all, (0..16_000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn each_is_answered_though_nothing_else_is_sent() {
        let (sender, mut inbox) = queue::<tokio::sync::oneshot::Sender<()>>(8);
        let thread = thread::spawn(move || {
            let mut taken = Vec::new();
            while inbox.take(&mut taken, 8) > 0 {
                taken.drain(..).for_each(|reply| reply.send(()).expect("it is waited for"));
            }
        });
        let queue = Queue::new(sender, thread.thread().clone());
        for _ in 0..1_000 {
            let (reply, answer) = tokio::sync::oneshot::channel();
            queue.try_send(reply).expect("there is room");
            in_time(answer).await.expect("answered");
        }
        assert_eq!(queue.waiting(), 0);
        drop(queue);
        thread.join().expect("it ended");
    }

    #[test]
    fn what_is_sent_without_a_runtime_or_as_it_ends_arrives() {
        let (queue, thread) = served(8, 8);
        queue.try_send(1).expect("there is room");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        // The task that rings never runs.
        runtime.block_on(async { queue.try_send(2).expect("there is room") });
        drop(runtime);
        let began = Instant::now();
        while queue.waiting() > 0 {
            assert!(began.elapsed() < NEVER, "nobody takes it");
            thread::yield_now();
        }
        drop(queue);
        assert_eq!(thread.join().expect("it ended").concat(), [1, 2]);
    }

    /// Whoever finds the bell pulled rings no second time.
    #[tokio::test]
    async fn all_of_one_turn_of_the_runtime_are_one_ring() {
        let (sender, mut inbox) = queue(8);
        let queue = Arc::new(Queue::new(sender, thread::current()));
        let is_pulled = || queue.bell.0.is_pulled.load(Ordering::Acquire);
        queue.try_send(1).expect("there is room");
        // It runs behind the bell's own task.
        let second = Arc::clone(&queue);
        let second = tokio::spawn(async move {
            assert!(second.bell.0.is_pulled.load(Ordering::Acquire), "it has not rung by then");
            second.try_send(2).expect("there is room");
        });
        in_time(second).await.expect("sent");
        let began = Instant::now();
        while is_pulled() {
            assert!(began.elapsed() < NEVER, "it never rings");
            tokio::task::yield_now().await;
        }
        let mut taken = Vec::new();
        assert_eq!((inbox.take(&mut taken, 8), taken), (2, vec![1, 2]));
    }

    #[test]
    fn it_is_full_and_closed_as_any_queue() {
        let (sender, inbox) = queue(1);
        let queue = Queue::new(sender, thread::current());
        queue.try_send(1).expect("there is room");
        assert_eq!(queue.waiting(), 1);
        assert!(matches!(queue.try_send(2), Err(TrySendError::Full(2))));
        drop(inbox);
        assert!(matches!(queue.try_send(3), Err(TrySendError::Closed(3))));
    }
}
