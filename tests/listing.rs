//! The promise "what happened can be found": the listing of a user's batches.

mod common;
mod harness;

use common::world::{World, retry};
use harness::{Client, Server, Setup};
use rephase::contract::{BatchClientStatus, ErrorCode, PipelineExecutionStatus as Status};
use rephase::domain::{Filter, Input, Phase};
use serde_json::{Value, json};

async fn listed(client: &Client, query: &str) -> Vec<String> {
    let answer = client.get(&format!("/v1/batches?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    ids(&answer.json())
}

fn ids(page: &Value) -> Vec<String> {
    let batches = page["batches"].as_array().expect("a list");
    batches.iter().map(|batch| batch["batch_id"].as_str().expect("an id").to_owned()).collect()
}

/// A server whose nlp always fails.
async fn server() -> Server {
    Server::with_faults(json!([{ "phase": "nlp", "error_code": "NLP_SERVICE_ERROR", "category": "permanent" }])).await
}

/// A batch a minute later than the one before, that has run `pipeline`.
async fn batch_after(server: &Server, pipeline: &str) -> String {
    server.clock.advance(60_000);
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, pipeline).await;
    server.client.until_settled(&batch).await;
    batch
}

#[tokio::test]
async fn each_filter_finds_its_batches_the_newest_first() {
    let server = server().await;
    let client = &server.client;
    let spellchecked = &batch_after(&server, "spellcheck").await;
    let failed = &batch_after(&server, "nlp").await;
    let also_failed = &batch_after(&server, "ai_feedback").await;
    server.clock.advance(60_000);
    let empty = &client.registered_batch(2).await;
    client.as_user("somebody-else").post("/v1/batches/register", json!({})).await;

    for (query, expected) in [
        ("", vec![empty, also_failed, failed, spellchecked]),
        ("status=pending_content", vec![empty]),
        ("status=completed_successfully", vec![spellchecked]),
        ("status=completed_with_failures", vec![also_failed, failed]),
        ("phase=spellcheck", vec![also_failed, failed, spellchecked]),
        ("phase=AI_Feedback", vec![also_failed]),
        ("phase=nlp&phase_status=failed", vec![also_failed, failed]),
        ("phase_status=failed", vec![also_failed, failed]),
        ("phase=spellcheck&phase_status=failed", vec![]),
        ("phase_status=skipped_due_to_dependency_failure", vec![also_failed]),
        ("error_code=NLP_SERVICE_ERROR", vec![also_failed, failed]),
        ("error_code=NLP_SERVICE_ERROR&phase=spellcheck", vec![]),
        ("error_code=TIMEOUT", vec![]),
        ("error_code=NLP_SERVICE_ERROR&phase_status=completed_successfully", vec![]),
        ("since=2026-03-02T08:32:00Z", vec![empty, also_failed, failed]),
        ("until=2026-03-02T08:32:00Z", vec![spellchecked]),
        ("since=2026-03-02T08:32:00Z&until=2026-03-02T08:33:00Z", vec![failed]),
        ("since=2026-03-02T10:32:00%2B02:00&status=completed_with_failures", vec![also_failed, failed]),
        ("since=2026-03-03T00:00:00Z&until=2026-03-02T00:00:00Z", vec![]),
        ("stuck=true", vec![]),
        ("stuck=false&status=pending_content", vec![empty]),
    ] {
        assert_eq!(listed(client, query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    assert_eq!(listed(&client.as_user("somebody-else"), "").await, [""; 0], "the registration was refused");
}

#[tokio::test]
async fn a_listed_batch_says_how_its_phases_stand() {
    let server = server().await;
    batch_after(&server, "nlp").await;
    let page = server.client.get("/v1/batches").await.json();
    assert_eq!(page["next_cursor"], Value::Null);
    let batch = &page["batches"][0];
    assert_eq!(batch["status"], "completed_with_failures");
    assert_eq!(batch["registered_at"], "2026-03-02T08:31:00Z");
    assert_eq!(batch["phases"]["spellcheck"]["status"], "completed_successfully");
    let nlp = &batch["phases"]["nlp"];
    assert_eq!((&nlp["status"], &nlp["error_code"]), (&json!("failed"), &json!("NLP_SERVICE_ERROR")));
    assert_eq!(nlp["essay_counts"]["failed"], 1);
}

#[tokio::test]
async fn a_batch_leaves_the_lists_that_it_no_longer_fits() {
    let faults = json!([{ "phase": "nlp", "attempts": [1], "error_code": "TIMEOUT", "category": "permanent" }]);
    let server = Server::with_faults(faults).await;
    let batch = batch_after(&server, "nlp").await;
    for query in ["phase_status=failed", "error_code=TIMEOUT", "status=completed_with_failures"] {
        assert_eq!(listed(&server.client, query).await, [batch.as_str()], "{query}");
    }
    server.client.retry(&batch, json!({ "phase_name": "nlp" })).await;
    server.client.until_settled(&batch).await;
    for query in ["phase_status=failed", "error_code=TIMEOUT", "status=completed_with_failures"] {
        assert_eq!(listed(&server.client, query).await, [""; 0], "{query}");
    }
    assert_eq!(listed(&server.client, "phase=nlp&phase_status=completed_successfully").await, [batch]);
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap() {
    let server = server().await;
    let mut registered = Vec::new();
    for number in 0..7 {
        // Some are registered in the same millisecond.
        server.clock.advance(number % 2);
        registered.push(server.client.registered_batch(1).await);
    }
    for limit in [1, 2, 3, 7, 200] {
        let (mut found, mut query) = (Vec::new(), format!("limit={limit}"));
        loop {
            let page = server.client.get(&format!("/v1/batches?{query}")).await.json();
            assert!(ids(&page).len() <= limit);
            found.extend(ids(&page));
            match page["next_cursor"].as_str() {
                Some(cursor) => query = format!("limit={limit}&cursor={cursor}"),
                None => break,
            }
            // What is registered meanwhile is newer than what is left to show.
            server.clock.advance(1);
        }
        let mut expected = registered.clone();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "pages of {limit}");
    }
}

#[tokio::test]
async fn a_phase_over_half_its_deadline_is_stuck() {
    let server = Server::start(Setup { latency_ms: 10_000_000..=10_000_000, ..Setup::default() }).await;
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, "spellcheck").await;
    server.client.until_phase(&batch, "spellcheck", "in_progress").await;
    server.clock.advance(449_000);
    assert_eq!(listed(&server.client, "stuck=true").await, [""; 0]);
    server.clock.advance(1_000);
    for query in ["stuck=true", "stuck=true&phase=spellcheck", "stuck=true&status=processing"] {
        assert_eq!(listed(&server.client, query).await, [batch.as_str()], "{query}");
    }
    assert_eq!(listed(&server.client, "stuck=true&phase=nlp").await, [""; 0]);
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused() {
    let Server { client, .. } = &server().await;
    for (query, reason) in [
        ("status=done", "status: 'done' is none of pending_content, ready, "),
        ("phase=grading", "there is no phase 'grading'"),
        ("phase_status=processing", "phase_status: 'processing' is none of "),
        ("error_code=OOPS", "error_code: 'OOPS' is none of the 79 values, which /openapi.json lists"),
        (
            "error_code=NLP_SERVICE_EROR",
            "error_code: 'NLP_SERVICE_EROR' is none of the 79 values, which /openapi.json lists; did you mean NLP_SERVICE_ERROR?",
        ),
        ("since=yesterday", "since is a time with its zone, as 2026-01-31T12:00:00Z, not 'yesterday'"),
        ("stuck=perhaps", "stuck is true or false, not 'perhaps'"),
        ("limit=abc", "limit is a whole number from 1 to 200, not 'abc'"),
        ("limit=1&limit=2", "limit is there more than once"),
        ("limit=0", "limit is between 1 and 200"),
        ("limit=201", "limit is between 1 and 200"),
        ("cursor=abc", "cursor is not one that this server gave"),
        ("phasestatus=failed", "phasestatus: there is no such parameter, but status, phase, "),
    ] {
        let answer = client.get(&format!("/v1/batches?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.starts_with(reason), "{query}: {error}");
    }
    let meant = client.get("/v1/batches?phasestatus=failed").await.json()["error"].clone();
    assert!(meant.as_str().is_some_and(|meant| meant.ends_with("; did you mean phase_status?")), "{meant}");
    let long = client.get(&format!("/v1/batches?limit={}", "x".repeat(2_000))).await;
    assert!(long.status == 400 && long.text.len() < 1_000, "{}", long.text);
    assert_eq!(client.as_nobody().get("/v1/batches").await.status, 401);
}

/// What the index is searched for must find everything that the filter lets through.
#[test]
fn every_batch_that_a_filter_lets_through_is_listed_under_its_facets() {
    let mut worlds = vec![World::ready(2), World::running(2, Phase::AiFeedback), World::completed(2, Phase::Nlp)];
    let mut failed = World::running(3, Phase::AiFeedback);
    failed.succeed_in_part(Phase::Spellcheck, &[0]);
    failed.fail(Phase::Nlp);
    worlds.push(failed.clone());
    failed.apply(Input::RetryPhase(retry(Phase::Nlp)));
    failed.now = failed.now.plus(800_000);
    worlds.push(failed);

    let mut let_through = 0;
    for world in &worlds {
        for status in [None].into_iter().chain(BatchClientStatus::ALL.iter().copied().map(Some)) {
            for phase in [None].into_iter().chain(Phase::ALL.map(Some)) {
                for phase_status in [None].into_iter().chain(Status::ALL.iter().copied().map(Some)) {
                    for (error_code, stuck) in [None, Some(ErrorCode::NlpServiceError), Some(ErrorCode::UnknownError)]
                        .into_iter()
                        .flat_map(|code| [(code, false), (code, true)])
                    {
                        let filter = Filter { status, phase, phase_status, error_code, stuck, ..Filter::default() };
                        if filter.allows(world.batch(), world.now) {
                            let_through += 1;
                            let facets = world.batch().facets();
                            let is_found = filter.facets().iter().any(|facet| facets.contains(facet));
                            assert!(is_found, "{filter:?} misses {facets:?}");
                        }
                    }
                }
            }
        }
    }
    assert!(let_through > 50, "only {let_through} combinations let something through");
}
