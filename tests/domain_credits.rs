//! What pipelines cost, and which are denied.

mod common;

use common::fixtures::assert_valid;
use common::world::{OWNER, STRANGER, World, request, retry};
use rephase::domain::Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};
use rephase::domain::step::Data;
use rephase::domain::{
    Account, Balances, Context, Cost, Denial, DenialReason, Effect, Funds, Input, Origin, Phase, Rejected,
    RejectionKind, denied,
};
use serde_json::{Value, json};

const fn comparisons(credits: u64) -> Cost {
    Cost { cj_comparisons: credits, ai_feedback: 0 }
}

const fn feedback(credits: u64) -> Cost {
    Cost { cj_comparisons: 0, ai_feedback: credits }
}

fn charges(effects: &[Effect]) -> Vec<(Phase, Cost)> {
    let charge = |effect: &Effect| match effect {
        Effect::Charge { requested, cost } => Some((*requested, *cost)),
        _ => None,
    };
    effects.iter().filter_map(charge).collect()
}

#[test]
fn comparisons_and_feedback_cost_and_the_rest_is_free() {
    for (phases, essays, cost) in [
        (&[Spellcheck, Nlp][..], 30, Cost::default()),
        (&[Spellcheck, CjAssessment], 0, Cost::default()),
        (&[Spellcheck, CjAssessment], 1, Cost::default()),
        (&[Spellcheck, CjAssessment], 2, comparisons(1)),
        (&[CjAssessment], 10, comparisons(45)),
        (&[CjAssessment], 1_000, comparisons(499_500)),
        (&[Spellcheck, Nlp, AiFeedback], 10, feedback(10)),
        (&[CjAssessment, AiFeedback], 10, Cost { cj_comparisons: 45, ai_feedback: 10 }),
    ] {
        assert_eq!(Cost::of(phases, essays), cost, "{phases:?} of {essays}");
    }
    let both = Cost { cj_comparisons: 45, ai_feedback: 10 };
    assert_eq!(both.total(), 55);
    assert_eq!(json!(both.breakdown()), json!({ "cj_comparison": 45, "ai_feedback_generation": 10 }));
    assert_eq!(json!(Cost::default().breakdown()), json!({}));
}

#[test]
fn a_pipeline_is_charged_for_what_is_going_to_run() {
    for (last, cost) in
        [(Spellcheck, None), (Nlp, None), (CjAssessment, Some(comparisons(6))), (AiFeedback, Some(feedback(4)))]
    {
        let mut world = World::ready(4);
        world.funds = Funds::Limited(100);
        let expected: Vec<_> = cost.map(|cost| (last, cost)).into_iter().collect();
        assert_eq!(charges(&world.apply(request(last))), expected);
    }
    // Where nothing is limited nothing is charged.
    assert_eq!(charges(&World::ready(4).apply(request(CjAssessment))), []);
    // What is complete costs nothing again.
    let mut world = World::completed(4, AiFeedback);
    world.funds = Funds::Limited(6);
    assert_eq!(charges(&world.apply(request(AiFeedback))), []);
    assert_eq!(charges(&world.apply(request(CjAssessment))), [(CjAssessment, comparisons(6))]);
}

#[test]
fn a_retry_costs_nothing() {
    let mut world = World::ready(4);
    world.funds = Funds::Limited(4);
    world.apply(request(AiFeedback));
    world.funds = Funds::Limited(0);
    for phase in [Spellcheck, Nlp] {
        world.succeed(phase);
    }
    world.fail(AiFeedback);
    assert_eq!(charges(&world.apply(Input::RetryPhase(retry(AiFeedback)))), []);
}

#[test]
fn what_cannot_be_paid_is_denied_and_the_last_credit_counts() {
    for (credits, is_enough) in [(0, false), (5, false), (6, true), (7, true)] {
        let mut world = World::ready(4);
        world.funds = Funds::Limited(credits);
        if is_enough {
            world.apply(request(CjAssessment));
            continue;
        }
        let rejected = world.refuse(request(CjAssessment));
        let reason = DenialReason::InsufficientCredits;
        let denial = Denial { requested: CjAssessment, reason, cost: comparisons(6), funds: world.funds };
        assert_eq!((&rejected, rejected.kind()), (&Rejected::Denied(denial), RejectionKind::Unpaid));
        assert_eq!(denial.deficit(), 6 - credits);
        // What is free runs all the same.
        world.apply(request(Nlp));
    }
}

#[test]
fn what_else_is_wrong_is_said_first() {
    let mut world = World::running(4, Nlp);
    world.funds = Funds::Limited(0);
    assert_eq!(world.refuse(request(CjAssessment)), Rejected::PipelineActive);
    let mut world = World::without_prompt(4);
    world.funds = Funds::Limited(0);
    assert!(matches!(world.refuse(request(CjAssessment)), Rejected::PromptMissing { .. }));
}

fn too_many(by: &str, is_retry: bool) -> Input {
    Input::DenyPipeline { by: by.to_owned(), last: CjAssessment, is_retry, limit: 20, wait_ms: 1_500 }
}

#[test]
fn one_too_many_is_denied_whatever_there_is() {
    let world = World::ready(4);
    for (is_retry, cost) in [(false, comparisons(6)), (true, Cost::default())] {
        let rejected = world.refuse(too_many(OWNER, is_retry));
        let Rejected::Denied(denial) = &rejected else { panic!("{rejected}") };
        assert_eq!((denial.cost, denial.deficit()), (cost, 0));
        assert_eq!(rejected.kind(), RejectionKind::Limited { limit: 20, wait_ms: Some(1_500) });
    }
    assert_eq!(world.refuse(too_many(STRANGER, false)), Rejected::NotOwner);
}

/// The data of what is told of a denial.
fn told(world: &World, denial: &Denial) -> Vec<Value> {
    let (origin, rules) = (std::sync::Arc::<Origin>::default(), &world.rules);
    let (now, correlation_id, funds) = (world.now, world.correlation_id(), world.funds);
    let context = Context { now, up_since: now, correlation_id, origin: &origin, rules, funds };
    let told = denied(world.batch(), denial, &context);
    assert!(matches!(told[0].data, Data::PipelineDenied(_)) && matches!(told[1].data, Data::Notification(_)));
    assert!(told.iter().all(|outgoing| outgoing.correlation_id == correlation_id));
    told.iter().map(|outgoing| serde_json::to_value(&outgoing.data).expect("JSON")).collect()
}

#[test]
fn a_denial_is_an_event_and_a_notification() {
    let mut world = World::registered(4, json!({ "org_id": "school-1" }));
    world.funds = Funds::Limited(2);
    let short = Denial {
        requested: CjAssessment,
        reason: DenialReason::InsufficientCredits,
        cost: comparisons(6),
        funds: world.funds,
    };
    let [event, notification] = &told(&world, &short)[..] else { panic!("two") };
    assert_valid("PipelineDeniedV1", event, "insufficient credits");
    assert_valid("TeacherNotificationRequestedV1", notification, "insufficient credits");
    for (member, value) in [
        ("user_id", json!(OWNER)),
        ("org_id", json!("school-1")),
        ("requested_pipeline", json!("cj_assessment")),
        ("denial_reason", json!("insufficient_credits")),
        ("required_credits", json!(6)),
        ("available_credits", json!(2)),
        ("resource_breakdown", json!({ "cj_comparison": 6 })),
    ] {
        assert_eq!((&event[member], &notification["payload"][member]), (&value, &value), "{member}");
    }
    assert_eq!(notification["notification_type"], "pipeline_denied_insufficient_credits");
    assert_eq!((&notification["priority"], &notification["action_required"]), (&json!("immediate"), &json!(true)));
    assert_eq!(notification["payload"]["credit_deficit"], 4);
    assert!(notification["payload"]["next_steps"].as_array().is_some_and(|steps| !steps.is_empty()));
    assert_eq!(notification["payload"].get("is_rate_limit"), None);

    let reason = DenialReason::RateLimitExceeded { limit: 20, wait_ms: 1_500 };
    let [event, notification] = &told(&world, &Denial { reason, ..short })[..] else { panic!("two") };
    assert_valid("PipelineDeniedV1", event, "rate limit");
    assert_eq!(event["denial_reason"], "rate_limit_exceeded");
    assert_eq!(notification["notification_type"], "pipeline_denied_rate_limit");
    assert_eq!(notification["payload"]["next_steps"], json!(["Request it again in 2 second(s)"]));
}

#[test]
fn an_organisation_pays_before_its_users() {
    let payers = |members| {
        let world = World::registered(1, members);
        Account::payers(&world.batch().details).collect::<Vec<_>>()
    };
    let (user, school) = (Account::User(OWNER.to_owned()), Account::Organisation("school-1".to_owned()));
    assert_eq!(payers(json!({ "org_id": "school-1" })), [school, user.clone()]);
    assert_eq!(payers(json!({ "org_id": "" })), std::slice::from_ref(&user));
    assert_eq!(payers(json!({ "org_id": null })), [user]);
}

#[test]
fn balances_are_read_or_refused_by_what_is_wrong() {
    let balances = Balances::parse(r#"{"users": {" teacher-7 ": 10, "free": null}, "organisations": {"o": 0}}"#);
    let expected = [
        (Account::User("free".to_owned()), None),
        (Account::User("teacher-7".to_owned()), Some(10)),
        (Account::Organisation("o".to_owned()), Some(0)),
    ];
    assert_eq!(balances, Ok(Balances(expected.into_iter().collect())));
    assert_eq!(Balances::parse("{}"), Ok(Balances::default()));
    for (json, said) in [
        ("[]", "no JSON object"),
        (r#"{"user": {}}"#, "unknown field `user`"),
        (r#"{"users": {"a": -1}}"#, "-1"),
        (r#"{"users": {"a": 1.5}}"#, "1.5"),
        (r#"{"users": {"a": "1"}}"#, "\"1\""),
        (r#"{"users": {" ": 1}}"#, "at least 1 character"),
        (r#"{"users": {"a": 1000000000001}}"#, "a has more than 1000000000000 credits"),
        ("{", "EOF"),
    ] {
        let error = Balances::parse(json).expect_err(json);
        assert!(error.contains(said), "{json}: {error}");
    }
}
