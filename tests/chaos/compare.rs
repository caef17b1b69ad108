//! Holds the server to the record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::Client;
use crate::record::{Batch, Decision, Fate, Record, User};

/// How many batches are compared at once.
const SIDE_BY_SIDE: usize = 16;

/// How many batches that no request was about since the last time are looked at all the same.
const SAMPLE: usize = 60;

/// The most entries of a letter's history that the server keeps.
const LETTER_HISTORY: usize = 50;

/// What is not as the record has it.
#[derive(Debug, Default)]
pub struct Found {
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
}

impl Found {
    pub fn append(&mut self, mut other: Self) {
        self.lost.append(&mut other.lost);
        self.doubled.append(&mut other.doubled);
    }

    fn require(&mut self, is_there: bool, what: impl FnOnce() -> String) {
        if !is_there {
            self.lost.push(what());
        }
    }

    fn forbid(&mut self, is_there: bool, what: impl FnOnce() -> String) {
        if is_there {
            self.doubled.push(what());
        }
    }

    /// Something that a request caused so many times.
    fn count(&mut self, fate: Fate, times: usize, what: impl Fn() -> String) {
        match fate {
            Fate::Acknowledged => self.require(times > 0, &what),
            Fate::Refused => self.forbid(times > 0, || format!("{}, which was refused", what())),
            Fate::Unanswered => {}
        }
        self.forbid(times > 1, || format!("{} is there {times} times", what()));
    }
}

/// Compares all of the record, or of its batches only those that were touched and a few others.
pub async fn compare(client: &Client, record: Record, touched: Option<BTreeSet<String>>) -> Found {
    let mut found = Found::default();
    let all = record.batches.keys().cloned();
    let ids: Vec<String> = match touched {
        None => all.collect(),
        Some(touched) => {
            let others = fastrand::choose_multiple(all.filter(|id| !touched.contains(id)), SAMPLE);
            touched.into_iter().filter(|id| record.batches.contains_key(id)).chain(others).collect()
        }
    };
    let record = Arc::new(record);
    let chunks = ids.chunks(ids.len().div_ceil(SIDE_BY_SIDE).max(1)).map(<[_]>::to_vec).collect::<Vec<_>>();
    let tasks = chunks.into_iter().map(|ids| {
        let (client, record) = (client.clone(), Arc::clone(&record));
        tokio::spawn(async move {
            let mut found = Found::default();
            for id in ids {
                compare_batch(&client, &record, &id, &mut found).await;
            }
            found
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        found.append(task.await.expect("the server answers"));
    }
    for (name, user) in &record.users {
        compare_user(&client.as_user(name), user, &mut found).await;
    }
    compare_letters(client, &record.decisions, &mut found).await;
    found
}

/// All pages of a list.
async fn pages(client: &Client, path: &str, list: &str, next: &str, cursor: &str) -> Vec<Value> {
    let (mut items, mut page) = (Vec::new(), String::new());
    loop {
        let answer = client.get(&format!("{path}?limit=200{page}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let mut answer = answer.json();
        items.append(answer[list].as_array_mut().expect("a list"));
        page = match &answer[next] {
            Value::Null => return items,
            Value::String(value) => format!("&{cursor}={value}"),
            value => format!("&{cursor}={value}"),
        };
    }
}

async fn compare_batch(client: &Client, record: &Record, id: &str, found: &mut Found) {
    let known = &record.batches[id];
    let answer = client.get(&format!("/v1/batches/{id}/status")).await;
    if answer.status != 200 {
        found.lost.push(format!("batch {id}: {}", answer.text));
        return;
    }
    let version: u64 = answer.header("etag").trim_matches('"').parse().expect("a version");
    found.require(version >= known.version, || format!("version {} of batch {id}: it is {version}", known.version));
    let status = answer.json();
    let expected = &status["batch_context"]["expected_essay_count"];
    found.require(expected == known.expected, || format!("{} slots of batch {id}: {expected}", known.expected));
    let essays = status["details"]["essays_received"].as_u64().expect("a number");
    found.require(essays >= known.essays, || format!("{} essays of batch {id}: {essays}", known.essays));
    let most = known.essays + known.essays_perhaps;
    found.forbid(essays > most, || format!("{essays} essays of batch {id} instead of {most}"));
    for phase in &known.pipelines {
        let is_there = status["pipeline_state"][phase].is_object();
        found.require(is_there, || format!("pipeline {phase} of batch {id}"));
    }
    let mut attempts = BTreeMap::new();
    for phase in ["spellcheck", "cj_assessment", "nlp", "ai_feedback"] {
        if status["pipeline_state"][phase].is_object() {
            let path = format!("/v1/batches/{id}/phases/{phase}/attempts");
            attempts.insert(phase, pages(client, &path, "attempts", "next_from", "from").await);
        }
    }
    compare_attempts(known, &record.users[&known.user], id, &attempts, found);
}

fn compare_attempts(known: &Batch, user: &User, id: &str, attempts: &BTreeMap<&str, Vec<Value>>, found: &mut Found) {
    let (mut reasons, mut notes, mut keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (phase, attempts) in attempts {
        let numbers: Vec<_> = attempts.iter().filter_map(|attempt| attempt["attempt"].as_u64()).collect();
        let count = u64::try_from(numbers.len()).expect("few");
        found.require(numbers == (1..=count).collect::<Vec<_>>(), || {
            format!("attempts at {phase} of {id}: {numbers:?}")
        });
        for attempt in attempts {
            let note = attempt["note"].as_str().and_then(|note| note.rsplit_once(": "));
            if let Some((_, reason)) = note {
                *notes.entry((*phase, reason)).or_insert(0) += 1;
            }
            match attempt["trigger"].as_str().expect("a trigger") {
                "automatic" => {}
                "user" => {
                    let reason = attempt["reason"].as_str().expect("each was given one");
                    reasons.entry(reason).or_insert_with(Vec::new).push((*phase, attempt["attempt"].as_u64()));
                }
                // What a key asked for directly; a phase further down may run again because of one above.
                _ if *phase == "spellcheck" => {
                    if let Some(key) = attempt["idempotency_key"].as_str() {
                        *keys.entry(key).or_insert(0) += 1;
                    }
                }
                _ => {}
            }
        }
    }
    for (reason, retry) in &known.retries {
        let of_reason = reasons.get(reason.as_str()).map_or(&[][..], Vec::as_slice);
        let what = || format!("{reason} of {} of batch {id} ({:?})", retry.phase, retry.fate);
        found.count(retry.fate, of_reason.len(), what);
        if let (Some(number), Some(attempt)) = (retry.attempt, of_reason.first()) {
            let is_same = *attempt == (retry.phase, Some(number));
            found.require(is_same, || format!("attempt {number}, {}: it is {attempt:?}", what()));
        }
    }
    for (reason, attempts) in &reasons {
        let of_job = user.job_reasons.contains(*reason);
        found.forbid(of_job && attempts.len() > 1, || format!("{reason} of batch {id}: {attempts:?}"));
        let is_known = of_job || known.retries.contains_key(*reason);
        found.forbid(!is_known, || format!("{reason} of batch {id}, which nobody asked for"));
    }
    for (reason, fate) in &known.cancels {
        // A phase that waited and had no attempt yet leaves no note; that the batch has moved is on its version.
        let phases = notes.iter().filter(|((_, note), _)| note == reason);
        let most = phases.map(|(_, count)| *count).max().unwrap_or(0);
        let is_wrong = most > 1 || (most > 0 && *fate == Fate::Refused);
        found.forbid(is_wrong, || format!("{reason} of batch {id} ({fate:?}): {most} times"));
    }
    for (key, count) in keys {
        found.forbid(count > 1, || format!("the pipeline of {key} of batch {id}: {count} times"));
    }
}

async fn compare_user(client: &Client, user: &User, found: &mut Found) {
    let listed = pages(client, "/v1/batches", "batches", "next_cursor", "cursor").await;
    let ids: BTreeSet<&str> = listed.iter().filter_map(|batch| batch["batch_id"].as_str()).collect();
    for id in &user.batches {
        found.require(ids.contains(id.as_str()), || format!("batch {id} in the listing"));
    }
    let least = u64::try_from(user.batches.len()).expect("few");
    let count = u64::try_from(listed.len()).expect("few");
    let most = least + user.batches_perhaps;
    found.forbid(count > most, || format!("{count} batches of one user instead of {most}"));

    let jobs = pages(client, "/v1/retry-jobs", "jobs", "next_cursor", "cursor").await;
    let by_id: BTreeMap<&str, &Value> = jobs.iter().filter_map(|job| Some((job["job_id"].as_str()?, job))).collect();
    for (id, known) in &user.jobs {
        let what = || format!("retry job {id}, {}", known.reason);
        let Some(job) = by_id.get(id.as_str()) else {
            found.lost.push(what());
            continue;
        };
        found.require(job["total"] == known.total && job["reason"] == *known.reason, what);
        found.require(!known.is_stopped || job["status"] != "running", || format!("that {} was stopped", what()));
    }
    let most = u64::try_from(user.jobs.len()).expect("few") + user.jobs_perhaps;
    let count = u64::try_from(jobs.len()).expect("few");
    found.forbid(count > most, || format!("{count} retry jobs of one user instead of {most}"));
}

async fn compare_letters(client: &Client, decisions: &[Decision], found: &mut Found) {
    let letters: BTreeSet<&String> = decisions.iter().map(|decision| &decision.letter).collect();
    let mut histories = BTreeMap::new();
    for letter in letters {
        let answer = client.get(&format!("/internal/v1/dead-letters/{letter}")).await;
        if answer.status != 200 {
            found.lost.push(format!("dead letter {letter}: {}", answer.text));
            continue;
        }
        let history = answer.json()["history"].as_array().expect("a list").clone();
        histories.insert(letter, history);
    }
    for Decision { letter, by, verb, fate } in decisions {
        let Some(history) = histories.get(letter).filter(|history| history.len() < LETTER_HISTORY) else { continue };
        let times = history.iter().filter(|event| event["by"] == **by).count();
        found.count(*fate, times, || format!("{verb} of dead letter {letter} by {by}"));
    }
}

/// Waits until no bulk retry runs and no batch is being processed.
pub async fn rest(client: &Client, record: &Record, patience: Duration) {
    let began = Instant::now();
    for name in record.users.keys() {
        let client = client.as_user(name);
        loop {
            let jobs = pages(&client, "/v1/retry-jobs", "jobs", "next_cursor", "cursor").await;
            let running: Vec<_> = jobs.iter().filter(|job| job["status"] == "running").collect();
            let listed = pages(&client, "/v1/batches", "batches", "next_cursor", "cursor").await;
            let busy: Vec<_> = listed.iter().filter(|batch| batch["status"] == "processing").collect();
            if running.is_empty() && busy.is_empty() {
                break;
            }
            assert!(began.elapsed() < patience, "it does not come to rest: {running:#?} {busy:#?}");
            tokio::task::yield_now().await;
        }
    }
}
