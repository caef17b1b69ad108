//! What is amiss with what was sent, in words for people: which parameter, what it wants, and what was probably meant.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Problem;
use crate::likeness::{did_you_mean, nearest_name};

/// Up to how many values are all named.
const MAX_NAMED: usize = 12;

/// How many characters of what was sent are repeated.
const MAX_REPEATED: usize = 60;

/// A query, or the problem that says what is wrong with it.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + JsonSchema> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let uri = parts.uri.clone();
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        let Query(asked) = query.map_err(|rejection| Problem::invalid(of_query::<T>(&uri, &rejection.body_text())))?;
        Ok(Self(asked))
    }
}

/// What the library says of a query, better.
fn of_query<T: JsonSchema>(uri: &Uri, said: &str) -> String {
    let said = said.split_once(": ").map_or(said, |(_, said)| said);
    if let Some(name) = said.strip_prefix("duplicate field `") {
        return format!("{} is there more than once", name.trim_end_matches('`'));
    }
    let Some((name, reason)) = said.split_once(": ") else { return said.to_owned() };
    let sent = Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(sent)| sent).unwrap_or_default();
    let value = sent.iter().find(|(sent, _)| sent == name).map(|(_, value)| short(value)).unwrap_or_default();
    match wanted(&schema_of::<T>()["properties"][name]) {
        Some(wanted) => format!("{name} is {wanted}, not '{value}'"),
        None => format!("{}: {}", short(name), in_words(reason, "parameter")),
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    let inlined = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    inlined.into_generator().into_root_schema_for::<T>().to_value()
}

/// What a parameter is, where it is no word of a list.
fn wanted(schema: &Value) -> Option<String> {
    let types = &schema["type"];
    let is = |wanted: &str| types == wanted || types.as_array().is_some_and(|all| all.iter().any(|it| it == wanted));
    if schema["format"] == "date-time" {
        return Some("a time with its zone, as 2026-01-31T12:00:00Z".to_owned());
    }
    if is("boolean") {
        return Some("true or false".to_owned());
    }
    let bound = |name: &str| schema[name].as_u64();
    is("integer").then(|| match (bound("minimum"), bound("maximum")) {
        (least, Some(most)) => format!("a whole number from {} to {most}", least.unwrap_or(0)),
        (_, None) => "a whole number".to_owned(),
    })
}

/// What the reader of a body or a query says, where it lists what it knows: not all of it, but the nearest. `member` is
/// what a name stands for there.
pub(super) fn in_words(said: &str, member: &str) -> String {
    // What was sent may look like what follows it; what is known does not.
    let parts = |kind: &str| {
        let (word, known) = said.strip_prefix(kind)?.strip_prefix(" `")?.rsplit_once("`, expected ")?;
        let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        let question = did_you_mean(nearest_name(&short(word), &known));
        Some((short(word), known, question))
    };
    if let Some((word, known, question)) = parts("unknown variant") {
        return match known.len() {
            ..=MAX_NAMED => format!("'{word}' is none of {}{question}", known.join(", ")),
            count => format!("'{word}' is none of the {count} values, which /openapi.json lists{question}"),
        };
    }
    if let Some((_, known, question)) = parts("unknown field") {
        return format!("there is no such {member}, but {}{question}", known.join(", "));
    }
    said.to_owned()
}

/// The beginning of what somebody has sent.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_REPEATED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
