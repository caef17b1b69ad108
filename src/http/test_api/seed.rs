//! Batches with a past, as JSON says it.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Backstage, Tests};
use crate::contract::requests::{BatchRegistrationRequest, ClientId, RetryReason};
use crate::contract::{ErrorCode, Text};
use crate::domain::history::{Chapter, End, Story};
use crate::domain::step::NewEssay;
use crate::domain::{BatchId, Category, MAX_ESSAYS, Phase, PhaseError, Slot};
use crate::engine::{DEFAULT_RETRY_REASON, Seed, SeedError, content_id};
use crate::http::Problem;
use crate::http::body::Received;
use crate::http::whole::parse;

/// The most batches of one seed, the most essays of all of them, and the most that happened to one.
const MAX_BATCHES: usize = 1_000;
const MAX_ALL_ESSAYS: usize = 10_000;
const MAX_CHAPTERS: usize = 200;

/// The longest that anything took, in milliseconds: a week, as the longest deadline.
const MAX_TOOK_MS: u64 = 604_800_000;

/// The longest ago, in milliseconds: ten years.
const MAX_AGO_MS: u64 = 315_360_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedRequest {
    batches: Vec<SeedBatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedBatch {
    user_id: ClientId,
    course_code: Option<String>,
    essays: Essays,
    #[serde(default)]
    missing: usize,
    #[serde(default)]
    ago_ms: u64,
    #[serde(default)]
    history: Vec<SeedChapter>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "it is a number, or a list of texts")]
enum Essays {
    Count(usize),
    Texts(Vec<String>),
}

/// One of `pipeline`, `phase` and `cancel`; the others go with `phase`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedChapter {
    pipeline: Option<Text<1, 100>>,
    phase: Option<Text<1, 100>>,
    cancel: Option<RetryReason>,
    reason: Option<RetryReason>,
    took_ms: Option<u64>,
    ends: Option<Ends>,
    essays: Option<Vec<Slot>>,
    error_code: Option<ErrorCode>,
    category: Option<Category>,
    message: Option<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Ends {
    Dispatched,
    InProgress,
    Succeeded,
    Failed,
    TimedOut,
}

/// Makes batches that have a past. Each is one that could have come about, or the seed is refused.
pub(super) async fn seed<B: Backstage>(
    State(tests): State<Tests<B>>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let Received { bytes, share: _share } = tests.bodies.receive(request).await?;
    let SeedRequest { batches } = parse(&bytes)?;
    if batches.is_empty() || batches.len() > MAX_BATCHES {
        return Err(Problem::invalid(format!("batches: give between 1 and {MAX_BATCHES}")));
    }
    let (mut seeds, mut essays) = (Vec::with_capacity(batches.len()), 0);
    for (place, batch) in batches.into_iter().enumerate() {
        let seed = read(batch).map_err(|error| Problem::invalid(format!("batches[{place}].{error}")))?;
        essays += seed.texts.len();
        if essays > MAX_ALL_ESSAYS {
            return Err(Problem::invalid(format!("a seed has at most {MAX_ALL_ESSAYS} essays")));
        }
        seeds.push(seed);
    }
    match tests.backstage.engine()?.seed(seeds).await {
        Ok(ids) => Ok(Json(json!({ "batch_ids": ids.iter().map(|id| id.0).collect::<Vec<_>>() }))),
        Err(SeedError::Impossible { batch, chapter, error }) => {
            Err(Problem::invalid(format!("batches[{batch}].history[{chapter}]: {error}")))
        }
        Err(SeedError::Engine(error)) => Err(error.into()),
    }
}

fn read(batch: SeedBatch) -> Result<Seed, String> {
    let SeedBatch { user_id, course_code, essays, missing, ago_ms, history } = batch;
    let count = match &essays {
        Essays::Count(count) => *count,
        Essays::Texts(texts) => texts.len(),
    };
    if !(1..=MAX_ESSAYS).contains(&count) {
        return Err(format!("essays: give between 1 and {MAX_ESSAYS}"));
    }
    let mut texts = match essays {
        Essays::Count(count) => (1..=count).map(|number| format!("Essay {number} of {count}.")).collect(),
        Essays::Texts(texts) => texts,
    };
    if texts.iter().any(|text| text.trim().is_empty()) {
        return Err("essays: a text is empty".to_owned());
    }
    let arrived = count.checked_sub(missing).ok_or("missing: more essays than there are")?;
    texts.truncate(arrived);
    if ago_ms > MAX_AGO_MS {
        return Err(format!("ago_ms is at most {MAX_AGO_MS}"));
    }
    if history.len() > MAX_CHAPTERS {
        return Err(format!("history: give at most {MAX_CHAPTERS}"));
    }
    let registration = json!({
        "user_id": user_id,
        "course_code": course_code.as_deref().unwrap_or("ENG5"),
        "expected_essay_count": count,
        "student_prompt_ref": { "references": { "student_prompt_text": { "storage_id": "seeded-prompt" } } },
    });
    let registration: BatchRegistrationRequest =
        serde_json::from_value(registration).map_err(|error| format!("course_code: {error}"))?;
    let new = |(number, text): (usize, &String)| NewEssay {
        file_name: format!("essay-{number}.txt"),
        text_storage_id: content_id(text),
    };
    let essays = (1..).zip(&texts).map(new).collect();
    let read = |(place, chapter)| chapter_of(chapter).map_err(|error| format!("history[{place}]: {error}"));
    let chapters = history.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let story = Story { id: BatchId(Uuid::now_v7()), registration, essays, chapters };
    Ok(Seed { story, texts, ago_ms })
}

fn chapter_of(chapter: SeedChapter) -> Result<Chapter, String> {
    let phase_of = |name: Text<1, 100>| name.as_str().parse::<Phase>().map_err(|error| error.to_string());
    let says_more = chapter.reason.is_some() || chapter.took_ms.is_some() || chapter.ends.is_some();
    let says_more = says_more || chapter.essays.is_some() || chapter.error_code.is_some();
    let says_more = says_more || chapter.category.is_some() || chapter.message.is_some();
    match (chapter.pipeline, chapter.phase, chapter.cancel) {
        (Some(last), None, None) if !says_more => Ok(Chapter::Pipeline { last: phase_of(last)? }),
        (None, None, Some(reason)) if !says_more => Ok(Chapter::Cancel { reason: reason.into_string() }),
        (None, Some(phase), None) => {
            let has_failed = chapter.error_code.is_some();
            let end = chapter.ends.unwrap_or(if has_failed { Ends::Failed } else { Ends::Succeeded });
            let about_failure = has_failed || chapter.essays.is_some();
            let about_failure = about_failure || chapter.category.is_some() || chapter.message.is_some();
            let end = match end {
                Ends::Failed => {
                    let code = chapter.error_code.ok_or("what failed has an error_code")?;
                    let category = chapter.category.unwrap_or_else(|| Category::of(code));
                    let error = PhaseError::new(code, category, chapter.message.as_deref().unwrap_or("seeded"));
                    End::Failed { slots: chapter.essays, error }
                }
                _ if about_failure => {
                    return Err("error_code, category, message and essays are of what failed".to_owned());
                }
                Ends::Dispatched => End::Dispatched,
                Ends::InProgress => End::Started,
                Ends::Succeeded => End::Succeeded,
                Ends::TimedOut => End::TimedOut,
            };
            let took_ms = chapter.took_ms.unwrap_or(1_000);
            if took_ms > MAX_TOOK_MS {
                return Err(format!("took_ms is at most {MAX_TOOK_MS}"));
            }
            let reason = chapter.reason.map(RetryReason::into_string).filter(|reason| !reason.is_empty());
            let reason = reason.unwrap_or_else(|| DEFAULT_RETRY_REASON.to_owned());
            Ok(Chapter::Attempt { phase: phase_of(phase)?, reason, took_ms, end })
        }
        _ => Err("it is one of pipeline, phase and cancel; the other members go with phase".to_owned()),
    }
}
