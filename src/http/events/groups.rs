//! Groups of readers: where they are, what they have taken, and that there is one no more.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::contract::requests::ClientId;
use crate::domain::{EventGroup, EventId, GroupPlace};
use crate::engine::Acknowledged;
use crate::http::context::Body;
use crate::http::{Gateway, Problem};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Acknowledgement {
    /// The id of an event, as the stream gave it.
    #[schemars(regex(pattern = "^[0-9a-f]{16}-(0|[1-9][0-9]{0,17})$"))]
    id: ClientId,
}

pub(in crate::http) async fn acknowledge(
    State(gateway): State<Gateway>,
    Path(group): Path<String>,
    body: Body<Acknowledgement>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let group = known(&group)?;
    let id: EventId =
        body.value.id.as_str().parse().map_err(|_| Problem::invalid("id: this server gave no event such an id"))?;
    match engine.acknowledge_event(group.clone(), id).await? {
        Acknowledged::At(place) => {
            Ok(Json(view(&group, &place, engine.newest_event(), gateway.streams.is_taken(&group))).into_response())
        }
        Acknowledged::NoGroup => Err(no_such_group()),
        Acknowledged::NoEvent => Err(Problem::conflict("there is no event with this id in the log")),
    }
}

pub(in crate::http) async fn list(State(gateway): State<Gateway>) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let groups = engine.event_groups().await?;
    let newest = engine.newest_event();
    let view = |(group, place): &(EventGroup, GroupPlace)| view(group, place, newest, gateway.streams.is_taken(group));
    let groups: Vec<_> = groups.iter().map(view).collect();
    Ok(Json(json!({ "groups": groups, "newest": newest.map(|id| id.to_string()) })).into_response())
}

pub(in crate::http) async fn forget(
    State(gateway): State<Gateway>,
    Path(group): Path<String>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let group = known(&group)?;
    if gateway.streams.is_taken(&group) {
        return Err(Problem::conflict("somebody is reading for this group; end that stream first"));
    }
    if engine.forget_event_group(group).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(no_such_group())
    }
}

/// A group out of a path. What is no name is the name of no group.
fn known(text: &str) -> Result<EventGroup, Problem> {
    text.parse().map_err(|_| no_such_group())
}

fn no_such_group() -> Problem {
    Problem::not_found("there is no such group")
}

/// A group with its place. How many events are behind that is not known where the place is in another log.
fn view(group: &EventGroup, place: &GroupPlace, newest: Option<EventId>, is_connected: bool) -> Value {
    let newest = newest.filter(|newest| newest.log == place.after.log);
    json!({
        "group": group.as_str(),
        "after": place.after.to_string(),
        "lag": newest.map(|newest| newest.sequence.saturating_sub(place.after.sequence)),
        "moved_at": place.moved_at.to_timestamp(),
        "connected": is_connected,
    })
}
