//! Stores to start from: batches whose spellcheck has completed and whose nlp has failed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rephase::contract::{BatchStatus, ErrorCode};
use rephase::domain::step::{NewEssay, PhaseOutcome, Registration};
use rephase::domain::{
    Batch, BatchId, Category, Context, Effect, Funds, Input, Millis, Origin, Phase, PhaseError, Rules, Step, step,
};
use rephase::store::{Commit, Options, Store};
use serde_json::json;
use uuid::{ContextV7, Timestamp, Uuid};

/// To whom all batches belong.
pub const OWNER: &str = "teacher-of-many";

/// How many batches are written at once.
const BITE: usize = 256;

/// When the first batch was registered: long before anybody measures.
const BEGAN: Millis = Millis(1_750_000_000_000);

/// Writes `count` batches of `essays` essays each into a store in `directory`, and says which.
pub async fn seed(directory: &Path, count: usize, essays: u16) -> anyhow::Result<Vec<BatchId>> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || write(&directory, count, essays)).await?
}

fn write(directory: &Path, count: usize, essays: u16) -> anyhow::Result<Vec<BatchId>> {
    // One at a second: ids in order, as those of a school's years.
    let context = ContextV7::new();
    let ids: Vec<_> = (0..count as u64)
        .map(|number| {
            let seconds = BEGAN.0 / 1_000 + number;
            BatchId(Uuid::new_v7(Timestamp::from_unix(&context, seconds, 0)))
        })
        .collect();
    let store = Store::open(&Options::new(directory), Box::new(|_| {}))?;
    for (number, some) in ids.chunks(BITE).enumerate() {
        let mut commit = Commit::new();
        for (place, id) in some.iter().enumerate() {
            let registered = Millis(BEGAN.0 + 1_000 * (number * BITE + place) as u64);
            let batch = failed_in_nlp(*id, essays, registered, &mut commit)?;
            commit.put_batch(None, &batch)?;
        }
        store.commit_blocking(commit)?;
    }
    Ok(ids)
}

/// A batch whose spellcheck has completed and whose nlp has failed. Its attempts go into `commit`.
pub fn failed_in_nlp(id: BatchId, essays: u16, now: Millis, commit: &mut Commit) -> anyhow::Result<Batch> {
    let request = json!({ "expected_essay_count": essays, "course_code": "ENG5", "user_id": OWNER,
        "student_prompt_ref": { "references": { "student_prompt_text": { "storage_id": "prompt-1" } } } });
    let registration = Registration::new(id, serde_json::from_value(request)?, now)?;
    let new = |slot| NewEssay { file_name: format!("essay-{slot}.txt"), text_storage_id: format!("{id}-{slot}") };
    let by = OWNER.to_owned();
    let mut batch: Option<Batch> = None;
    let mut go = |batch: &mut Option<Batch>, input| -> anyhow::Result<()> {
        let (origin, rules) = (Arc::<Origin>::default(), Rules::default());
        let (rules, funds) = (&rules, Funds::Unlimited);
        let context = Context { now, up_since: now, correlation_id: id.0, origin: &origin, rules, funds };
        let Step { batch: new, effects } = step(batch.as_ref(), input, &context)?;
        for effect in effects {
            if let Effect::RecordAttempt { phase, attempt } = effect {
                commit.record_attempt(id, phase, &attempt)?;
            }
        }
        *batch = Some(new);
        Ok(())
    };
    go(&mut batch, Input::Register(Box::new(registration)))?;
    go(&mut batch, Input::ProvideEssays { by: by.clone(), essays: (0..essays).map(new).collect() })?;
    go(&mut batch, Input::RequestPipeline { by, last: Phase::Nlp, prompt: None })?;
    let originals = |batch: &Option<Batch>| -> anyhow::Result<Vec<_>> {
        let batch = batch.as_ref().context("it was registered")?;
        Ok((0..essays).filter_map(|slot| batch.original_essay(slot)).collect())
    };
    let processed = originals(&batch)?;
    let mut outcome = PhaseOutcome {
        phase: Phase::Spellcheck,
        status: BatchStatus::CompletedSuccessfully,
        processed,
        attempt: Some(1),
        correlation_id: None,
        error: None,
        retry_after_ms: None,
        essay_errors: BTreeMap::new(),
    };
    go(&mut batch, Input::PhaseOutcome(outcome.clone()))?;
    let why = "the language model is not installed";
    outcome.phase = Phase::Nlp;
    outcome.status = BatchStatus::FailedCritically;
    outcome.processed = Vec::new();
    outcome.error = Some(PhaseError::new(ErrorCode::NlpServiceError, Category::Permanent, why));
    go(&mut batch, Input::PhaseOutcome(outcome))?;
    let batch = batch.context("it was registered")?;
    anyhow::ensure!(batch.rests_since().is_some(), "the seed is at rest");
    Ok(batch)
}
