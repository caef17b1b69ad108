//! The document as a whole: operations put together, with all that they refer to.

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::{Answer, Audience, Operation};
use super::{problems, schemas};

/// What a document is made in.
pub(super) struct Document {
    /// Schemas of what is read.
    requests: SchemaGenerator,
    /// Schemas of what is written.
    answers: SchemaGenerator,
    tags: Vec<Value>,
    paths: Map<String, Value>,
    /// Errors that operations have in common.
    problems: Map<String, Value>,
}

const ABOUT: &str = "Runs batches of essays through pipelines of phases, and re-runs a single failed phase when asked.\n\n\
    Every answer has `X-Correlation-ID`. Every error is a problem (RFC 9457) with `error` for people and `error_code` for \
    programs. A method that a route does not have is 405 (`METHOD_NOT_ALLOWED`) with `Allow`. Members that a request does \
    not know are ignored where its schema does not forbid them, and strings are trimmed before they are checked.";

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.definitions_path = "/components/schemas".into();
        settings.contract = contract;
    });
    settings.into_generator()
}

impl Document {
    pub(super) fn new() -> Self {
        let (requests, answers) = (generator(Contract::Deserialize), generator(Contract::Serialize));
        Self { requests, answers, tags: Vec::new(), paths: Map::new(), problems: Map::new() }
    }

    /// Adds the operations of a resource.
    pub(super) fn add(&mut self, tag: &str, about: &str, operations: Vec<Operation>) {
        self.tags.push(json!({ "name": tag, "description": about }));
        for operation in operations {
            let (path, method) = (operation.path, operation.method);
            let described = self.describe(tag, operation);
            let methods = self.paths.entry(path).or_insert_with(|| json!({}));
            methods[method] = described;
        }
    }

    fn describe(&mut self, tag: &str, operation: Operation) -> Value {
        let mut parameters = in_path(operation.path);
        if let Some(query) = operation.query {
            parameters.extend(in_query(query(&mut self.requests)));
        }
        let header = |name: &&str| json!({ "$ref": format!("#/components/parameters/{name}") });
        parameters.extend(["CorrelationId"].iter().chain(&operation.parameters).map(header));
        let mut responses = problems::of(&operation, &mut self.problems);
        for answer in &operation.answers {
            responses.insert(answer.status.to_string(), self.answer(answer));
        }
        let mut described = json!({
            "tags": [tag],
            "operationId": operation.id,
            "summary": operation.summary,
            "parameters": parameters,
            "responses": responses,
            "security": security(operation.audience),
        });
        if !operation.text.is_empty() {
            described["description"] = operation.text.into();
        }
        if let Some(body) = operation.body {
            let schema = (body.schema)(&mut self.requests);
            let content = json!({ "application/json": { "schema": schema, "example": body.example } });
            described["requestBody"] = json!({ "required": body.is_required, "content": content });
        }
        described
    }

    fn answer(&mut self, answer: &Answer) -> Value {
        let names = ["X-Correlation-ID"].iter().chain(&answer.headers);
        let headers: Map<_, _> =
            names.map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }))).collect();
        let mut described = json!({ "description": answer.text, "headers": headers });
        let links = answer.links.iter().flat_map(|link| link.operations.iter().map(move |id| (*id, link)));
        for (id, link) in links {
            let value = format!("$response.body#{}", link.pointer);
            described["links"][id] = json!({ "operationId": id, "parameters": { link.parameter: value } });
        }
        if let Some(content) = &answer.content {
            let schema = (content.schema)(&mut self.answers);
            let mut media = json!({ "schema": schema });
            if !content.example.is_null() {
                media["example"] = content.example.clone();
            }
            described["content"] = json!({ content.media_type: media });
        }
        described
    }

    /// The whole.
    pub(super) fn finish(mut self) -> Value {
        let problem = self.answers.subschema_for::<schemas::ProblemDetails>();
        debug_assert_eq!(problem.get("$ref"), Some(&json!("#/components/schemas/Problem")));
        let mut all = self.answers.take_definitions(true);
        for (name, schema) in self.requests.take_definitions(true) {
            debug_assert!(all.get(&name).is_none_or(|other| *other == schema), "{name} is two schemas");
            all.insert(name, schema);
        }
        json!({
            "openapi": "3.1.0",
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "info": {
                "title": "rephase",
                "version": env!("CARGO_PKG_VERSION"),
                "summary": "Batches of essays, pipelines of phases, and a retry button that works.",
                "description": ABOUT,
            },
            "servers": [{ "url": "./", "description": "The server that this document came from." }],
            "tags": self.tags,
            "paths": self.paths,
            "components": {
                "schemas": all,
                "responses": self.problems,
                "parameters": schemas::parameters(),
                "headers": schemas::headers(),
                "securitySchemes": schemas::security_schemes(),
            },
        })
    }
}

/// How a request says who asks; each member of the list is enough.
fn security(audience: Audience) -> Value {
    match audience {
        Audience::Everybody => json!([]),
        Audience::User => json!([{ "token": [] }, { "user": [] }]),
        Audience::Listener => json!([{ "token": [] }, { "tokenInQuery": [] }, { "user": [] }, { "userInQuery": [] }]),
        Audience::Operator => json!([{ "operator": [] }, {}]),
        Audience::Worker => json!([{ "worker": [] }, {}]),
        Audience::Events => json!([{ "events": [] }, {}]),
        Audience::Metrics => json!([{ "metrics": [] }, {}]),
    }
}

fn in_path(path: &str) -> Vec<Value> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    names.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })).collect()
}

/// The members of an object as parameters of a query. What may be null there is left out here.
fn in_query(schema: Schema) -> Vec<Value> {
    let mut schema = schema.to_value();
    let members = schema["properties"].as_object_mut().map(std::mem::take).unwrap_or_default();
    let required = schema["required"].take();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|other| other == name));
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter =
            json!({ "name": name, "in": "query", "required": is_required(&name), "schema": there(schema) });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    };
    members.into_iter().map(parameter).collect()
}

/// The schema of what is not null.
fn there(mut schema: Value) -> Value {
    if let Some(types) = schema["type"].as_array().cloned() {
        let mut types = types.into_iter().filter(|name| name != "null");
        schema["type"] = types.next().unwrap_or_default();
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let choice = choices.iter().find(|choice| choice["type"] != "null").cloned();
        return choice.unwrap_or(schema);
    }
    if let Some(members) = schema.as_object_mut() {
        members.retain(|name, value| name != "default" || !value.is_null());
        members.retain(|_, value| !value.is_null());
    }
    schema
}

/// Named like the wire's own type, which is never made as a whole.
impl JsonSchema for schemas::ProblemDetails {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Problem".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemas::problem()
    }
}
