//! The record as the wire shows it: `ProcessingPipelineState`, with why a phase failed and what was tried.

mod common;

use common::fixtures::assert_valid;
use common::world::{OWNER, World, batch_id, forced, request, retry, retry_essays};
use rephase::domain::view::{AttemptView, RETRY_HISTORY, pipeline_state};
use rephase::domain::{Input, Millis, Phase};
use serde_json::{Value, json};

use Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};

/// The state as it is written, which must fit its schema.
fn shown(world: &World) -> Value {
    let state = pipeline_state(world.batch(), |phase| Ok::<_, std::convert::Infallible>(world.newest_attempts(phase)));
    let state = serde_json::to_value(state.expect("it cannot fail")).expect("JSON");
    assert_valid("ProcessingPipelineState", &state, "the view");
    assert_eq!(state["batch_id"], batch_id().to_string());
    assert_eq!(state["last_updated"], time(world.batch().updated_at));
    state
}

fn time(millis: Millis) -> Value {
    json!(millis.to_timestamp())
}

fn counts(total: u32, pending: u32, successful: u32, failed: u32) -> Value {
    json!({
        "total": total,
        "pending_dispatch_or_processing": pending,
        "successful": successful,
        "failed": failed,
    })
}

#[test]
fn a_batch_without_a_pipeline_shows_no_phase() {
    for world in [World::registered(2, json!({})), World::ready(2)] {
        let state = shown(&world);
        assert_eq!(state["requested_pipelines"], json!([]));
        for phase in Phase::ALL {
            assert_eq!(state.get(phase.name().as_str()), Some(&Value::Null), "{phase} is written, as a null");
        }
    }
}

#[test]
fn a_pipeline_on_its_way_shows_what_runs_and_what_waits() {
    let mut world = World::running(3, AiFeedback);
    let dispatched_at = world.now;
    let state = shown(&world);
    assert_eq!(state["requested_pipelines"], json!(["spellcheck", "nlp", "ai_feedback"]));
    assert_eq!(
        state["spellcheck"],
        json!({
            "status": "dispatch_initiated",
            "essay_counts": counts(3, 3, 0, 0),
            "started_at": time(dispatched_at),
            "completed_at": null,
            "error_info": null,
            "progress_percentage": 0.0,
        })
    );
    assert_eq!(
        state["nlp"],
        json!({
            "status": "pending_dependencies",
            "essay_counts": counts(0, 0, 0, 0),
            "started_at": null,
            "completed_at": null,
            "error_info": null,
            "progress_percentage": null,
        })
    );
    assert_eq!(state["cj_assessment"], Value::Null, "nobody asked for it");

    world.apply(Input::PhaseStarted { phase: Spellcheck, attempt: 1 });
    assert_eq!(shown(&world)["spellcheck"]["status"], "in_progress");
    world.succeed_in_part(Spellcheck, &[0, 2]);
    let ended_at = world.now;
    let state = shown(&world);
    let spellcheck = &state["spellcheck"];
    assert_eq!(spellcheck["status"], "completed_with_partial_success");
    assert_eq!(spellcheck["essay_counts"], counts(3, 0, 2, 1));
    assert_eq!((&spellcheck["started_at"], &spellcheck["completed_at"]), (&time(dispatched_at), &time(ended_at)));
    assert_eq!(spellcheck["progress_percentage"], 100.0);
    assert_eq!(spellcheck["error_info"]["error_code"], "UNKNOWN_ERROR");
    assert_eq!(state["nlp"]["essay_counts"], counts(2, 2, 0, 0), "only what came out of the spellcheck");
    world.succeed(Nlp);
    world.succeed(AiFeedback);
    let state = shown(&world);
    assert_eq!(state["ai_feedback"]["essay_counts"], counts(2, 0, 2, 0));
    assert_eq!(state["ai_feedback"]["error_info"], Value::Null, "what went well has nothing to explain");
}

#[test]
fn a_failed_phase_says_why_and_what_was_tried() {
    let mut world = World::running(2, Nlp);
    let first_at = world.now;
    world.fail(Spellcheck);
    let failed_at = world.now;
    let state = shown(&world);
    assert_eq!(state["spellcheck"]["status"], "failed");
    assert_eq!(state["spellcheck"]["essay_counts"], counts(2, 0, 0, 2));
    let info = &state["spellcheck"]["error_info"];
    assert_eq!(info["error_code"], "LLM_PROVIDER_UNAVAILABLE");
    assert_eq!((&info["category"], &info["message"]), (&json!("transient"), &json!("the provider is down")));
    assert_eq!(info["retry_count"], 0);
    let expected = json!({
        "attempt": 1,
        "trigger": "pipeline",
        "requested_by": OWNER,
        "reason": null,
        "correlation_id": world.newest_attempts(Spellcheck)[0].correlation_id,
        "essay_count": 2,
        "enqueued_at": time(first_at),
        "dispatched_at": time(first_at),
        "started_at": null,
        "ended_at": time(failed_at),
        "note": null, "idempotency_key": null, "traceparent": null, "outcome": "failed",
        "successful": 0,
        "failed": 2,
        "error_code": "LLM_PROVIDER_UNAVAILABLE",
        "category": "transient",
        "message": "the provider is down",
    });
    assert_eq!(info["retry_history"], json!([expected]));

    let skipped = &state["nlp"];
    assert_eq!(skipped["status"], "skipped_due_to_dependency_failure");
    assert_eq!(skipped["error_info"]["message"], "spellcheck, which nlp depends on, failed");
    assert_eq!(skipped["error_info"]["dependency"], "spellcheck");
    assert_eq!(
        (&skipped["error_info"]["retry_count"], &skipped["error_info"]["retry_history"]),
        (&json!(0), &json!([]))
    );
}

#[test]
fn a_retry_shows_the_attempts_before_it_newest_first() {
    let mut world = World::running(2, Spellcheck);
    world.fail(Spellcheck);
    world.apply(Input::RetryPhase(retry(Spellcheck)));
    let state = shown(&world);
    let running = &state["spellcheck"];
    assert_eq!((&running["status"], &running["completed_at"]), (&json!("dispatch_initiated"), &Value::Null));
    assert_eq!(running["started_at"], time(world.now), "of the newest attempt");
    assert_eq!(running["essay_counts"], counts(2, 2, 0, 0));
    let info = &running["error_info"];
    assert_eq!((&info["retry_count"], info.get("error_code")), (&json!(1), None), "the open attempt has no error yet");
    assert_eq!(info["retry_history"].as_array().map(Vec::len), Some(1));

    world.succeed(Spellcheck);
    let state = shown(&world);
    let info = &state["spellcheck"]["error_info"];
    assert_eq!((&info["retry_count"], info.get("error_code")), (&json!(1), None));
    let history = info["retry_history"].as_array().expect("a list");
    let members = |name: &str| history.iter().map(|attempt| attempt[name].clone()).collect::<Vec<_>>();
    assert_eq!(members("attempt"), [json!(2), json!(1)]);
    assert_eq!(members("trigger"), [json!("user"), json!("pipeline")]);
    assert_eq!(members("reason"), [json!("once more"), Value::Null]);
    assert_eq!(members("outcome"), [json!("completed_successfully"), json!("failed")]);
}

#[test]
fn a_retry_of_some_essays_counts_those_as_pending() {
    let mut world = World::running(3, Spellcheck);
    world.succeed_in_part(Spellcheck, &[0]);
    world.apply(Input::RetryPhase(retry_essays(Spellcheck, &[2])));
    let state = shown(&world);
    assert_eq!(state["spellcheck"]["essay_counts"], counts(3, 1, 1, 1));
    let progress = state["spellcheck"]["progress_percentage"].as_f64().expect("a number");
    assert!((progress - 200.0 / 3.0).abs() < 1e-9, "{progress}");
}

#[test]
fn a_retry_that_waits_for_its_turn_is_shown_as_requested() {
    let mut world = World::completed(2, Nlp);
    world.apply(request(CjAssessment));
    world.apply(forced(retry(Nlp)));
    let state = shown(&world);
    assert_eq!(state["requested_pipelines"], json!(["spellcheck", "cj_assessment", "nlp"]), "in the order they run");
    assert_eq!(state["nlp"]["status"], "requested_by_user");
    assert_eq!((&state["nlp"]["started_at"], &state["nlp"]["completed_at"]), (&Value::Null, &Value::Null));
    assert_eq!(state["nlp"]["error_info"]["retry_count"], 1);
}

#[test]
fn a_deadline_is_shown_as_a_timeout() {
    let mut world = World::running(2, Spellcheck);
    world.now = world.now.plus(3_600_000);
    world.apply(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 });
    let state = shown(&world);
    assert_eq!(state["spellcheck"]["error_info"]["error_code"], "TIMEOUT");
    assert_eq!(state["spellcheck"]["error_info"]["category"], "transient");
}

#[test]
fn the_history_is_bounded_and_the_count_is_not() {
    let mut world = World::running(1, Spellcheck);
    world.fail(Spellcheck);
    for _ in 0..RETRY_HISTORY + 5 {
        world.apply(Input::RetryPhase(retry(Spellcheck)));
        world.fail(Spellcheck);
    }
    let state = shown(&world);
    let info = &state["spellcheck"]["error_info"];
    let retries = RETRY_HISTORY + 5;
    assert_eq!(info["retry_count"], retries);
    let history = info["retry_history"].as_array().expect("a list");
    assert_eq!((history.len(), &history[0]["attempt"]), (RETRY_HISTORY, &json!(retries + 1)), "the newest");
}

#[test]
fn an_attempt_names_its_essays_where_their_ids_are_known() {
    let mut world = World::running(3, Spellcheck);
    world.succeed_in_part(Spellcheck, &[0]);
    world.apply(Input::RetryPhase(retry_essays(Spellcheck, &[1, 2])));
    let essays = &world.batch().essays;
    let view = AttemptView::with_essays(world.open(Spellcheck), |slot| Some(essays[usize::from(slot)].id.as_str()));
    let view = json!(view);
    assert_eq!(view["essay_ids"], json!(["essay-1", "essay-2"]));
    for end in ["ended_at", "outcome", "successful", "failed", "error_code"] {
        assert_eq!(view.get(end), Some(&Value::Null), "{end}: the attempt is open");
    }
    let unnamed = json!(AttemptView::with_essays(world.open(Spellcheck), |_| None));
    assert_eq!((unnamed.get("essay_ids"), &unnamed["essay_count"]), (None, &json!(2)));
}
