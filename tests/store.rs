//! The store: one atomic commit, durable before it is answered, and many of them in one flush.

use std::future::Future as _;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Waker};

use rephase::contract::idempotency::Key;
use rephase::contract::requests::{BatchRegistrationRequest, PromptPayload};
use rephase::contract::{BatchStatus, EssayRef, Group, Headers, Message, Topic};
use rephase::domain::step::{NewEssay, PhaseOutcome, Registration, RetryRequest, Selection};
use rephase::domain::{
    Attempt, Batch, BatchId, Context, Effect, Funds, Input, Millis, Origin, Phase, RetryPolicy, Rules, Step, Timer,
    TimerKind, step,
};
use rephase::store::{self, Commit, Options, Published, Store};
use serde_json::json;
use uuid::Uuid;

fn open(directory: &Path) -> Result<Store, store::Error> {
    Store::open(&Options::new(directory), Box::new(|_| ()))
}

fn message(body: &'static str) -> Message {
    let headers = Headers { event_id: Uuid::new_v5(&Uuid::nil(), body.as_bytes()), trace_id: Uuid::nil() };
    Message { topic: Topic::ElsBatchPhaseOutcome, key: "batch".into(), headers: Some(headers), body: body.into() }
}

fn publish(body: &'static str) -> Commit {
    let mut commit = Commit::new();
    commit.publish(message(body)).expect("it can be encoded");
    commit
}

fn outbox(store: &Store) -> Vec<(u64, String)> {
    let entries = store.outbox(Group::Orchestrator, 0, u64::MAX, 100).expect("readable");
    entries.into_iter().map(|entry| (entry.sequence, String::from_utf8_lossy(&entry.message.body).into())).collect()
}

/// A batch of three essays, every part of its record in use, with the effects of the steps that made it.
fn history() -> (Vec<Batch>, Vec<Effect>) {
    let id = BatchId(Uuid::from_u128(7));
    let never = Rules { retry: std::array::from_fn(|_| RetryPolicy::never()), ..Rules::default() };
    let by_itself = Rules::default();
    let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let origin = Arc::new(Origin { idempotency_key: Some("k".to_owned()), traceparent });
    let mut now = Millis(1_772_440_200_000);
    let request = json!({ "expected_essay_count": 3, "course_code": "SV2", "user_id": "t", "org_id": "o",
        "cj_default_temperature": 0.5, "cj_default_llm_model": "m", "assignment_id": "a",
        "student_prompt_ref": { "references": { "student_prompt_text": { "storage_id": "p" } } } });
    let request: BatchRegistrationRequest = serde_json::from_value(request).expect("a registration");
    let registration = Registration::new(id, request, now).expect("valid");
    let (mut batches, mut effects): (Vec<Batch>, Vec<Effect>) = (Vec::new(), Vec::new());
    let mut apply = |batches: &mut Vec<Batch>, input: Input| {
        now = now.plus(1_500);
        // Only the last attempt is to be tried again by itself.
        let rules = if batches.len() < 7 { &never } else { &by_itself };
        let (correlation_id, funds) = (Uuid::from_u128(u128::from(now.0)), Funds::Unlimited);
        let context = Context { now, up_since: now, correlation_id, origin: &origin, rules, funds };
        let Step { batch, effects: mut more } = step(batches.last(), input, &context).expect("allowed");
        effects.append(&mut more);
        batches.push(batch);
    };
    apply(&mut batches, Input::Register(Box::new(registration)));
    let essay = |slot: u32| NewEssay { file_name: format!("{slot}.txt"), text_storage_id: format!("text-{slot}") };
    apply(&mut batches, Input::ProvideEssays { by: "t".into(), essays: (0..3).map(essay).collect() });
    let prompt: PromptPayload = serde_json::from_value(json!({ "assignment_id": "b" })).expect("a prompt");
    let pipeline = Input::RequestPipeline { by: "t".into(), last: Phase::AiFeedback, prompt: Some(prompt) };
    apply(&mut batches, pipeline);
    let outcome = |batch: &Batch, phase, survivors: usize| {
        let essay = |slot: usize| EssayRef {
            essay_id: batch.essays[slot].id.clone(),
            text_storage_id: format!("{phase}-{slot}"),
            spellcheck_metrics: Some(json!({ "corrections": slot, "nested": [null, 1.5] })),
        };
        Input::PhaseOutcome(PhaseOutcome {
            phase,
            status: BatchStatus::CompletedWithFailures,
            processed: (0..survivors).map(essay).collect(),
            attempt: None,
            correlation_id: None,
            error: None,
            retry_after_ms: None,
            essay_errors: std::collections::BTreeMap::new(),
        })
    };
    let last = |batches: &Vec<Batch>| batches.last().expect("a record").clone();
    let input = outcome(&last(&batches), Phase::Spellcheck, 2);
    apply(&mut batches, input);
    apply(&mut batches, Input::PhaseStarted { phase: Phase::Nlp, attempt: 1 });
    let input = outcome(&last(&batches), Phase::Nlp, 0);
    apply(&mut batches, input);
    let selection = Selection::Essays(vec![last(&batches).essays[1].id.clone()]);
    let retry =
        RetryRequest { selection, downstream: true, ..RetryRequest::whole("t".into(), Phase::Nlp, "å".into()) };
    apply(&mut batches, Input::RetryPhase(retry));
    let input = outcome(&last(&batches), Phase::Nlp, 0);
    apply(&mut batches, input);
    (batches, effects)
}

#[test]
fn a_record_comes_back_as_it_was_though_only_its_changed_parts_are_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let (batches, _) = history();
    let mut old: Option<&Batch> = None;
    for batch in &batches {
        let store = open(directory.path()).expect("it opens");
        let mut commit = Commit::new();
        commit.put_batch(old, batch).expect("it can be encoded");
        store.commit_blocking(commit).expect("committed");
        drop(store);
        let store = open(directory.path()).expect("it opens again");
        assert_eq!(store.batch(batch.id).expect("readable").as_ref(), Some(batch));
        old = Some(batch);
    }
    let store = open(directory.path()).expect("it opens");
    assert_eq!(store.batch(BatchId(Uuid::nil())).expect("readable"), None);
}

#[test]
fn everything_of_a_commit_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (batches, effects) = history();
    let batch = batches.last().expect("a record");
    let timer = Timer { kind: TimerKind::Retry, due: Millis(77), phase: Phase::Nlp, attempt: 2 };
    let key = Key::of("batch-service", &message("handled"));
    let text = "å".repeat(10_000);
    let store = open(directory.path()).expect("it opens");
    store.commit_blocking(publish("used up")).expect("committed");

    let mut commit = publish("told");
    commit.put_batch(None, batch).expect("encoded");
    for effect in effects {
        if let Effect::RecordAttempt { phase, attempt } = effect {
            commit.record_attempt(batch.id, phase, &attempt).expect("encoded");
        }
    }
    commit.arm_timer(batch.id, timer);
    commit.complete_key(Group::Orchestrator, &key, Millis(99));
    commit.consume(Group::Orchestrator, 0);
    commit.put_content(&text);
    store.commit_blocking(commit).expect("committed");
    drop(store);

    let store = open(directory.path()).expect("it opens again");
    assert_eq!(store.batch(batch.id).expect("readable").as_ref(), Some(batch));
    assert_eq!(outbox(&store), [(1, "told".to_owned())], "the consumed message is gone, the new one there");
    let timers = store.timers(10).expect("readable");
    assert_eq!(timers.iter().map(|entry| (entry.batch, entry.timer)).collect::<Vec<_>>(), [(batch.id, timer)]);
    assert_eq!(store.key_expiry(Group::Orchestrator, &key).expect("readable"), Some(Millis(99)));
    assert_eq!(store.key_expiry(Group::Nlp, &key).expect("readable"), None, "a key belongs to one group");
    let hash = <[u8; 32]>::try_from(hex::decode(rephase::engine::content_id(&text)).expect("hex")).expect("32 bytes");
    assert_eq!(store.content(&hash).expect("readable"), Some(text));
    let attempts = store.attempts_from(batch, Phase::Nlp, 0, 10).expect("readable");
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.newest_attempts(batch, Phase::Spellcheck, 10).expect("readable").len(), 1);

    // Whoever has a record of before sees no attempt that has ended since: it may be open in that one.
    let by_then = |batch: &Batch| {
        let oldest_first = store.attempts_from(batch, Phase::Nlp, 0, 10).expect("readable");
        let mut numbers: Vec<_> = oldest_first.iter().map(|attempt| attempt.number).collect();
        let newest_first = store.newest_attempts(batch, Phase::Nlp, 10).expect("readable");
        assert!(newest_first.iter().rev().map(|attempt| attempt.number).eq(numbers.iter().copied()));
        numbers.extend(batch.phase_state(Phase::Nlp).and_then(|state| Some(state.open_attempt()?.number)));
        numbers
    };
    let counts: Vec<_> = batches.iter().map(by_then).collect();
    assert!(counts.iter().all(|numbers| numbers.is_empty() || *numbers == [1] || *numbers == [1, 2]), "{counts:?}");
    assert_eq!((counts.first(), counts.last()), (Some(&vec![]), Some(&vec![1, 2])));
}

/// A record whose nlp has had so many attempts, none of them open, and such an attempt.
fn with_attempts(count: u32) -> (Batch, Attempt) {
    let (mut batches, effects) = history();
    let mut batch = batches.pop().expect("a record");
    let nlp = batch.phases[Phase::Nlp.index()].as_mut().expect("it was asked for");
    assert_eq!(nlp.attempts, nlp.ended_attempts(), "none is open");
    nlp.attempts = count;
    let attempt = effects.into_iter().find_map(|effect| match effect {
        Effect::RecordAttempt { phase: Phase::Nlp, attempt } => Some(attempt),
        _ => None,
    });
    (batch, Attempt::clone(&attempt.expect("it had attempts")))
}

fn record(commit: &mut Commit, batch: &Batch, attempt: &Attempt) {
    commit.record_attempt(batch.id, Phase::Nlp, attempt).expect("encoded");
}

/// Each in a commit of its own.
fn record_some(store: &Store, (batch, attempt): (&Batch, &Attempt), some: RangeInclusive<u32>) {
    for number in some {
        let mut commit = Commit::new();
        record(&mut commit, batch, &Attempt { number, ..attempt.clone() });
        store.commit_blocking(commit).expect("committed");
    }
}

fn numbers(attempts: Result<Vec<Attempt>, store::Error>) -> Vec<u32> {
    attempts.expect("readable").iter().map(|attempt| attempt.number).collect()
}

/// All that is asked for, from whichever end.
fn reads_whole(store: &Store, batch: &Batch, count: u32) {
    let nlp = Phase::Nlp;
    assert_eq!(numbers(store.attempts_from(batch, nlp, 0, 200)), (1..=count).collect::<Vec<_>>());
    assert_eq!(numbers(store.newest_attempts(batch, nlp, 200)), (1..=count).rev().collect::<Vec<_>>());
    for first in 1..=count {
        let some: Vec<_> = (first..=count).take(9).collect();
        assert_eq!(numbers(store.attempts_from(batch, nlp, first, 9)), some);
        let mut before = batch.clone();
        before.phases[nlp.index()].as_mut().expect("it is there").attempts = first;
        let some: Vec<_> = (1..=first).rev().take(9).collect();
        assert_eq!(numbers(store.newest_attempts(&before, nlp, 9)), some);
        assert_eq!(numbers(store.attempts_from(&before, nlp, first + 1, 9)), [0; 0], "they had not ended by then");
    }
}

/// How many keys the attempts of a store have that nobody has open: beside their batch, and volumes.
fn attempt_keys(directory: &Path) -> (usize, usize) {
    let tree = sled::open(directory.join("store")).expect("it opens").open_tree("rephase").expect("a tree");
    (tree.scan_prefix(b"b").count(), tree.scan_prefix(b"A").count())
}

/// Whoever reads a ledger while it grows finds all that had ended by the time of the record that it has.
#[test]
fn a_ledger_that_grows_reads_whole() {
    const COUNT: u32 = 150;
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let (batch, attempt) = with_attempts(COUNT);
    let by = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let growing = scope.spawn(|| {
            // One or some at once, over the bounds of what shares a value.
            let mut next = 1;
            for some in [1, 2, 7, 1, 5].into_iter().cycle().take_while(|_| by.load(Ordering::Acquire) < COUNT) {
                let mut commit = Commit::new();
                let end = (next + some).min(COUNT + 1);
                (next..end).for_each(|number| record(&mut commit, &batch, &Attempt { number, ..attempt.clone() }));
                store.commit_blocking(commit).expect("committed");
                next = end;
                by.store(end - 1, Ordering::Release);
            }
        });
        while !growing.is_finished() {
            let count = by.load(Ordering::Acquire);
            let mut batch = batch.clone();
            batch.phases[Phase::Nlp.index()].as_mut().expect("it is there").attempts = count;
            reads_whole(&store, &batch, count);
        }
    });
    drop(store);
    reads_whole(&open(directory.path()).expect("it opens again"), &batch, COUNT);
    assert_eq!(attempt_keys(directory.path()), (3, 2), "twice eight, and six; and what is older, 64 by 64");
}

#[test]
fn an_attempt_that_does_not_fit_has_a_key_of_its_own_and_those_behind_it_up_to_the_next_eight() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let (batch, attempt) = with_attempts(80);
    for number in 1..=80 {
        let mut commit = Commit::new();
        // The first of eight, one in the middle, and two that fit alone but not together.
        let length = match number {
            1 | 13 => 10_000,
            20 | 21 => 2_500,
            _ => 1,
        };
        let reason = Some("r".repeat(length));
        record(&mut commit, &batch, &Attempt { number, reason: reason.clone(), ..attempt.clone() });
        store.commit_blocking(commit).expect("committed");
        let read = store.attempts_from(&batch, Phase::Nlp, number, 1).expect("readable").pop().expect("it is there");
        assert_eq!((read.number, read.reason), (number, reason));
    }
    reads_whole(&store, &batch, 80);
    drop(store);
    // From the fourth on eights are put away, without those before them; the last two are too new.
    assert_eq!(attempt_keys(directory.path()), (8 + (1 + 4) + (1 + 4) + 2, 1));
}

/// What says little that is new takes little room, and what takes much is put away all the same.
#[test]
fn eights_that_do_not_fit_into_one_volume_are_in_several() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let (batch, attempt) = with_attempts(137);
    // Nothing of these is said twice.
    let mut digits = 0_u64;
    for number in 1..=137 {
        let mut commit = Commit::new();
        let reason = std::iter::repeat_with(|| {
            digits = digits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{digits:016x}")
        });
        let reason = if (65..=128).contains(&number) { None } else { Some(reason.take(15).collect()) };
        record(&mut commit, &batch, &Attempt { number, reason: reason.clone(), ..attempt.clone() });
        store.commit_blocking(commit).expect("committed");
        let read = store.attempts_from(&batch, Phase::Nlp, number, 1).expect("readable").pop().expect("it is there");
        assert_eq!((read.number, read.reason), (number, reason));
    }
    reads_whole(&store, &batch, 137);
    drop(store);
    assert_eq!(attempt_keys(directory.path()), (2, 4 + 1));
}

#[test]
fn a_volume_that_is_damaged_is_told_and_stops_no_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let (batch, attempt) = with_attempts(150);
    let store = open(directory.path()).expect("it opens");
    record_some(&store, (&batch, &attempt), 1..=80);
    drop(store);
    let whole = {
        let tree = sled::open(directory.path().join("store")).expect("it opens").open_tree("rephase").expect("a tree");
        tree.scan_prefix(b"A").next().expect("a volume").expect("readable")
    };
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut value = whole.1.to_vec();
        change(&mut value);
        value
    };
    let damages = [
        Vec::new(),
        vec![1],
        b"\x09\x04future".to_vec(),
        changed(&|value| value[1] = 0xff),
        changed(&|value| value[4] = value[4].wrapping_add(1)),
        changed(&|value| value[4] = value[4].wrapping_sub(1)),
        changed(&|value| value[5] ^= 1),
        // Whole, and yet nothing that was put away: an eight that is cut short, and one that is none.
        [&[1, 0, 0, 0, 2, 0x20, 0, 9][..]].concat(),
        [&[1, 0, 0, 0, 3, 0x30, 0, 1, 2][..]].concat(),
        changed(&|value| value.truncate(value.len() - 1)),
        changed(&|value| value.push(0)),
    ];
    for damage in damages {
        let tree = sled::open(directory.path().join("store")).expect("it opens").open_tree("rephase").expect("a tree");
        tree.insert(&whole.0, damage.as_slice()).expect("written");
        tree.flush().expect("flushed");
        drop(tree);
        let store = open(directory.path()).expect("it opens");
        let read = store.attempts_from(&batch, Phase::Nlp, 1, 100);
        assert!(matches!(read, Err(store::Error::Corrupt(_))), "{damage:?} {read:?}");
        let mut by_then = batch.clone();
        by_then.phases[Phase::Nlp.index()].as_mut().expect("it is there").attempts = 80;
        let newest = numbers(store.newest_attempts(&by_then, Phase::Nlp, 8));
        assert!(newest.into_iter().eq((73..=80).rev()), "{damage:?}");
    }
    let store = open(directory.path()).expect("it opens");
    record_some(&store, (&batch, &attempt), 81..=150);
    assert_eq!(numbers(store.attempts_from(&batch, Phase::Nlp, 65, 200)), (65..=150).collect::<Vec<_>>());
}

/// What is put away meanwhile is neither missing in it nor there twice.
#[test]
fn a_backup_has_the_ledger_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let pair = with_attempts(90);
    let (batch, attempt) = (&pair.0, &pair.1);
    record_some(&store, (batch, attempt), 1..=71);
    let lines = |store: &Store, more: RangeInclusive<u32>| {
        let snapshot = store.snapshot().expect("the only one");
        record_some(store, (batch, attempt), more);
        let mut lines = Vec::new();
        let mut write = |line| {
            lines.push(line);
            true
        };
        store::backup(&snapshot, "now", &mut write).expect("it can be read");
        lines
    };
    let before = lines(&store, RangeInclusive::new(1, 0));
    assert_eq!(before.len(), 1 + 71 + 1);
    assert_eq!(lines(&store, 72..=90), before);
    reads_whole(&store, batch, 90);
}

#[test]
fn a_batch_that_goes_takes_all_its_attempts_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let (batch, attempt) = with_attempts(150);
    record_some(&store, (&batch, &attempt), 1..=150);
    let mut removal = Commit::new();
    store.remove_batch(&mut removal, &batch).expect("readable");
    store.commit_blocking(removal).expect("committed");
    assert_eq!(numbers(store.attempts_from(&batch, Phase::Nlp, 0, 200)), [0; 0]);
    drop(store);
    assert_eq!(attempt_keys(directory.path()), (0, 0));
}

#[test]
fn an_attempt_that_is_missing_is_not_made_up_for_and_stops_no_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let (batch, attempt) = with_attempts(24);
    let mut commit = Commit::new();
    for number in (1..=24).filter(|number| ![3, 9].contains(number)) {
        record(&mut commit, &batch, &Attempt { number, ..attempt.clone() });
    }
    store.commit_blocking(commit).expect("committed");
    let there: Vec<_> = (1..=24).filter(|number| ![3, 9].contains(number)).collect();
    assert_eq!(numbers(store.attempts_from(&batch, Phase::Nlp, 1, 30)), there);
    assert_eq!(numbers(store.newest_attempts(&batch, Phase::Nlp, 4)), [24, 23, 22, 21]);
}

#[test]
fn what_is_damaged_stops_no_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let (batch, attempt) = with_attempts(17);
    for (number, damage) in [(1, &b"\x01damaged"[..]), (2, b"\x02"), (3, b""), (4, b"\x09\x03future")] {
        let store = open(directory.path()).expect("it opens");
        let mut commit = Commit::new();
        record(&mut commit, &batch, &Attempt { number, ..attempt.clone() });
        store.commit_blocking(commit).expect("committed");
        drop(store);
        let tree = sled::open(directory.path().join("store")).expect("it opens").open_tree("rephase").expect("a tree");
        let (key, _) = tree.scan_prefix(b"b").next().expect("it is there").expect("readable");
        tree.insert(key, damage).expect("written");
        tree.flush().expect("flushed");
    }
    let store = open(directory.path()).expect("it opens");
    for number in 5..=17 {
        let mut commit = Commit::new();
        record(&mut commit, &batch, &Attempt { number, ..attempt.clone() });
        store.commit_blocking(commit).expect("committed");
    }
    assert_eq!(numbers(store.attempts_from(&batch, Phase::Nlp, 9, 30)), (9..=17).collect::<Vec<_>>());
    assert!(matches!(store.attempts_from(&batch, Phase::Nlp, 1, 30), Err(store::Error::Corrupt(_))));
}

#[test]
fn counts_that_are_damaged_are_counted_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let (batches, _) = history();
    let store = open(directory.path()).expect("it opens");
    let mut commit = Commit::new();
    commit.put_batch(None, batches.last().expect("a record")).expect("encoded");
    store.commit_blocking(commit).expect("committed");
    let standings = store.standings().expect("readable");
    assert_eq!(standings.batches.iter().map(|(_, count)| count).sum::<u64>(), 1);
    drop(store);
    {
        let tree = sled::open(directory.path().join("store")).expect("it opens").open_tree("rephase").expect("a tree");
        tree.insert(b"C", b"\x01damaged").expect("written").expect("it was there");
        tree.flush().expect("flushed");
    }
    for _ in 0..2 {
        let store = open(directory.path()).expect("it opens all the same");
        assert_eq!(store.standings().expect("readable"), standings);
    }
}

/// A store whose committer stops before it answers its first commit, until it is told to go on.
fn paused(directory: &Path) -> (Store, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (reached, at_feed) = mpsc::channel();
    let (go_on, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let feed = move |_: Vec<Published>| {
        reached.send(()).expect("the test waits");
        // Once the test has dropped its end nothing is held back any more.
        let _ = gate.lock().expect("one committer").recv();
    };
    (Store::open(&Options::new(directory), Box::new(feed)).expect("it opens"), at_feed, go_on)
}

#[test]
fn commits_that_come_together_share_one_flush_and_are_told_before_they_are_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, at_feed, go_on) = paused(directory.path());
    let before = store.flushes();
    let mut waiting: Vec<_> = (0..101).map(|_| Box::pin(store.commit(publish("together")))).collect();
    let mut context = TaskContext::from_waker(Waker::noop());
    assert!(waiting[0].as_mut().poll(&mut context).is_pending());
    at_feed.recv().expect("the first commit is durable");
    for commit in &mut waiting {
        assert!(commit.as_mut().poll(&mut context).is_pending(), "answered before the feed had heard of it");
    }
    go_on.send(()).expect("the committer waits");
    at_feed.recv().expect("the others are durable");
    drop(go_on);
    for mut commit in waiting {
        while commit.as_mut().poll(&mut context).is_pending() {
            std::thread::yield_now();
        }
    }
    assert_eq!(store.flushes() - before, 2, "one flush for the first commit, one for the hundred behind it");
    assert_eq!(outbox(&store).iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_feed_hears_of_a_message_only_after_it_was_flushed() {
    let directory = tempfile::tempdir().expect("a directory");
    let copies = tempfile::tempdir().expect("a directory");
    let (from, to) = (directory.path().to_owned(), copies.path().to_owned());
    let feed = move |_: Vec<Published>| {
        for (room, name) in [("store", "conf"), ("store", "db"), ("journal", "0000000000000000")] {
            std::fs::create_dir_all(to.join(room)).expect("a directory");
            std::fs::copy(from.join(room).join(name), to.join(room).join(name)).expect("copied");
        }
    };
    let store = Store::open(&Options::new(directory.path()), Box::new(feed)).expect("it opens");
    store.commit_blocking(publish("flushed")).expect("committed");
    // What lay in the files when the feed was called, and nothing of what was only in memory.
    let copy = open(copies.path()).expect("the copy opens");
    assert_eq!(outbox(&copy), [(0, "flushed".to_owned())]);
}

#[test]
fn timers_come_in_the_order_in_which_they_are_due() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let batch = BatchId(Uuid::from_u128(1));
    let mut commit = Commit::new();
    for due in [300, 5, 70_000, 256] {
        commit.arm_timer(batch, Timer { kind: TimerKind::Deadline, due: Millis(due), phase: Phase::Nlp, attempt: 1 });
    }
    commit.disarm_timer(batch, Timer { kind: TimerKind::Deadline, due: Millis(300), phase: Phase::Nlp, attempt: 1 });
    store.commit_blocking(commit).expect("committed");
    let due: Vec<_> = store.timers(2).expect("readable").iter().map(|entry| entry.timer.due.0).collect();
    assert_eq!(due, [5, 256]);
}

#[test]
fn expired_keys_are_found_by_their_expiry_and_a_renewed_key_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let keys: Vec<_> =
        (0..3_u8).map(|n| Key { service: "batch-service", topic: Topic::PipelineDenied, hash: [n; 32] }).collect();
    let mut commit = Commit::new();
    for (key, expires) in keys.iter().zip([10, 20, 30]) {
        commit.complete_key(Group::Orchestrator, key, Millis(expires));
    }
    store.commit_blocking(commit).expect("committed");
    assert_eq!(store.expired_keys(Millis(9), 10).expect("readable").len(), 0);
    assert_eq!(store.expired_keys(Millis(30), 2).expect("readable").len(), 2, "no more than was asked for");

    let expired = store.expired_keys(Millis(20), 10).expect("readable");
    assert_eq!(expired.len(), 2);
    let mut sweep = Commit::new();
    for key in expired {
        sweep.remove_expired(key);
    }
    let mut renewal = Commit::new();
    renewal.complete_key(Group::Orchestrator, &keys[1], Millis(40));
    store.commit_blocking(renewal).expect("committed");
    store.commit_blocking(sweep).expect("committed");
    let expiries: Vec<_> =
        keys.iter().map(|key| store.key_expiry(Group::Orchestrator, key).expect("readable").map(|at| at.0)).collect();
    assert_eq!(expiries, [None, Some(40), Some(30)]);
    assert_eq!(store.expired_keys(Millis(99), 10).expect("readable").len(), 2, "index and keys agree");
}

#[test]
fn a_directory_that_is_not_fit_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("it opens");
    let error = open(directory.path()).err().expect("somebody has it open");
    let said = error.to_string();
    assert!(matches!(error, store::Error::InUse { .. }), "{said}");
    assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
    drop(store);

    let write_format = |change: fn(u32) -> u32| {
        // The store's threads end a little later than the store.
        let mut tries = std::iter::repeat_with(|| sled::open(directory.path().join("store"))).take(1_000_000);
        let database = tries.find_map(Result::ok).expect("it opens");
        let tree = database.open_tree("rephase").expect("a tree");
        let written = tree.get(b"f").expect("read").expect("a format");
        let format = change(u32::from_be_bytes(written.as_ref().try_into().expect("a number")));
        tree.insert(b"f", &format.to_be_bytes()).expect("written");
        tree.flush().expect("flushed");
        format
    };
    let newer = write_format(|ours| ours + 1);
    assert!(matches!(
        open(directory.path()),
        Err(store::Error::NewerFormat { found, known }) if found == newer && known + 1 == newer
    ));
    write_format(|newer| newer - 1);
    assert!(open(directory.path()).is_ok());

    let foreign = tempfile::tempdir().expect("a directory");
    std::fs::write(foreign.path().join("store"), "not a directory").expect("written");
    let said = open(foreign.path()).err().expect("not a store").to_string();
    assert!(said.contains("cannot be opened") && said.contains("backup"), "{said}");
    assert_eq!(std::fs::read_to_string(foreign.path().join("store")).expect("still there"), "not a directory");
}

#[test]
fn parts_of_a_record_that_did_not_change_are_shared() {
    let (batches, _) = history();
    let [.., before, after] = &batches[..] else { panic!("there are several records") };
    assert!(Arc::ptr_eq(&before.essays, &after.essays));
    assert!(Arc::ptr_eq(&before.details, &after.details));
    let results = |batch: &Batch, phase| Arc::clone(&batch.phase(phase).expect("a record").results);
    assert!(Arc::ptr_eq(&results(before, Phase::Spellcheck), &results(after, Phase::Spellcheck)));
}
