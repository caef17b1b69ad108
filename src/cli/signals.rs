//! The signals that end the program: ctrl-c, SIGTERM, and the terminal that closes.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// They wait to be taken, and no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Those of a server, where the first argument says that there is going to be one: from now on they wait for it. A
    /// client is ended by its signals.
    ///
    /// # Errors
    /// Where the system does not let them be waited for.
    pub fn of_server() -> anyhow::Result<Option<Self>> {
        let is_server = std::env::args_os().nth(1).is_some_and(|command| command == "serve");
        is_server.then(Self::new).transpose()
    }

    /// From now on a signal waits to be taken and no longer ends the process by itself.
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be waited for");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
