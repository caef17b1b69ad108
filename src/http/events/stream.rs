//! Events as they happen: server-sent events out of the log.
//!
//! Each stream is a task that reads the log at its client's pace. A page is read once there is room for it, so a client
//! that is slow costs a page of memory; one that does not read at all loses its connection like any other, and goes on
//! from the log when it comes back.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use super::no_log;
use super::seats::Seat;
use crate::contract::{Message, Topic};
use crate::domain::{BatchId, EventGroup, EventId};
use crate::engine::{Engine, EventReader, Read, Start, StreamFilter};
use crate::http::amiss::Asked;
use crate::http::serve::Connection;
use crate::http::{Gateway, Problem};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Asks proxies not to wait for more before they pass an event on.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// When a client should come back whose stream ended.
const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct StreamQuery {
    /// Only these topics: their names, with commas between them.
    topics: Option<String>,
    /// Only what is about this batch.
    #[schemars(with = "Option<uuid::Uuid>")]
    batch_id: Option<String>,
    /// Who reads: the stream begins where this group is.
    #[schemars(regex(pattern = "^[a-z0-9._-]{1,100}$"))]
    group: Option<String>,
    /// As the header, for those who can send none.
    last_event_id: Option<String>,
    /// Where a stream begins that knows no event and has no group yet; `now` where nothing is said.
    from: Option<From>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "StreamStart")]
pub(in crate::http) enum From {
    Start,
    Now,
}

pub(in crate::http) async fn stream(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    connection: Option<Extension<Connection>>,
    query: Result<Asked<StreamQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let newest = engine.newest_event().ok_or_else(no_log)?;
    let Asked(query) = query?;
    let filter = StreamFilter {
        topics: query.topics.as_deref().map(topics).transpose()?,
        batch: query.batch_id.as_deref().map(batch).transpose()?,
    };
    let group: Option<EventGroup> = query.group.as_deref().map(str::parse).transpose().map_err(|error| {
        let error: crate::domain::NoEventGroup = error;
        Problem::invalid(format!("group: {error}"))
    })?;
    let known = last_event_id(&headers, query.last_event_id.as_deref())?;
    let begin = match (known, query.from) {
        (Some(id), _) => Start::After(id),
        (None, Some(From::Start)) => Start::Oldest,
        (None, Some(From::Now) | None) => Start::Now,
    };
    let place = gateway.streams.enter()?;
    let (begin, seat) = match group {
        None => (begin, None),
        Some(group) => {
            let begin = start_of(engine, group.clone(), begin, newest).await?;
            (begin, Some(gateway.streams.sit(group)))
        }
    };
    let reader = engine.read_events(filter, begin).ok_or_else(no_log)?;
    let (pages, ready) = mpsc::channel(1);
    let mut beat = interval_at(Instant::now() + gateway.streams.heartbeat, gateway.streams.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ends = [gateway.drain.clone(), engine.stopping().clone()];
    let task = Task { reader, pages, seat, ends, _place: place };
    engine.spawn(task.run(beat));
    if let Some(Extension(connection)) = connection {
        connection.streams();
    }
    let body = Sse::new(Frames { pages: ready, page: Vec::new().into_iter() });
    Ok(([UNBUFFERED], body).into_response())
}

/// Where a stream of `group` begins: at the place of the group, which is made at `begin` where it is new. A client that
/// says itself what it has seen goes on there.
async fn start_of(engine: &Engine, group: EventGroup, begin: Start, newest: EventId) -> Result<Start, Problem> {
    let is_to_come = |id: EventId| id.log == newest.log && id.sequence > newest.sequence;
    let after = match begin {
        Start::After(id) if !is_to_come(id) => id,
        Start::Now => newest,
        // Nobody has taken what has not happened yet.
        Start::After(_) | Start::Oldest => engine.before_oldest_event().await?.ok_or_else(no_log)?,
    };
    let place = engine.open_event_group(group, after).await?;
    let place = place.ok_or_else(|| {
        Problem::conflict(format!("there are {} groups already; forget one of them", EventGroup::MAX))
    })?;
    Ok(match begin {
        Start::After(_) => begin,
        // What is removed before the first reading was not asked for.
        Start::Oldest if place.after == after => begin,
        Start::Oldest | Start::Now => Start::After(place.after),
    })
}

fn topics(text: &str) -> Result<HashSet<Topic>, Problem> {
    let topic = |name: &str| {
        let found = name.parse::<Topic>();
        found.map_err(|_| Problem::invalid("topics: they are names of topics, with commas between them"))
    };
    text.split(',').map(topic).collect()
}

fn batch(text: &str) -> Result<BatchId, Problem> {
    text.parse().map_err(|_| Problem::invalid("batch_id: this is not the id of a batch"))
}

/// The last event that a client knows. The header is newer than the query, which a client that comes back by itself
/// repeats.
fn last_event_id(headers: &HeaderMap, query: Option<&str>) -> Result<Option<EventId>, Problem> {
    let header = headers.get(LAST_EVENT_ID).map(HeaderValue::to_str).transpose();
    let malformed = || Problem::invalid("Last-Event-ID: this server gave no event such an id");
    let header = header.map_err(|_| malformed())?.map(str::trim).filter(|text| !text.is_empty());
    header.or(query).map(str::parse).transpose().map_err(|_| malformed())
}

/// One stream.
struct Task {
    reader: EventReader,
    pages: mpsc::Sender<Vec<Event>>,
    /// That of its group, where it reads for one.
    seat: Option<Seat>,
    /// The server's end, and the engine's.
    ends: [CancellationToken; 2],
    /// Among the streams that there can be.
    _place: OwnedSemaphorePermit,
}

/// Why a stream ends.
enum End {
    /// The server ends, or the client is gone.
    Over,
    /// Somebody else reads for the group now.
    Taken,
}

impl Task {
    async fn run(self, mut beat: Interval) {
        let Self { mut reader, pages, seat, ends: [drain, stopping], _place } = self;
        let end = async {
            let taken = async {
                match &seat {
                    Some(seat) => seat.taken().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = drain.cancelled() => End::Over,
                () = stopping.cancelled() => End::Over,
                () = pages.closed() => End::Over,
                () = taken => End::Taken,
            }
        };
        let send = async {
            // So that a client which loses its connection before the first event misses none either.
            let mut page = vec![with_position(Event::default().retry(RECONNECT), &reader)];
            // Nobody receives where the client is gone.
            while pages.send(page).await.is_ok() {
                page = tokio::select! {
                    biased;
                    _ = beat.tick() => vec![with_position(Event::default().comment("still here"), &reader)],
                    read = reader.next() => match read {
                        Ok(Read::Events(events)) => {
                            beat.reset();
                            events.iter().map(|(id, message)| event(*id, message)).collect()
                        }
                        Ok(Read::Gap { after, up_to }) => vec![gap(after, up_to)],
                        Err(error) => {
                            tracing::error!(%error, "a stream of events ends");
                            return;
                        }
                    },
                };
            }
        };
        tokio::select! {
            biased;
            end = end => match end {
                End::Over => {}
                // Told where there is room for it; the connection ends either way.
                End::Taken => _ = pages.try_send(vec![taken()]),
            },
            () = send => {}
        }
    }
}

/// `event`, with the place up to which everything was looked at, where that can be said. Without data it is no event to
/// a client, and only says where to go on.
fn with_position(event: Event, reader: &EventReader) -> Event {
    match reader.position() {
        Some(position) => event.id(position.to_string()),
        None => event,
    }
}

fn event(id: EventId, message: &Message) -> Event {
    // What is no text is shown as far as it is.
    Event::default().id(id.to_string()).event(message.topic.as_str()).data(String::from_utf8_lossy(&message.body))
}

/// Has no id of its own: until the next event a client that comes back is told again.
fn gap(after: EventId, up_to: EventId) -> Event {
    let missed = (after.log == up_to.log).then(|| up_to.sequence.checked_sub(after.sequence)).flatten();
    let data = json!({ "after": after.to_string(), "up_to": up_to.to_string(), "missed": missed });
    Event::default().event("gap").data(data.to_string())
}

fn taken() -> Event {
    Event::default()
        .event("taken-over")
        .data(json!({ "reason": "another connection reads for this group" }).to_string())
}

/// The events of a stream, one by one.
struct Frames {
    pages: mpsc::Receiver<Vec<Event>>,
    page: std::vec::IntoIter<Event>,
}

impl Stream for Frames {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.page.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            match self.pages.poll_recv(context) {
                Poll::Ready(Some(page)) => self.page = page.into_iter(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
