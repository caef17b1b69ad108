//! One web socket: what its user is told goes out, and whatever ends it says why.

use std::future::pending;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::notifications::{Refusal, Seat};
use super::serve::BeyondHttp;
use crate::engine::Listener;

/// The largest message of a client, in bytes. What it says is not read.
const MAX_MESSAGE_BYTES: usize = 4 * 1_024;

/// The memory that a connection has for reading, and again for writing, in bytes. Most notifications fit.
const BUFFER_BYTES: usize = 4 * 1_024;

/// How many pings in a row may go unanswered.
const MAX_UNANSWERED: u32 = 2;

/// How long the end of a connection may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The room that a close frame has for its reason, in bytes (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 123;

/// One connection too many of one user (contract, HTTP).
const TOO_MANY: u16 = 4_000;

/// With the bounds of what a client may send.
pub(super) fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    upgrade.read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES)
}

/// What a web socket needs.
pub(super) struct Session {
    pub(super) seat: Result<Seat, Refusal>,
    pub(super) ping: Duration,
    pub(super) drain: CancellationToken,
    /// None where nobody waits for the connection.
    pub(super) beyond: Option<BeyondHttp>,
}

/// Why a socket ends.
enum Ending {
    /// The client took its leave.
    Left,
    /// The client is not there any more.
    Gone,
    /// For this reason, which the client is told.
    Closed(u16, String),
}

impl Session {
    /// Serves `socket` to its end.
    pub(super) async fn run(self, mut socket: WebSocket) {
        let Self { seat, ping, drain, beyond } = self;
        let cut = async {
            match &beyond {
                Some(beyond) => beyond.cut().await,
                None => pending().await,
            }
        };
        let whole = async {
            let ending = match seat {
                Ok(mut seat) => serve(&mut socket, &mut seat.listener, ping, &drain).await,
                Err(refusal) => refused(refusal),
            };
            // Its place is free by now. A client that does not take its leave is not waited for.
            let _ = timeout(FAREWELL, take_leave(&mut socket, ending)).await;
        };
        tokio::select! {
            () = whole => {}
            () = cut => {}
        }
    }
}

fn refused(refusal: Refusal) -> Ending {
    match refusal {
        Refusal::Unknown(problem) => Ending::Closed(close_code::POLICY, problem.error().to_owned()),
        Refusal::TooMany => Ending::Closed(TOO_MANY, "one user cannot have more connections".to_owned()),
        Refusal::Full => Ending::Closed(close_code::AGAIN, "there are as many listeners as there can be".to_owned()),
    }
}

async fn serve(socket: &mut WebSocket, listener: &mut Listener, ping: Duration, drain: &CancellationToken) -> Ending {
    let behind = listener.behind().clone();
    // Whatever is being sent is given up for the first two.
    tokio::select! {
        biased;
        () = drain.cancelled() => Ending::Closed(close_code::AWAY, "the server ends".to_owned()),
        () = behind.cancelled() => too_slow(),
        ending = exchange(socket, listener, ping) => ending,
    }
}

fn too_slow() -> Ending {
    Ending::Closed(close_code::AGAIN, "you read too slowly; come back, and read the state anew".to_owned())
}

/// Sends what there is and listens whether the client is there.
async fn exchange(socket: &mut WebSocket, listener: &mut Listener, ping: Duration) -> Ending {
    let mut pings = interval_at(Instant::now() + ping, ping);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    loop {
        let message = tokio::select! {
            notice = listener.next() => {
                let Some(notice) = notice else { return too_slow() };
                match notice.event().and_then(|event| serde_json::to_string(&event)) {
                    Ok(text) => Message::text(text),
                    Err(error) => {
                        tracing::warn!(%error, "a notification that cannot be read was left out");
                        continue;
                    }
                }
            }
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_))) | None => return Ending::Left,
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {
                    unanswered = 0;
                    continue;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a web socket ended before its time");
                    let reason = format!("send nothing, or less than {MAX_MESSAGE_BYTES} bytes");
                    return Ending::Closed(close_code::PROTOCOL, reason);
                }
            },
            _ = pings.tick() => {
                if unanswered >= MAX_UNANSWERED {
                    return Ending::Gone;
                }
                unanswered += 1;
                Message::Ping(Bytes::new())
            }
        };
        if socket.send(message).await.is_err() {
            return Ending::Gone;
        }
    }
}

/// Ends as the protocol wants it: both sides say that they close. (A socket that is closed with unread bytes takes the
/// reason with it.)
async fn take_leave(socket: &mut WebSocket, ending: Ending) {
    match ending {
        Ending::Left => {}
        Ending::Gone => return,
        Ending::Closed(code, mut reason) => {
            while reason.len() > MAX_REASON_BYTES {
                reason.pop();
            }
            if socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await.is_err() {
                return;
            }
        }
    }
    while let Some(Ok(_)) = socket.recv().await {}
}
