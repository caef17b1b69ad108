//! Which user asks: whom a token names, or, where there are none, whom the request names.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::access::bearer;
use super::tokens::Caller;
use super::{Gateway, Problem};
use crate::contract::requests::ClientId;
use crate::domain::{Batch, BatchId, Rejected};
use crate::engine::Engine;

const USER_ID: HeaderName = HeaderName::from_static("x-user-id");
const ORGANISATION: HeaderName = HeaderName::from_static("x-org-id");

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// Whoever the headers name, if anybody.
    Named(Option<String>),
    /// Whoever the token names.
    Shown(Caller),
}

/// Whose token the headers show.
pub(super) fn shown(gateway: &Gateway, headers: &HeaderMap) -> Result<Caller, Problem> {
    let Some(tokens) = &gateway.access.tokens else { return Err(Problem::broken()) };
    let token =
        bearer(headers)?.ok_or_else(|| Problem::no_token("who are you? Send a token, as Authorization: Bearer"))?;
    let caller = tokens.caller(token, gateway.engine()?.clock().now())?;
    agrees(&caller, headers)?;
    Ok(caller)
}

/// Where the headers name somebody, it has to be the one whom the token names.
pub(super) fn agrees(caller: &Caller, headers: &HeaderMap) -> Result<(), Problem> {
    if user_of(headers)?.is_some_and(|named| named != caller.user) {
        return Err(Problem::forbidden("the token and X-User-ID are different users"));
    }
    let named = named_by(headers, &ORGANISATION)?;
    if named.is_some() && named != caller.organisation {
        return Err(Problem::forbidden("the token and X-Org-ID are different organisations"));
    }
    Ok(())
}

pub(super) fn user_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    named_by(headers, &USER_ID)
}

fn named_by(headers: &HeaderMap, header: &HeaderName) -> Result<Option<String>, Problem> {
    let shown = if *header == USER_ID { "X-User-ID" } else { "X-Org-ID" };
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("{shown} was sent more than once")));
    }
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| Problem::bad_request(format!("{shown} is not UTF-8")))?;
    let name = ClientId::new(text).map_err(|error| Problem::bad_request(format!("{shown} {error}")))?;
    Ok(Some(name.into_string()))
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.extensions, &parts.headers)
    }
}

impl Identity {
    pub(super) fn of(extensions: &Extensions, headers: &HeaderMap) -> Result<Self, Problem> {
        match extensions.get::<Caller>() {
            Some(caller) => Ok(Self::Shown(caller.clone())),
            None => user_of(headers).map(Self::Named),
        }
    }

    /// The user: the token's or the header's, else the body's; both have to agree where both are there.
    pub(super) fn user(self, body: Option<&ClientId>) -> Result<String, Problem> {
        match (self, body) {
            (Self::Shown(caller), Some(body)) if caller.user != body.as_str() => {
                Err(Problem::forbidden("the token and the body's user_id are different users"))
            }
            (Self::Shown(caller), _) => Ok(caller.user),
            (Self::Named(Some(header)), Some(body)) if header != body.as_str() => {
                Err(Problem::forbidden("X-User-ID and the body's user_id are different users"))
            }
            (Self::Named(Some(header)), _) => Ok(header),
            (Self::Named(None), Some(body)) => Ok(body.as_str().to_owned()),
            (Self::Named(None), None) => Err(Problem::unauthenticated()),
        }
    }

    /// Whether token or headers say anything.
    pub(super) const fn is_known(&self) -> bool {
        self.as_deref().is_some()
    }

    pub(super) const fn as_deref(&self) -> Option<&str> {
        match self {
            Self::Named(None) => None,
            Self::Named(Some(user)) | Self::Shown(Caller { user, .. }) => Some(user.as_str()),
        }
    }

    /// Into the body of a registration goes the organisation of the token; the body cannot name another.
    pub(super) fn set_organisation(&self, body: &mut Map<String, Value>) -> Result<(), Problem> {
        let Self::Shown(caller) = self else { return Ok(()) };
        match body.get("org_id") {
            None | Some(Value::Null) => {
                body.insert("org_id".to_owned(), caller.organisation.clone().into());
                Ok(())
            }
            Some(Value::String(named)) if Some(named.trim()) != caller.organisation.as_deref() => {
                Err(Problem::forbidden("the token and the body's org_id are different organisations"))
            }
            // What is no text is refused for that.
            Some(_) => Ok(()),
        }
    }

    /// Refuses whoever has shown that they are somebody else than the owner of this batch. Names alone open it to
    /// everybody, as in the full stack.
    pub(super) async fn may_read(&self, gateway: &Gateway, id: BatchId) -> Result<(), Problem> {
        let Self::Shown(caller) = self else { return Ok(()) };
        let is_owner = record(gateway.engine()?, id).await?.details.user_id == caller.user;
        if is_owner { Ok(()) } else { Err(Problem::forbidden("only the owner of a batch may read it")) }
    }
}

/// The durable record of `batch`.
async fn record(engine: &Engine, batch: BatchId) -> Result<Arc<Batch>, Problem> {
    if let Some((record, _)) = engine.at_hand(batch) {
        return Ok(record);
    }
    let read = |record: Option<&Arc<Batch>>| Ok(Arc::clone(record.ok_or(Rejected::NoSuchBatch)?));
    Ok(engine.query(batch, move |reader| read(reader?.batch())).await?)
}
