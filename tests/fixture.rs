//! The fixture for Rust tests: typed answers, a clock that is moved, and what it says of a batch that does not come.

use rephase::Fixture;
use rephase::contract::BatchClientStatus as Client;
use rephase::contract::PipelineExecutionStatus as Phase;
use rephase::domain::Phase::{AiFeedback, Nlp, Spellcheck};
use rephase::fixture::{Error, START};
use serde_json::json;

#[tokio::test]
async fn a_batch_that_does_not_come_is_told_from_its_beginning() {
    let fixture = Fixture::start().await.expect("it starts");
    let rules =
        r#"[{"phase": "nlp", "error_code": "NLP_SERVICE_ERROR", "category": "permanent", "message": "no model"}]"#;
    fixture.faults(rules).expect("rules");
    let teacher = fixture.client("teacher-7");
    let batch = teacher.ready_batch(2).await.expect("ready");
    teacher.pipeline(batch, AiFeedback).await.expect("accepted");
    // Nothing happens any more while the clock stands still, so there is nothing to wait for.
    let error = fixture.wait_for(batch, Client::CompletedSuccessfully).await.expect_err("it failed");
    let said = error.to_string();
    for part in [
        "completed_successfully did not come\nit is completed_with_failures now at 2026-03-02T08:30:00Z",
        "nlp is failed\n    attempt 1 (pipeline): failed, NLP_SERVICE_ERROR, permanent, no model",
        "ai_feedback is skipped_due_to_dependency_failure",
        "event 1: huleedu.batch.essays.registered.v1",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let refused = fixture.client("mallory").retry(batch, Nlp).await.expect_err("not hers");
    assert!(matches!(refused, Error::Refused { status: 403, .. }), "{refused}");
    assert!(fixture.faults("{}").is_err());
    fixture.reset().await.expect("empty");
    assert!(matches!(teacher.status(batch).await, Err(Error::Refused { status: 404, .. })));
    fixture.end().await;
}

#[tokio::test]
async fn what_takes_time_takes_it_by_the_clock_that_the_test_moves() {
    let fixture = Fixture::builder().latency_ms(1_000..=1_000).start().await.expect("it starts");
    let teacher = fixture.client("teacher-7");
    let batch = teacher.register(1).await.expect("registered");
    teacher.essays(batch, &["One."]).await.expect("accepted");
    teacher.pipeline(batch, Nlp).await.expect("accepted");
    fixture.wait_for_phase(batch, Spellcheck, Phase::InProgress).await.expect("begun");
    assert_eq!(fixture.advance(1_999).await.expect("moved"), START.plus(1_999));
    let status = fixture.wait_for(batch, Client::Processing).await.expect("not over");
    assert_eq!(status.phase(Nlp).map(|nlp| nlp.status), Some(Phase::InProgress));
    fixture.advance(1).await.expect("moved");
    fixture.wait_for(batch, Client::CompletedSuccessfully).await.expect("over");
    fixture.end().await;
}

#[tokio::test]
async fn with_a_port_others_reach_the_same_server() {
    let fixture = Fixture::builder().with_port().start().await.expect("it starts");
    let batch = fixture.client("teacher-7").ready_batch(1).await.expect("ready");
    let url = format!("{}/v1/batches/{batch}/pipelines", fixture.url().expect("a port"));
    // The client can do TLS and so wants to know with what.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let request = http.post(url).header("X-User-ID", "teacher-7").json(&json!({ "requested_pipeline": "nlp" }));
    assert_eq!(request.send().await.expect("answered").status(), 202);
    fixture.wait_for(batch, Client::CompletedSuccessfully).await.expect("over");
    fixture.end().await;
}
