//! The promise "a request that names itself takes effect once": the header Idempotency-Key.

mod harness;

use std::future::Future as _;
use std::task::Poll;

use harness::{Answer, Client, Server, Setup, essays_body, kept, registration, start_app};
use rephase::clock::ManualClock;
use rephase::domain::step::Registration;
use rephase::domain::{BatchId, Input};
use rephase::engine::{Answer as Stored, RequestKey, Submission};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

async fn post(client: &Client, path: &str, key: &str, body: &Value) -> Answer {
    Client::send(client.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer_and_has_no_effect() {
    let Server { client, .. } = &Server::start(Setup::default()).await;
    let first = post(client, "/v1/batches/register", "reg-1", &registration(4)).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, ""), "{}", first.text);
    let again = post(client, "/v1/batches/register", "\"reg-1\"", &registration(4)).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
    assert_eq!((&again.text, again.header("etag")), (&first.text, first.header("etag")));
    let batch = first.json()["batch_id"].as_str().expect("an id").to_owned();

    let essays = format!("/v1/batches/{batch}/essays");
    for _ in 0..2 {
        assert_eq!(post(client, &essays, "essays-1", &essays_body(2)).await.json()["received"], 2);
    }
    assert_eq!(post(client, &essays, "essays-2", &essays_body(2)).await.json()["received"], 4);
    let pipelines = format!("/v1/batches/{batch}/pipelines");
    let pipeline = json!({ "requested_pipeline": "spellcheck" });
    assert_eq!(post(client, &pipelines, "pipeline", &pipeline).await.status, 202);
    client.until_settled(&batch).await;
    assert_eq!(post(client, &pipelines, "pipeline", &pipeline).await.header("idempotent-replayed"), "true");

    let path = format!("/v1/batches/{batch}/retry-phase");
    let retry = json!({ "phase_name": "spellcheck", "force": true });
    let first = post(client, &path, "retry", &retry).await;
    client.until_settled(&batch).await;
    let again = post(client, &path, "retry", &retry).await;
    assert_eq!((again.status, &again.text), (202, &first.text));
    assert_eq!(again.header("location"), first.header("location"));
    let attempts = client.attempts(&batch, "spellcheck").await;
    let keys: Vec<_> = attempts.iter().map(|attempt| attempt["idempotency_key"].clone()).collect();
    assert_eq!(keys, ["pipeline", "retry"], "each attempt says which request asked for it");
}

#[tokio::test]
async fn the_trace_of_a_request_is_on_its_attempts_and_goes_on_with_its_commands() {
    let Server { client, app, .. } = &Server::start(Setup::default()).await;
    let batch = client.ready_batch(1).await;
    let mut published = app.engine().bus().watch();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let path = format!("/v1/batches/{batch}/pipelines");
    let request = client.request(Method::POST, &path).header("traceparent", trace);
    Client::send(request.json(&json!({ "requested_pipeline": "nlp" }))).await;
    client.until_settled(&batch).await;
    assert_eq!(client.attempts(&batch, "nlp").await[0]["traceparent"], trace);
    let mut commands = 0;
    while let Ok(message) = published.try_recv() {
        let envelope: Value = serde_json::from_slice(&message.body).expect("JSON");
        if message.topic.as_str().contains("initiate") {
            let sent = envelope["metadata"]["traceparent"].as_str().expect("a trace");
            assert_eq!((&sent[..36], &sent[52..]), (&trace[..36], &trace[52..]));
            assert_ne!(sent, trace, "each hop has a span of its own");
            commands += 1;
        }
    }
    assert_eq!(commands, 2);

    let other = client.ready_batch(1).await;
    let path = format!("/v1/batches/{other}/pipelines");
    let request = client.request(Method::POST, &path).header("traceparent", "nonsense");
    Client::send(request.json(&json!({ "requested_pipeline": "spellcheck" }))).await;
    client.until_settled(&other).await;
    assert_eq!(client.attempts(&other, "spellcheck").await[0]["traceparent"], Value::Null);
}

#[tokio::test]
async fn a_key_with_another_request_is_a_mistake() {
    let Server { client, .. } = &Server::start(Setup::default()).await;
    let batch = client.ready_batch(1).await;
    let other = client.ready_batch(1).await;
    let path = |batch: &str| format!("/v1/batches/{batch}/pipelines");
    let body = json!({ "requested_pipeline": "spellcheck" });
    assert_eq!(post(client, &path(&batch), "k", &body).await.status, 202);
    for (client, path, body) in [
        (client, path(&batch), json!({ "requested_pipeline": "nlp" })),
        (client, path(&other), body.clone()),
        (&client.as_user("eve"), path(&batch), body),
    ] {
        let answer = post(client, &path, "k", &body).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")));
    }
    assert_eq!(client.status(&other).await["status"], "ready");
}

#[tokio::test]
async fn nothing_is_stored_for_a_request_that_was_refused() {
    let Server { client, .. } = &Server::start(Setup::default()).await;
    let batch = client.registered_batch(1).await;
    let path = format!("/v1/batches/{batch}/pipelines");
    let body = json!({ "requested_pipeline": "spellcheck" });
    assert_eq!(post(client, &path, "k", &body).await.status, 409, "its essays are missing");
    client.post(&format!("/v1/batches/{batch}/essays"), essays_body(1)).await;
    let answer = post(client, &path, "k", &body).await;
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (202, ""));
    for key in ["", "  ", &"k".repeat(256)] {
        assert_eq!(post(client, &path, key, &body).await.status, 400, "{key:?}");
    }
    assert_eq!(post(client, "/v1/batches/register", &"k".repeat(255), &registration(1)).await.status, 202);
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_takes_effect() {
    let Server { client, .. } = &Server::start(Setup::default()).await;
    let registration = registration(1);
    let requests = (0..16).map(|_| {
        let request = client.request(Method::POST, "/v1/batches/register").header("Idempotency-Key", "same");
        tokio::spawn(Client::send(request.json(&registration)))
    });
    let mut batches = std::collections::BTreeSet::new();
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await.expect("answered");
        assert!([202, 409].contains(&answer.status), "{}", answer.text);
        if answer.status == 202 {
            batches.insert(answer.json()["batch_id"].to_string());
        }
    }
    assert_eq!(batches.len(), 1, "{batches:?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_free_its_key_before_its_change_is_durable() {
    let server = Server::start(Setup::default()).await;
    let engine = server.app.engine();
    let mut abandonments = 0;
    for round in 0..50 {
        let key = RequestKey::new(&format!("round {round}"), &[]);
        let register = || {
            let batch = BatchId(Uuid::new_v4());
            let request = serde_json::from_value(registration(1)).expect("a registration");
            let registration = Registration::new(batch, request, harness::START).expect("valid");
            let submission = Submission::new(Input::Register(Box::new(registration)), Uuid::nil());
            Box::pin(engine.submit_once(batch, submission, key, |batch| Stored {
                fingerprint: [0; 32],
                status: 202,
                headers: Vec::new(),
                body: batch.id.to_string().into_bytes(),
            }))
        };
        let mut abandoned = register();
        let polled = std::future::poll_fn(|context| Poll::Ready(abandoned.as_mut().poll(context).is_ready())).await;
        drop(abandoned);
        abandonments += u32::from(!polled);
        loop {
            match register().await {
                Ok((_, is_replayed)) => {
                    assert!(is_replayed, "it took effect a second time");
                    break;
                }
                Err(rephase::engine::Error::KeyInFlight) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(abandonments > 0, "every request was answered at once, so nothing was tried");
}

#[tokio::test]
async fn an_answer_survives_a_restart_and_is_swept_after_a_day() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let setup = || Setup { data: kept(directory.path()), ..Setup::default() };
    let app = start_app(setup(), clock.clock()).await.expect("it starts");
    let client = Client::new(&format!("http://{}", app.address()));
    let first = post(&client, "/v1/batches/register", "k", &registration(1)).await;
    app.stop().await;

    let app = start_app(setup(), clock.clock()).await.expect("it starts again");
    let client = Client::new(&format!("http://{}", app.address()));
    let again = post(&client, "/v1/batches/register", "k", &registration(1)).await;
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    clock.advance(86_400_000);
    let anew = post(&client, "/v1/batches/register", "k", &registration(1)).await;
    assert_eq!((anew.status, anew.header("idempotent-replayed")), (202, ""));
    assert_ne!(anew.text, first.text);
    app.stop().await;
}
