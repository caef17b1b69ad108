//! Who listens for notifications, and the two ways to: a web socket, and server-sent events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::access::bearer;
use super::identity::{agrees, user_of};
use super::serve::BeyondHttp;
use super::socket::{self, Session};
use super::{Gateway, Limits, Problem, Tokens};
use crate::contract::notifications::CONNECTIONS_A_USER;
use crate::contract::requests::ClientId;
use crate::domain::Millis;
use crate::engine::{Engine, Listener};

/// All who listen.
#[derive(Debug, Clone)]
pub(super) struct Audience {
    /// Half of all connections, so that those who listen leave room for those who ask.
    places: Arc<Semaphore>,
    size: usize,
    ping: Duration,
}

impl Audience {
    pub(super) fn new(limits: &Limits) -> Self {
        let size = (limits.places() / 2).max(1);
        Self { places: Arc::new(Semaphore::new(size)), size, ping: limits.ping }
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }
}

/// How a request says who asks.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    token: Option<String>,
    user_id: Option<String>,
}

/// Who asks to listen; the reason where that cannot be told.
#[derive(Debug)]
pub(super) struct Asker(Result<String, Problem>);

impl FromRequestParts<Gateway> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        let query: Result<Query<Asked>, QueryRejection> = Query::from_request_parts(parts, gateway).await;
        let Query(asked) = query.map_err(|_| Problem::bad_request("token and user_id are sent once, in UTF-8"))?;
        let now = gateway.engine()?.clock().now();
        Ok(Self(match &gateway.access.tokens {
            Some(tokens) => shown(parts, &asked, tokens, now),
            None => named(parts, asked.user_id),
        }))
    }
}

/// The user of the header's token, else of the query's: a browser cannot send a header with a web socket. Nobody else can
/// be named besides.
fn shown(parts: &Parts, asked: &Asked, tokens: &Tokens, now: Millis) -> Result<String, Problem> {
    let token = bearer(&parts.headers)?.or(asked.token.as_deref());
    let caller = tokens.caller(token.ok_or_else(|| Problem::no_token("who are you? Send a token"))?, now)?;
    agrees(&caller, &parts.headers)?;
    if asked.user_id.as_deref().is_some_and(|named| named.trim() != caller.user) {
        return Err(Problem::forbidden("the token and user_id are different users"));
    }
    Ok(caller.user)
}

/// The header's user, else the query's.
fn named(parts: &Parts, asked: Option<String>) -> Result<String, Problem> {
    if let Some(user) = user_of(&parts.headers)? {
        return Ok(user);
    }
    let asked = asked.ok_or_else(Problem::unauthenticated)?;
    let user = ClientId::new(&asked).map_err(|error| Problem::bad_request(format!("user_id {error}")))?;
    Ok(user.into_string())
}

/// Why somebody cannot listen.
pub(super) enum Refusal {
    Unknown(Problem),
    /// One user, too often.
    TooMany,
    /// There is no place for anybody.
    Full,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown(problem) => problem,
            Refusal::TooMany => {
                let quota = u32::try_from(CONNECTIONS_A_USER).unwrap_or(u32::MAX);
                let error = format!("{quota} connections that listen are the limit of one user");
                Self::limited(error, "notifications", quota, None)
            }
            Refusal::Full => Self::no_listeners(),
        }
    }
}

/// Somebody who listens, with the place that they have.
pub(super) struct Seat {
    pub(super) listener: Listener,
    _place: OwnedSemaphorePermit,
}

/// Takes a seat. What is told from now on is heard.
fn seat(audience: &Audience, engine: &Engine, Asker(user): Asker) -> Result<Seat, Refusal> {
    let user = user.map_err(Refusal::Unknown)?;
    let place = Arc::clone(&audience.places).try_acquire_owned().map_err(|_| Refusal::Full)?;
    let listener = engine.listen(&user).map_err(|_| Refusal::TooMany)?;
    Ok(Seat { listener, _place: place })
}

/// A web socket. Whoever may not listen is told so by its close code, which is all that a browser shows of a refusal.
pub(super) async fn socket(
    State(gateway): State<Gateway>,
    asker: Asker,
    beyond: Beyond,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| Problem::bad_request("this route is a web socket (RFC 6455)"))?;
    let seat = seat(&gateway.audience, gateway.engine()?, asker);
    let session = Session { seat, ping: gateway.audience.ping, drain: gateway.drain.clone(), beyond: beyond.0 };
    Ok(socket::bounded(upgrade).on_upgrade(move |socket| session.run(socket)))
}

/// What a connection that is served has for its web socket.
pub(super) struct Beyond(Option<BeyondHttp>);

impl<S: Sync> FromRequestParts<S> for Beyond {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.remove()))
    }
}

/// The same as server-sent events.
pub(super) async fn stream(State(gateway): State<Gateway>, asker: Asker) -> Result<Response, Problem> {
    let seat = seat(&gateway.audience, gateway.engine()?, asker)?;
    let events = Events { seat, drained: Box::pin(gateway.drain.clone().cancelled_owned()) };
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(gateway.audience.ping)).into_response())
}

/// What one listener hears, until that is too slow or the server ends.
struct Events {
    seat: Seat,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stream for Events {
    type Item = Result<Event, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.drained.as_mut().poll(context).is_ready() || self.seat.listener.behind().is_cancelled() {
            return Poll::Ready(None);
        }
        loop {
            let Some(notice) = std::task::ready!(self.seat.listener.poll_next(context)) else {
                return Poll::Ready(None);
            };
            match notice.event() {
                // A line break ends a field, and a name comes from whoever sent the message.
                Ok(said) => {
                    let name: String = said.event.chars().filter(|character| !character.is_control()).collect();
                    return Poll::Ready(Some(Event::default().event(name).json_data(&said.data)));
                }
                Err(error) => tracing::warn!(%error, "a notification that cannot be read was left out"),
            }
        }
    }
}
