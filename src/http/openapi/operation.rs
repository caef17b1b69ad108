//! One operation of the document: a method of a route, as data.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

/// Makes a schema, and defines what it refers to.
pub(super) type Maker = fn(&mut SchemaGenerator) -> Schema;

/// Who may use a route, and how they say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Everybody,
    User,
    /// A user who may have to put what says so into the query, since a browser sends no headers there.
    Listener,
    Operator,
    Worker,
    Events,
    Metrics,
}

/// A body of a request.
pub(super) struct RequestBody {
    pub(super) schema: Maker,
    pub(super) example: Value,
    pub(super) is_required: bool,
}

/// An answer that is no error.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: &'static str,
    pub(super) content: Option<Content>,
    /// Names of the document's headers.
    pub(super) headers: Vec<&'static str>,
    pub(super) links: Vec<Link>,
}

/// Operations that an answer leads to.
pub(super) struct Link {
    /// Their parameter.
    pub(super) parameter: &'static str,
    /// Where its value stands in the body of the answer.
    pub(super) pointer: &'static str,
    pub(super) operations: &'static [&'static str],
}

/// What is in an answer.
pub(super) struct Content {
    pub(super) media_type: &'static str,
    pub(super) schema: Maker,
    pub(super) example: Value,
}

/// An error beside those that follow from what the operation takes.
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) why: &'static str,
}

/// A method of a route. The members of its path follow from the path, most of its errors from what it takes.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) text: &'static str,
    pub(super) audience: Audience,
    pub(super) query: Option<Maker>,
    /// Names of the document's parameters: headers.
    pub(super) parameters: Vec<&'static str>,
    pub(super) body: Option<RequestBody>,
    pub(super) answers: Vec<Answer>,
    pub(super) failures: Vec<Failure>,
    pub(super) needs_store: bool,
}

pub(super) const IDEMPOTENCY_KEY: &str = "IdempotencyKey";
pub(super) const IF_MATCH: &str = "IfMatch";
pub(super) const LAST_EVENT_ID: &str = "LastEventId";
pub(super) const IF_NONE_MATCH: &str = "IfNoneMatch";
pub(super) const ETAG: &str = "ETag";
pub(super) const LOCATION: &str = "Location";
pub(super) const REPLAYED: &str = "Idempotent-Replayed";

impl Operation {
    fn new(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            text: "",
            audience: Audience::Everybody,
            query: None,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            failures: Vec::new(),
            needs_store: true,
        }
    }

    pub(super) fn get(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("get", path, id, summary)
    }

    pub(super) fn post(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("post", path, id, summary)
    }

    pub(super) fn put(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("put", path, id, summary)
    }

    pub(super) fn patch(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("patch", path, id, summary)
    }

    pub(super) fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("delete", path, id, summary)
    }

    /// What else is to say, as Markdown.
    pub(super) fn text(self, text: &'static str) -> Self {
        Self { text, ..self }
    }

    /// Who may use it. Whoever is nobody gets 401, whoever is somebody else 403.
    pub(super) fn audience(self, audience: Audience) -> Self {
        Self { audience, ..self }
    }

    /// The query has the members of `T`.
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(|schemas| T::json_schema(schemas)), ..self }
    }

    /// A request can name itself with Idempotency-Key, and takes effect once then.
    pub(super) fn once(mut self) -> Self {
        self.parameters.push(IDEMPOTENCY_KEY);
        self
    }

    /// A request can say which version of the batch it is about.
    pub(super) fn if_match(mut self) -> Self {
        self.parameters.push(IF_MATCH);
        self
    }

    /// Takes this header; it is one of the document's parameters.
    pub(super) fn header(mut self, name: &'static str) -> Self {
        self.parameters.push(name);
        self
    }

    pub(super) fn body<T: JsonSchema>(self, example: Value) -> Self {
        let body = RequestBody { schema: |schemas| schemas.subschema_for::<T>(), example, is_required: true };
        Self { body: Some(body), ..self }
    }

    /// A body whose members may all be left out, and so may the body.
    pub(super) fn optional_body<T: JsonSchema>(self, example: Value) -> Self {
        let body = RequestBody { schema: |schemas| schemas.subschema_for::<T>(), example, is_required: false };
        Self { body: Some(body), ..self }
    }

    /// Answers JSON.
    pub(super) fn answer<T: JsonSchema>(self, status: u16, text: &'static str, example: Value) -> Self {
        self.answer_as::<T>(status, text, "application/json", example)
    }

    /// Answers something of this type.
    pub(super) fn answer_as<T: JsonSchema>(
        mut self,
        status: u16,
        text: &'static str,
        media_type: &'static str,
        example: Value,
    ) -> Self {
        let content = Content { media_type, schema: |schemas| schemas.subschema_for::<T>(), example };
        self.answers.push(Answer { status, text, content: Some(content), headers: Vec::new(), links: Vec::new() });
        self
    }

    /// Answers nothing but a status.
    pub(super) fn empty_answer(mut self, status: u16, text: &'static str) -> Self {
        self.answers.push(Answer { status, text, content: None, headers: Vec::new(), links: Vec::new() });
        self
    }

    /// The last answer has these headers.
    pub(super) fn with(mut self, headers: &[&'static str]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.extend(headers);
        }
        self
    }

    /// What the last answer has at `pointer` is the `parameter` of these operations.
    pub(super) fn leads(
        mut self,
        parameter: &'static str,
        pointer: &'static str,
        operations: &'static [&'static str],
    ) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.links.push(Link { parameter, pointer, operations });
        }
        self
    }

    /// Fails in this way too, as the resource has it.
    pub(super) fn fails(mut self, status: u16, code: &'static str, why: &'static str) -> Self {
        self.failures.push(Failure { status, code, why });
        self
    }

    pub(super) fn not_found(self, why: &'static str) -> Self {
        self.fails(404, "RESOURCE_NOT_FOUND", why)
    }

    pub(super) fn conflict(self, why: &'static str) -> Self {
        self.fails(409, "CONFLICT", why)
    }

    pub(super) fn limited(self, why: &'static str) -> Self {
        self.fails(429, "RATE_LIMIT", why)
    }

    /// Works while there is no store, too.
    pub(super) fn without_store(self) -> Self {
        Self { needs_store: false, ..self }
    }
}
