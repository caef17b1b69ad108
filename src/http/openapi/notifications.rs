//! What becomes of a user's batches, as it happens.

use serde_json::Value;

use super::operation::{Audience, Operation};

const STREAM: &str = "Server-sent events: `event` is the type of a notification, `data` the object. Told once they are \
    durable, in order, and kept for nobody: connect first, then read the status.";
const SOCKET: &str = "A web socket (RFC 6455) of `{\"event\", \"data\"}`. Whoever may not listen is told so by the close \
    code: 1008 for a bad token, 4000 for one connection too many of a user, 1013 where there is no place.";

pub(super) fn operations() -> Vec<Operation> {
    let quota = "a user has as many connections that listen as one can";
    vec![
        Operation::get("/v1/notifications/stream", "streamNotifications", "Listen, by server-sent events")
            .text(STREAM)
            .audience(Audience::Listener)
            .answer_as::<String>(200, "The stream. It does not end by itself.", "text/event-stream", Value::Null)
            .limited(quota),
        Operation::get("/ws", "openSocket", "Listen, by a web socket")
            .text(SOCKET)
            .audience(Audience::Listener)
            .empty_answer(101, "The socket is open."),
    ]
}
