//! The promise "the same wire": what HTTP answers, and that every bad request gets a clear error and changes nothing.

mod harness;

use harness::{Client, OWNER, Server, essays_body, phase_status, registration};
use rephase::worker::Runner;
use reqwest::Method;
use serde_json::{Value, json};

fn assert_problem(answer: &harness::Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["error_code"].as_str()), (status, Some(code)), "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
    assert_eq!(body["status"], json!(status));
    assert_eq!(body["detail"], body["error"]);
    assert!(body["type"].is_string() && body["title"].is_string());
    assert_eq!(body["correlation_id"].as_str(), Some(answer.header("x-correlation-id")), "{body}");
}

#[tokio::test]
async fn a_batch_goes_from_registration_to_completion() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let registered = client.post("/v1/batches/register", registration(3)).await;
    assert_eq!(registered.status, 202);
    let body = registered.json();
    assert_eq!(body["status"], "registered");
    assert_eq!(body["correlation_id"].as_str(), Some(registered.header("x-correlation-id")));
    let batch = body["batch_id"].as_str().expect("an id");

    let status = client.status(batch).await;
    assert_eq!(status["status"], "pending_content");
    let context = json!({ "course_code": "ENG5", "expected_essay_count": 3, "user_id": OWNER });
    assert_eq!(status["batch_context"], context);
    assert_eq!(status["pipeline_state"]["requested_pipelines"], json!([]));

    let path = format!("/v1/batches/{batch}/essays");
    assert_eq!(client.post(&path, essays_body(2)).await.status, 202);
    assert_eq!(client.status(batch).await["status"], "pending_content");
    assert_eq!(client.post(&path, essays_body(1)).await.json()["batch_status"], "ready");

    let accepted = client.pipeline(batch, "ai_feedback").await;
    assert_eq!((accepted.status, &accepted.json()["status"]), (202, &json!("accepted")), "{}", accepted.text);
    assert_eq!(accepted.json()["batch_id"], batch);
    assert!(accepted.json()["message"].is_string());
    let status = client.until_settled(batch).await;
    assert_eq!(status["status"], "completed_successfully");
    for phase in ["spellcheck", "nlp", "ai_feedback"] {
        assert_eq!(phase_status(&status, phase), "completed_successfully");
        assert_eq!(status["pipeline_state"][phase]["essay_counts"]["successful"], 3);
    }
    assert_eq!(status["pipeline_state"]["cj_assessment"], Value::Null);
}

#[tokio::test]
async fn texts_are_stored_by_their_content_and_the_spellcheck_hands_on_new_ones() {
    let Server { client, app, .. } = &Server::start(harness::Setup::default()).await;
    let mut published = app.engine().bus().watch();
    let batch = client.registered_batch(2).await;
    let essays = json!({ "essays": [
        { "file_name": "a.txt", "text": "I recieve it" },
        { "file_name": "b.txt", "text_storage_id": "elsewhere-1" },
    ]});
    let sent = client.post(&format!("/v1/batches/{batch}/essays"), essays).await.json();
    let storage_id = sent["essays"][0]["text_storage_id"].as_str().expect("an id").to_owned();
    let content = client.get(&format!("/v1/content/{storage_id}")).await;
    assert_eq!((content.status, content.text.as_str()), (200, "I recieve it"));
    assert_eq!(sent["essays"][1]["text_storage_id"], "elsewhere-1");
    assert_eq!(client.get("/v1/content/elsewhere-1").await.status, 404);

    client.pipeline(&batch, "nlp").await;
    client.until_settled(&batch).await;
    let mut handed_on = Vec::new();
    while let Ok(message) = published.try_recv() {
        if message.topic.as_str() == "huleedu.batch.nlp.initiate.command.v2" {
            let command: Value = serde_json::from_slice(&message.body).expect("JSON");
            handed_on.clone_from(command["data"]["essays_to_process"].as_array().expect("essays"));
        }
    }
    assert_eq!(handed_on.len(), 2);
    let corrected = handed_on[0]["text_storage_id"].as_str().expect("an id");
    assert_ne!(corrected, storage_id);
    assert_eq!(client.get(&format!("/v1/content/{corrected}")).await.text, "I receive it");
    assert_eq!(handed_on[1]["text_storage_id"], "elsewhere-1-corrected");
}

#[tokio::test]
async fn who_asks_is_the_header_or_else_the_body_and_never_two_people() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let nobody = client.as_nobody();
    let eve = client.as_user("eve");

    let mut without = registration(1);
    without.as_object_mut().expect("an object").remove("user_id");
    assert_problem(&nobody.post("/v1/batches/register", without.clone()).await, 400, "MISSING_REQUIRED_FIELD");
    assert_problem(&eve.post("/v1/batches/register", registration(1)).await, 403, "AUTHORIZATION_ERROR");
    assert_eq!(client.post("/v1/batches/register", without).await.status, 202);
    assert_eq!(nobody.post("/v1/batches/register", registration(1)).await.status, 202);

    let batch = client.ready_batch(1).await;
    let pipeline = format!("/v1/batches/{batch}/pipelines");
    let body = json!({ "requested_pipeline": "spellcheck" });
    assert_problem(&nobody.post(&pipeline, body.clone()).await, 401, "AUTHENTICATION_ERROR");
    assert_problem(&eve.post(&pipeline, body).await, 403, "AUTHORIZATION_ERROR");
    let both = json!({ "requested_pipeline": "spellcheck", "user_id": "eve" });
    assert_problem(&client.post(&pipeline, both).await, 403, "AUTHORIZATION_ERROR");

    let retry = json!({ "phase_name": "spellcheck" });
    assert_problem(&nobody.retry(&batch, retry).await, 400, "MISSING_REQUIRED_FIELD");
    let long = client.as_user(&"u".repeat(256));
    assert_problem(&long.retry(&batch, json!({ "phase_name": "spellcheck" })).await, 400, "INVALID_REQUEST");
    let own = json!({ "requested_pipeline": "spellcheck", "user_id": OWNER });
    assert_eq!(nobody.post(&pipeline, own).await.status, 202);
}

#[tokio::test]
async fn essays_that_do_not_fit_are_refused_whole() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let batch = client.registered_batch(2).await;
    let path = format!("/v1/batches/{batch}/essays");
    let one = |essay: Value| json!({ "essays": [essay] });
    assert_problem(&client.post(&path, essays_body(3)).await, 409, "CONFLICT");
    assert_problem(&client.as_user("eve").post(&path, essays_body(1)).await, 403, "AUTHORIZATION_ERROR");
    for essay in [
        json!({ "file_name": "a.txt" }),
        json!({ "file_name": "a.txt", "text": "a", "text_storage_id": "b" }),
        json!({ "file_name": "a.txt", "text": "  " }),
        json!({ "file_name": " ", "text": "a" }),
        json!({ "file_name": "a".repeat(256), "text": "a" }),
        json!({ "file_name": "a.txt", "text": "x".repeat(1_024 * 1_024 + 1) }),
    ] {
        let answer = client.post(&path, one(essay)).await;
        assert_problem(&answer, 400, "VALIDATION_ERROR");
    }
    assert_problem(&client.post(&path, json!({ "essays": [] })).await, 400, "VALIDATION_ERROR");
    assert_problem(&client.post(&path, json!({})).await, 400, "MISSING_REQUIRED_FIELD");
    let nowhere = format!("/v1/batches/{}/essays", uuid::Uuid::nil());
    assert_problem(&client.post(&nowhere, essays_body(1)).await, 404, "RESOURCE_NOT_FOUND");
    assert_eq!(client.status(&batch).await["details"]["essays_received"], 0, "something was taken");
}

#[tokio::test]
async fn a_pipeline_that_cannot_begin_is_refused() {
    let server = Server::with_stuck_workers().await;
    let client = &server.client;
    let pending = client.registered_batch(1).await;
    assert_problem(&client.pipeline(&pending, "spellcheck").await, 409, "CONFLICT");

    let batch = client.ready_batch(1).await;
    assert_problem(&client.pipeline(&batch, "grading").await, 400, "VALIDATION_ERROR");
    assert_problem(&client.pipeline(&batch, "comprehensive").await, 400, "VALIDATION_ERROR");
    assert_problem(&client.pipeline(&batch, "student_matching").await, 400, "VALIDATION_ERROR");
    let path = format!("/v1/batches/{batch}/pipelines");
    let other = json!({ "requested_pipeline": "nlp", "batch_id": pending });
    assert_problem(&client.post(&path, other).await, 400, "INVALID_REQUEST");
    let both = json!({ "requested_pipeline": "nlp", "prompt_payload": {
        "assignment_id": "a", "cms_prompt_ref": { "references": {} } } });
    assert_problem(&client.post(&path, both).await, 400, "VALIDATION_ERROR");
    assert_problem(&client.pipeline(&uuid::Uuid::nil().to_string(), "nlp").await, 404, "RESOURCE_NOT_FOUND");
    assert_problem(&client.pipeline("no-uuid", "nlp").await, 404, "RESOURCE_NOT_FOUND");
    assert_eq!(client.status(&batch).await["status"], "ready");

    assert_eq!(client.pipeline(&batch, "nlp").await.status, 202);
    assert_problem(&client.pipeline(&batch, "spellcheck").await, 409, "CONFLICT");

    let mut promptless = registration(1);
    promptless["student_prompt_ref"] = Value::Null;
    let registered = client.post("/v1/batches/register", promptless).await.json();
    let promptless = registered["batch_id"].as_str().expect("an id");
    client.post(&format!("/v1/batches/{promptless}/essays"), essays_body(1)).await;
    assert_problem(&client.pipeline(promptless, "nlp").await, 400, "VALIDATION_ERROR");
    let with_prompt = json!({ "requested_pipeline": "nlp", "prompt_payload": { "assignment_id": "a-1" } });
    assert_eq!(client.post(&format!("/v1/batches/{promptless}/pipelines"), with_prompt).await.status, 202);
}

#[tokio::test]
async fn the_prompt_can_be_amended_until_processing_begins() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let batch = client.ready_batch(1).await;
    let path = format!("/v1/batches/{batch}/prompt");
    let prompt = json!({ "references": { "student_prompt_text": { "storage_id": "p-2" } } });
    let body = json!({ "student_prompt_ref": prompt });
    let amend = |client: &Client| client.request(Method::PATCH, &path).json(&body);
    let amended = Client::send(amend(client)).await;
    assert_eq!((amended.status, &amended.json()["student_prompt_ref"]), (200, &prompt), "{}", amended.text);
    assert_problem(&Client::send(amend(&client.as_nobody())).await, 401, "AUTHENTICATION_ERROR");
    assert_problem(&Client::send(amend(&client.as_user("eve"))).await, 403, "AUTHORIZATION_ERROR");
    client.pipeline(&batch, "spellcheck").await;
    assert_problem(&Client::send(amend(client)).await, 409, "CONFLICT");
}

#[tokio::test]
async fn services_read_the_state_and_resolve_pipelines() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let batch = client.ready_batch(1).await;
    let define = async |batch: &str, pipeline: &str| {
        let correlation_id = uuid::Uuid::new_v4();
        let body = json!({ "batch_id": batch, "requested_pipeline": pipeline, "correlation_id": correlation_id });
        client.as_nobody().post("/internal/v1/pipelines/define", body).await
    };
    let whole = ["spellcheck", "cj_assessment", "nlp", "ai_feedback"];
    assert_eq!(define(&batch, "comprehensive").await.json()["final_pipeline"], json!(whole));
    client.pipeline(&batch, "spellcheck").await;
    client.until_settled(&batch).await;
    assert_eq!(define(&batch, "comprehensive").await.json()["final_pipeline"], json!(whole[1..]));
    assert_eq!(define("not-here", "nlp").await.json()["final_pipeline"], json!(["spellcheck", "nlp"]));
    assert_problem(&define(&batch, "grading").await, 400, "VALIDATION_ERROR");

    let state = client.get(&format!("/internal/v1/batches/{batch}/pipeline-state")).await.json();
    assert_eq!((&state["batch_id"], &state["user_id"]), (&json!(batch), &json!(OWNER)));
    assert_eq!(state["pipeline_state"]["spellcheck"]["status"], "completed_successfully");
    let nowhere = format!("/internal/v1/batches/{}/pipeline-state", uuid::Uuid::nil());
    assert_problem(&client.get(&nowhere).await, 404, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_the_answer_is_a_problem() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let batch = client.ready_batch(1).await;
    let retry = format!("/v1/batches/{batch}/retry-phase");
    let raw = |body: &str| client.request(Method::POST, &retry).body(body.to_owned());
    assert_problem(&Client::send(raw("")).await, 400, "MISSING_REQUIRED_FIELD");
    for body in ["{", "nonsense", "{\"phase_name\": \"nlp\"} x", "\u{feff}{}"] {
        assert_problem(&Client::send(raw(body)).await, 400, "INVALID_REQUEST");
    }
    let deep = "[".repeat(100_000);
    assert_problem(&Client::send(raw(&deep)).await, 400, "INVALID_REQUEST");
    assert_problem(&Client::send(raw(&format!("{{\"x\": {deep}"))).await, 400, "INVALID_REQUEST");
    for body in
        ["[]", "7", "{\"phase_name\": 7}", "{\"phase_name\": \"\"}", "{\"phase_name\":\"nlp\",\"force\":\"yes\"}"]
    {
        assert_problem(&Client::send(raw(body)).await, 400, "VALIDATION_ERROR");
    }
    assert_problem(&Client::send(raw("{}")).await, 400, "MISSING_REQUIRED_FIELD");
    let invalid_utf8 = client.request(Method::POST, &retry).body(b"{\"phase_name\": \"\xff\"}".to_vec());
    assert_problem(&Client::send(invalid_utf8).await, 400, "INVALID_REQUEST");
    let large = format!("{{\"phase_name\": \"{}\"}}", "x".repeat(2 * 1_024 * 1_024));
    assert_problem(&Client::send(raw(&large)).await, 413, "PAYLOAD_TOO_LARGE");
    assert_problem(&client.get("/v1/nothing").await, 404, "RESOURCE_NOT_FOUND");
    assert_problem(&client.get("/v1/batches/%ff/status").await, 400, "INVALID_REQUEST");
    let wrong_method = client.get(&retry).await;
    assert_problem(&wrong_method, 405, "METHOD_NOT_ALLOWED");
    assert_eq!(wrong_method.header("allow"), "POST");
    assert_problem(&client.get(&format!("/v1/batches/{batch}/phases/x/attempts")).await, 400, "VALIDATION_ERROR");
    let from = format!("/v1/batches/{batch}/phases/nlp/attempts?from=x");
    assert_problem(&client.get(&from).await, 400, "VALIDATION_ERROR");
    // No attempt has this number, and the next one would have none.
    let last = format!("/v1/batches/{batch}/phases/nlp/attempts?from={}", u32::MAX);
    assert_eq!(client.get(&last).await.json()["attempts"], json!([]));
    assert_eq!(client.status(&batch).await["status"], "ready", "a bad request changed something");
}

#[tokio::test]
async fn a_whole_number_may_be_written_with_a_fraction_of_nothing() {
    let runners = [Runner::Remote, Runner::Simulated, Runner::Simulated, Runner::Simulated];
    let server = Server::start(harness::Setup { runners, ..harness::Setup::default() }).await;
    let client = &server.client;
    let post = |path: &str, body: String| Client::send(client.request(Method::POST, path).body(body));
    let body = |count: &str| format!(r#"{{"expected_essay_count": {count}, "course_code": "ENG5"}}"#);
    let registered = post("/v1/batches/register", body("2.0")).await;
    assert_eq!(registered.status, 202, "{}", registered.text);
    let batch = registered.json()["batch_id"].as_str().expect("an id").to_owned();
    assert_eq!(client.status(&batch).await["batch_context"]["expected_essay_count"], json!(2));
    for count in ["2.5", "\"2.0\""] {
        let refused = post("/v1/batches/register", body(count)).await;
        assert_problem(&refused, 400, "VALIDATION_ERROR");
        assert!(refused.text.contains("expected_essay_count"), "{}", refused.text);
    }
    let lease = r#"{"worker_id": "w", "phases": ["spellcheck"], "max": 1.0, "wait_ms": 0.0, "lease_ms": 1000.00}"#;
    assert_eq!(post("/v1/workers/lease", lease.to_owned()).await.status, 200);

    client.post(&format!("/v1/batches/{batch}/essays"), essays_body(2)).await;
    client.pipeline(&batch, "spellcheck").await;
    let lease = r#"{"worker_id": "w", "phases": ["spellcheck"], "wait_ms": 30000.0}"#;
    let task = post("/v1/workers/lease", lease.to_owned()).await.json()["tasks"][0].clone();
    let beat = format!(r#"{{"lease_token": {}, "progress": 1.0}}"#, task["lease_token"]);
    let path = format!("/v1/workers/tasks/{}/heartbeat", task["task_id"].as_str().expect("an id"));
    let told = post(&path, beat).await;
    assert_eq!(told.status, 200, "{}", told.text);
}

#[tokio::test]
async fn a_correlation_id_that_is_a_uuid_is_kept_and_another_replaced() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let own = uuid::Uuid::new_v4().to_string();
    let with = |id: &str| client.request(Method::GET, "/v1/nothing").header("X-Correlation-ID", id);
    assert_eq!(Client::send(with(&own)).await.header("x-correlation-id"), own);
    let replaced = Client::send(with("not a uuid")).await;
    assert!(replaced.header("x-correlation-id").parse::<uuid::Uuid>().is_ok());
    assert_problem(&replaced, 404, "RESOURCE_NOT_FOUND");

    let batch = client.ready_batch(1).await;
    let request = client.request(Method::POST, &format!("/v1/batches/{batch}/pipelines"));
    let request = request.header("X-Correlation-ID", &own).json(&json!({ "requested_pipeline": "spellcheck" }));
    assert_eq!(Client::send(request).await.json()["correlation_id"], own);
    client.until_settled(&batch).await;
    assert_eq!(client.attempts(&batch, "spellcheck").await[0]["correlation_id"], own);
}

#[tokio::test]
async fn health_says_what_the_services_say() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(client.as_nobody().get(path).await.status, 200, "{path}");
    }
    let health = client.get("/healthz").await.json();
    for member in ["service", "status", "message", "version", "checks", "dependencies", "environment"] {
        assert!(!health[member].is_null(), "{member} is missing");
    }
    assert_eq!(health["status"], "healthy");
}
