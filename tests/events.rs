//! The promise "an event is published once, and whoever reads misses none unsaid": the event gateway.

mod common;
mod harness;
#[path = "events/reader.rs"]
mod reader;

use std::collections::{BTreeSet, HashMap};

use common::fixtures;
use harness::{Client, PATIENCE, Process, Server, Setup, kept, outcome_message, phase_status, verify};
use reader::{Reader, SOON, Seen, ids, notification, post, post_many, until};
use rephase::app::{self, Limits};
use rephase::domain::{EventGroup, EventId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

async fn server() -> Server {
    Server::start(Setup::default()).await
}

async fn group(client: &Client, name: &str) -> Value {
    let groups = client.get("/v1/events/groups").await.json();
    let found = groups["groups"].as_array().expect("a list").iter().find(|group| group["group"] == name).cloned();
    found.unwrap_or(Value::Null)
}

async fn acknowledge(client: &Client, group: &str, id: &str) {
    let answer = client.post(&format!("/v1/events/groups/{group}/ack"), json!({ "id": id })).await;
    assert_eq!((answer.status, &answer.json()["after"]), (200, &json!(id)), "{}", answer.text);
}

#[tokio::test]
async fn every_sample_of_the_contract_can_be_posted_and_is_read_as_it_was() {
    let server = server().await;
    let samples: Vec<_> = fixtures::folder("samples").into_values().filter(|it| it["event_id"].is_string()).collect();
    assert!(samples.len() > 10);
    for sample in &samples {
        let answer = server.client.post("/v1/events", sample.clone()).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let expected = json!({ "event_id": sample["event_id"], "topic": sample["event_type"], "duplicate": false });
        assert_eq!(answer.json(), expected);
    }
    let mut reader = Reader::open(&server.client, "?from=start").await;
    let seen = reader.take(samples.len()).await;
    for (seen, sample) in seen.iter().zip(&samples) {
        assert_eq!((&seen.event, &seen.data), (&sample["event_type"].as_str().expect("a name").to_owned(), sample));
    }
    let numbers: Vec<_> = seen.iter().map(Seen::number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

/// What is done to an envelope, and what has to be said about it.
type Spoiled = (fn(&mut Value), &'static str);

#[tokio::test]
async fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let server = server().await;
    let table: &[Spoiled] = &[
        (|it| it["event_id"] = Value::Null, "event_id"),
        (|it| it["event_id"] = json!("not a uuid"), "event_id"),
        (|it| it["event_id"] = json!(Uuid::nil()), "event_id"),
        (|it| _ = it.as_object_mut().expect("an object").remove("event_id"), "event_id"),
        (|it| it["event_type"] = json!("huleedu.unknown.v1"), "event_type"),
        (|it| it["event_type"] = json!(7), "event_type"),
        (|it| _ = it.as_object_mut().expect("an object").remove("event_type"), "event_type"),
        (|it| it["event_timestamp"] = json!("yesterday"), "event_timestamp"),
        (|it| it["schema_version"] = json!(2), "schema_version"),
        (|it| it["source_service"] = json!(" "), "source_service"),
        (|it| it["source_service"] = json!("x".repeat(256)), "source_service"),
        (|it| it["correlation_id"] = json!("x"), "correlation_id"),
        (|it| it["data_schema_uri"] = json!("x".repeat(2_001)), "data_schema_uri"),
        (|it| it["metadata"] = json!([]), "metadata"),
        (|it| it["data"] = Value::Null, "data"),
        (|it| it["data"]["batch_id"] = json!("batch-1"), "batch_id"),
        (|it| it["data"]["batch_id"] = json!("3f0e6f8a52a54a559d3c0d6a4f7f9b10"), "batch_id"),
        (|it| it["data"]["priority"] = json!("extreme"), "priority"),
        (|it| _ = it["data"].as_object_mut().expect("an object").remove("teacher_id"), "teacher_id"),
        // The data of another type.
        (|it| it["event_type"] = json!("huleedu.els.batch.phase.outcome.v1"), "phase_name"),
    ];
    for (number, (spoil, named)) in table.iter().enumerate() {
        let mut event = notification(Uuid::new_v4());
        spoil(&mut event);
        let answer = server.client.post("/v1/events", event).await;
        let body = answer.json();
        assert_eq!(answer.status, 400, "{number}: {}", answer.text);
        assert!(body["error"].as_str().is_some_and(|error| error.contains(named)), "{number}: {}", answer.text);
    }
    // A teacher that nobody can be, of a notification about no batch.
    let mut event = notification(Uuid::new_v4());
    event["data"]["batch_id"] = Value::Null;
    event["data"]["teacher_id"] = json!("x".repeat(256));
    assert_eq!(server.client.post("/v1/events", event).await.status, 400);
    // What the orchestrator would make a dead letter of.
    let outcome = outcome_message(&Uuid::new_v4().to_string(), "student_matching", 1);
    let outcome: Value = serde_json::from_slice(&outcome.body).expect("JSON");
    assert_eq!(server.client.post("/v1/events", outcome).await.status, 400);
    // A command that names no batch.
    let mut command = fixtures::json("samples/spellcheck_initiate_command.json");
    command["data"]["entity_id"] = Value::Null;
    assert_eq!(server.client.post("/v1/events", command).await.status, 400);

    let raw = |body: Vec<u8>| server.client.request(reqwest::Method::POST, "/v1/events").body(body);
    for (body, status) in [
        (b"".to_vec(), 400),
        (b"[]".to_vec(), 400),
        (b"{".to_vec(), 400),
        (b"{\"event_type\": \"\xff\"}".to_vec(), 400),
        ("[".repeat(100_000).into_bytes(), 400),
        (format!("{{\"event_type\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes(), 400),
        (vec![b' '; 600 * 1_024], 413),
    ] {
        assert_eq!(Client::send(raw(body)).await.status, status);
    }
    for path in [
        "/v1/events/stream?topics=",
        "/v1/events/stream?topics=huleedu.unknown.v1",
        "/v1/events/stream?batch_id=1",
        "/v1/events/stream?group=A",
        "/v1/events/stream?group=",
        "/v1/events/stream?last_event_id=1",
        "/v1/events/stream?last_event_id=",
        "/v1/events/stream?from=yesterday",
        "/v1/events/stream?from=start&from=now",
        "/v1/events/stream?unknown=1",
    ] {
        assert_eq!(server.client.get(path).await.status, 400, "{path}");
    }
    assert_eq!(server.client.get("/v1/events/groups").await.json()["groups"], json!([]));
    let id = post_many(&server.client, 1).await;
    let seen = Reader::open(&server.client, "?from=start").await.take(1).await;
    assert_eq!((ids(&seen), seen[0].number()), (vec![id[0].as_str()], 1), "nothing came before it");
}

#[tokio::test]
async fn an_event_that_is_posted_often_has_one_effect() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = || Setup { data: kept(directory.path()), latency_ms: 60_000..=60_000, ..Setup::default() };
    let server = Server::start(setup()).await;
    let batch = server.client.ready_batch(2).await;
    server.client.pipeline(&batch, "spellcheck").await;
    server.client.until_phase(&batch, "spellcheck", "in_progress").await;
    let outcome: Value = serde_json::from_slice(&outcome_message(&batch, "spellcheck", 1).body).expect("JSON");
    let lone = notification(Uuid::new_v4());
    for event in [&outcome, &lone] {
        let posts: Vec<_> = (0..8)
            .map(|_| {
                let (client, event) = (server.client.clone(), event.clone());
                tokio::spawn(async move { client.post("/v1/events", event).await })
            })
            .collect();
        let mut duplicates = 0;
        for post in posts {
            let answer = post.await.expect("it ends");
            assert_eq!(answer.status, 202, "{}", answer.text);
            duplicates += usize::from(answer.json()["duplicate"] == true);
        }
        assert_eq!(duplicates, 7);
    }
    let status = server.client.until_settled(&batch).await;
    assert_eq!(phase_status(&status, "spellcheck"), "failed");
    server.app.stop().await;

    // Not after a restart either; nor with other data, since an event is what its id says.
    let server = Server::start(setup()).await;
    let mut other = lone.clone();
    other["data"]["notification_type"] = json!("another");
    for event in [outcome.clone(), lone.clone(), other] {
        assert_eq!(server.client.post("/v1/events", event).await.json()["duplicate"], true);
    }
    let last = post_many(&server.client, 1).await;
    let mut reader = Reader::open(&server.client, "?from=start").await;
    let mut count = HashMap::new();
    loop {
        let seen = reader.next().await.expect("it goes on");
        *count.entry(seen.event_id().to_owned()).or_insert(0) += 1;
        if seen.event_id() == last[0] {
            break;
        }
    }
    for event in [outcome, lone] {
        assert_eq!(count[event["event_id"].as_str().expect("an id")], 1);
    }
    assert_eq!(server.client.attempts(&batch, "spellcheck").await.len(), 1);
    assert_eq!(server.client.get("/internal/v1/dead-letters").await.json()["dead_letters"], json!([]));
}

#[tokio::test]
async fn a_command_that_somebody_else_posts_reaches_no_worker() {
    let server = server().await;
    let batch = server.client.ready_batch(1).await;
    let mut command = fixtures::json("samples/spellcheck_initiate_command.json");
    command["data"]["entity_id"] = json!(batch);
    let mut reader = Reader::open(&server.client, &format!("?batch_id={batch}")).await;
    post(&server.client, command.clone()).await;
    server.client.pipeline(&batch, "spellcheck").await;
    server.client.until_settled(&batch).await;
    let mut outcomes = 0;
    loop {
        let seen = reader.next().await.expect("it goes on");
        outcomes += usize::from(seen.event == "huleedu.els.batch.phase.outcome.v1");
        if seen.event == "huleedu.batch.pipeline.completed.v1" {
            break;
        }
    }
    assert_eq!(outcomes, 1, "that of the pipeline, and none of the command");
}

#[tokio::test]
async fn the_log_has_the_order_of_the_commits() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(Setup { data: kept(directory.path()), ..Setup::default() }).await;
    let mut live = [Reader::open(&server.client, "").await, Reader::open(&server.client, "").await];
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (client, batch) = (server.client.clone(), Uuid::new_v4());
            tokio::spawn(async move {
                let mut sent = Vec::new();
                for _ in 0..25 {
                    sent.push(post(&client, notification(batch)).await);
                }
                sent
            })
        })
        .collect();
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.await.expect("it ends"));
    }
    let (one, other) = (live[0].take(200).await, live[1].take(200).await);
    assert_eq!(one, other);
    assert_eq!(one.iter().map(Seen::number).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    for sent in sent {
        // An event whose answer came before the next was sent lies before it.
        let order: Vec<_> = ids(&one).into_iter().filter(|id| sent.iter().any(|sent| sent == id)).collect();
        assert_eq!(order, sent);
    }
    drop(live);
    server.app.stop().await;
    let server = Server::start(Setup { data: kept(directory.path()), ..Setup::default() }).await;
    assert_eq!(Reader::open(&server.client, "?from=start").await.take(200).await, one, "and keeps it");
}

#[tokio::test]
async fn a_reader_that_comes_back_at_any_time_misses_nothing_and_sees_nothing_twice() {
    const COUNT: usize = 400;
    let server = server().await;
    let client = server.client.clone();
    let first = post_many(&client, 1).await;
    let sender = tokio::spawn({
        let client = client.clone();
        async move { post_many(&client, COUNT).await }
    });
    let mut random = fastrand::Rng::with_seed(7);
    let mut seen: Vec<Seen> = Vec::new();
    let mut connections = 0;
    while seen.len() <= COUNT {
        let last = seen.last().map(|seen| seen.id.clone());
        // The header, or the query of clients that cannot send one.
        let by_query = last.as_ref().filter(|_| random.bool()).map(|id| format!("?last_event_id={id}"));
        let mut reader = match (&by_query, &last) {
            (Some(query), _) => Reader::open(&client, query).await,
            (None, Some(last)) => Reader::resume(&client, "?from=start", Some(last)).await,
            (None, None) => Reader::open(&client, "?from=start").await,
        };
        connections += 1;
        let count = random.usize(1..40).min(COUNT + 1 - seen.len());
        seen.extend(reader.take(count).await);
    }
    let sent: Vec<_> = first.into_iter().chain(sender.await.expect("it ends")).collect();
    assert_eq!(ids(&seen), sent);
    assert!(connections > 10);
    // One that saw nothing yet knows its place all the same.
    let mut reader = Reader::open(&client, "").await;
    let place = reader.block().await.expect("where it begins");
    assert_eq!((place.event.as_str(), place.id.as_str()), ("", seen.last().expect("many").id.as_str()));
    drop(reader);
    let missed = post_many(&client, 1).await;
    let next = Reader::resume(&client, "", Some(&place.id)).await.take(1).await;
    assert_eq!(ids(&next), missed);
}

#[tokio::test]
async fn a_group_keeps_its_place_over_kill_9_and_only_an_acknowledgement_moves_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let process = Process::serve(&["--data-dir", data]);
    let mut reader = Reader::open(&process.client, "?group=reports").await;
    let sent = post_many(&process.client, 6).await;
    let seen = reader.take(6).await;
    assert_eq!(ids(&seen), sent);
    acknowledge(&process.client, "reports", &seen[2].id).await;
    process.kill();

    let process = Process::serve(&["--data-dir", data]);
    let known = group(&process.client, "reports").await;
    assert_eq!((&known["after"], &known["lag"], &known["connected"]), (&json!(seen[2].id), &json!(3), &json!(false)));
    // What was seen and not acknowledged comes again, to whoever says nothing.
    let again = Reader::open(&process.client, "?group=reports").await.take(3).await;
    assert_eq!(again, seen[3..]);
    // Who says what it has seen goes on there, and has acknowledged nothing by that.
    let rest = Reader::resume(&process.client, "?group=reports", Some(&seen[4].id)).await.take(1).await;
    assert_eq!(rest, seen[5..]);
    assert_eq!(group(&process.client, "reports").await["after"], json!(seen[2].id));
    // A place does not move back.
    let back = process.client.post("/v1/events/groups/reports/ack", json!({ "id": seen[0].id })).await;
    assert_eq!((back.status, &back.json()["after"]), (200, &json!(seen[2].id)));
    process.kill();
    verify(directory.path());

    // A group that acknowledged nothing was there from when it was made.
    let process = Process::serve(&["--data-dir", data]);
    drop(Reader::open(&process.client, "?group=new").await);
    process.kill();
    let process = Process::serve(&["--data-dir", data]);
    let sent = post_many(&process.client, 1).await;
    assert_eq!(ids(&Reader::open(&process.client, "?group=new").await.take(1).await), sent);
}

#[tokio::test]
async fn what_a_crash_leaves_between_the_files_and_the_journal_is_no_hole() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let serve = |retain: &str| Process::serve(&["--data-dir", data, "--retain-events", retain]);
    let process = serve("10");
    post_many(&process.client, 20).await;
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    // The first ones are in a file, the last ones in the journal, and those in between are too old.
    let process = serve("10");
    let sent = post_many(&process.client, 30).await;
    process.kill();
    verify(directory.path());
    // What has gone does not come back because more is retained.
    let process = serve("1000");
    assert_eq!(ids(&Reader::open(&process.client, "?from=start").await.take(10).await), sent[20..]);
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    verify(directory.path());
}

#[tokio::test]
async fn no_more_is_retained_than_was_said_and_what_is_missed_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = |retain_events| Setup { data: kept(directory.path()), retain_events, ..Setup::default() };
    let server = Server::start(setup(10)).await;
    let mut reader = Reader::open(&server.client, "?group=late&from=start").await;
    let first = post_many(&server.client, 1).await;
    let known = reader.take(1).await;
    assert_eq!(ids(&known), first);
    acknowledge(&server.client, "late", &known[0].id).await;
    drop(reader);
    let sent = post_many(&server.client, 1_100).await;
    assert_eq!(ids(&Reader::open(&server.client, "?from=start").await.take(10).await), sent[1_090..]);

    // The memory of a running server may have more than is retained.
    let resume = async |server: &Server, query: &str, last: Option<&str>| {
        let mut reader = Reader::resume(&server.client, query, last).await;
        let gap = reader.next().await.expect("something");
        let next = reader.next().await.expect("more");
        (gap, next)
    };
    server.app.stop().await;
    let checked = app::verify(directory.path(), &mut |said| panic!("{said}")).expect("it can be read");
    assert_eq!(checked.events, 10);
    let server = Server::start(setup(10)).await;
    for (query, last) in [("", Some(known[0].id.as_str())), ("?group=late", None)] {
        let (gap, next) = resume(&server, query, last).await;
        assert_eq!((gap.event.as_str(), gap.id.as_str()), ("gap", ""));
        assert_eq!((&gap.data["after"], &gap.data["missed"]), (&json!(known[0].id), &json!(1_090)));
        assert_eq!(next.event_id(), sent[1_090]);
        assert_eq!(gap.data["up_to"], json!(EventId { sequence: next.number() - 1, ..id(&next) }.to_string()));
    }
    // Of a log that this one is not, and of a future that there was not.
    let foreign = EventId { log: id(&known[0]).log ^ 1, sequence: 3 }.to_string();
    let future = EventId { sequence: 9_999, ..id(&known[0]) }.to_string();
    for (query, last) in [("", &foreign), ("", &future), ("?group=f", &foreign), ("?group=t", &future)] {
        let (gap, next) = resume(&server, query, Some(last)).await;
        assert_eq!((gap.event.as_str(), &gap.data["missed"]), ("gap", &Value::Null));
        assert_eq!(next.event_id(), sent[1_090]);
    }
    assert_eq!(group(&server.client, "f").await["after"], json!(foreign));
    assert_eq!(group(&server.client, "t").await["lag"], 10, "it has taken nothing");
    server.app.stop().await;

    // A bound that was lowered is reached a bite at a time.
    let server = Server::start(setup(3)).await;
    let last = post_many(&server.client, 1).await;
    assert_eq!(ids(&Reader::open(&server.client, "?from=start").await.take(3).await)[2], last[0]);
    server.app.stop().await;
    verify(directory.path());
}

fn id(seen: &Seen) -> EventId {
    seen.id.parse().expect("an id")
}

#[tokio::test]
async fn without_a_log_there_is_no_stream_and_a_later_log_is_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = |retain_events| Setup { data: kept(directory.path()), retain_events, ..Setup::default() };
    let server = Server::start(setup(5)).await;
    post_many(&server.client, 3).await;
    let before = Reader::open(&server.client, "?from=start").await.take(3).await;
    server.app.stop().await;

    let server = Server::start(setup(0)).await;
    assert_eq!(server.client.get("/v1/events/stream").await.status, 409);
    let resumed = format!("/v1/events/stream?group=a&last_event_id={}", before[0].id);
    for path in ["/v1/events/stream?group=a", "/v1/events/stream?group=a&from=start", &resumed] {
        assert_eq!(server.client.get(path).await.status, 409);
    }
    assert_eq!(server.client.get("/v1/events/groups").await.json(), json!({ "groups": [], "newest": null }));
    let unheard = server.client.post("/v1/events", notification(Uuid::new_v4())).await;
    assert_eq!(unheard.status, 409, "{}", unheard.text);
    // What is consumed here is taken all the same.
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, "spellcheck").await;
    server.client.until_settled(&batch).await;
    let outcome: Value = serde_json::from_slice(&outcome_message(&batch, "spellcheck", 9).body).expect("JSON");
    post(&server.client, outcome).await;
    server.app.stop().await;
    let checked = app::verify(directory.path(), &mut |said| panic!("{said}")).expect("it can be read");
    assert_eq!(checked.events, 0, "what was left of the log went");

    let server = Server::start(setup(5)).await;
    post_many(&server.client, 5).await;
    let mut reader = Reader::resume(&server.client, "", Some(&before[2].id)).await;
    let seen = reader.take(6).await;
    assert_eq!((seen[0].event.as_str(), seen[1].number()), ("gap", 1));
    assert_ne!(id(&seen[1]).log, id(&before[0]).log);
}

#[tokio::test]
async fn a_restored_store_numbers_anew_and_tells_whoever_knew_the_old_numbers() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(Setup { data: kept(directory.path()), ..Setup::default() }).await;
    let mut reader = Reader::open(&server.client, "?group=reports").await;
    post_many(&server.client, 3).await;
    let seen = reader.take(3).await;
    acknowledge(&server.client, "reports", &seen[1].id).await;
    drop(reader);
    server.app.stop().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (file, restored) = (elsewhere.path().join("backup.jsonl"), elsewhere.path().join("restored"));
    let mut text = Vec::new();
    let mut write = |mut line: Vec<u8>| {
        text.append(&mut line);
        true
    };
    app::backup(directory.path(), "2026-03-02T08:30:00Z", &mut write).expect("it can be read");
    std::fs::write(&file, &text).expect("written");
    let groups = String::from_utf8(text).expect("text").lines().filter(|line| line.contains("\"event_group\"")).count();
    assert_eq!(groups, 1);
    assert_eq!(app::restore(&restored, &file).expect("it is whole").checked.events, 0);
    verify(&restored);

    let server = Server::start(Setup { data: kept(&restored), ..Setup::default() }).await;
    let sent = post_many(&server.client, 3).await;
    for (query, last) in [("", Some(seen[0].id.as_str())), ("?group=reports", None)] {
        let seen = Reader::resume(&server.client, query, last).await.take(4).await;
        assert_eq!(seen[0].event, "gap");
        assert_eq!(ids(&seen[1..]), sent);
    }
    let known = group(&server.client, "reports").await;
    assert_eq!((&known["after"], &known["lag"]), (&json!(seen[1].id), &Value::Null));
    let old = server.client.post("/v1/events/groups/reports/ack", json!({ "id": seen[2].id })).await;
    assert_eq!(old.status, 409, "it is of another log");
    let mut reader = Reader::open(&server.client, "?from=start").await;
    acknowledge(&server.client, "reports", &reader.take(1).await[0].id).await;
}

/// A connection that asked for a stream and has read nothing yet.
async fn unread_stream(server: &Server) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(server.app.address()).await.expect("it accepts");
    stream.write_all(b"GET /v1/events/stream?from=start HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    stream
}

/// Some megabytes of events: more than fit between a server and a client.
async fn post_much(client: &Client) -> usize {
    let mut event = notification(Uuid::new_v4());
    event["data"]["payload"]["text"] = json!("x".repeat(400 * 1_024));
    for _ in 0..40 {
        event["event_id"] = json!(Uuid::new_v4());
        post(client, event.clone()).await;
    }
    40
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off_and_can_go_on() {
    let limits = Limits { unread: std::time::Duration::from_millis(300), streams: 1, ..Limits::default() };
    let server = Server::start(Setup { limits, ..Setup::default() }).await;
    let mut stream = unread_stream(&server).await;
    let count = post_much(&server.client).await;
    // It has the only place until it is cut off.
    until("the end of the stream", async || {
        let request = server.client.request(reqwest::Method::GET, "/v1/events/stream");
        request.send().await.expect("it answers").status() == 200
    })
    .await;
    let mut part = Vec::new();
    // It may end in a reset.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut part)).await;
    let _ = read.expect("the connection ends");
    let text = String::from_utf8_lossy(&part);
    let begun: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    // The newest may have been cut in its middle.
    let known: EventId = begun[begun.len() - 2].parse().expect("an id");
    let rest = count as u64 - known.sequence;
    assert!(rest > 0, "it was cut off before the end");
    let mut missed: Vec<Seen> = Vec::new();
    until("the rest", async || {
        // The place of the stream before may not be free yet; and where this test has no time to read, it is cut off
        // as well.
        let last = missed.last().map_or_else(|| known.to_string(), |seen| seen.id.clone());
        let path = format!("/v1/events/stream?last_event_id={last}");
        let response = server.client.request(reqwest::Method::GET, &path).send().await.expect("it answers");
        if response.status() == 200 {
            let mut reader = Reader::of(response);
            while missed.len() as u64 != rest
                && let Some(seen) = reader.next().await
            {
                missed.push(seen);
            }
        }
        missed.len() as u64 == rest
    })
    .await;
    let numbers: Vec<_> = missed.iter().map(Seen::number).collect();
    assert_eq!(numbers, (known.sequence + 1..=count as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn streams_end_with_the_server_whether_they_are_read_or_not() {
    let limits = Limits { unread: std::time::Duration::from_hours(1), ..Limits::default() };
    let server = Server::start(Setup { limits, ..Setup::default() }).await;
    let mut reader = Reader::open(&server.client, "?group=a").await;
    let mut unread = Vec::new();
    for _ in 0..3 {
        unread.push(unread_stream(&server).await);
    }
    let count = post_much(&server.client).await;
    reader.take(count).await;
    // Only once every stream is under way is there something to end.
    for stream in &mut unread {
        stream.read_exact(&mut [0; 12]).await.expect("it has begun");
    }
    let stopped = tokio::spawn(server.app.stop());
    assert!(reader.next().await.is_none());
    stopped.await.expect("it ends");
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names() {
    let limits = Limits { heartbeat: SOON, ..Limits::default() };
    let server = Server::start(Setup { limits, ..Setup::default() }).await;
    let client = &server.client;
    let batches = [client.ready_batch(1).await, client.ready_batch(1).await];
    let topics = "huleedu.els.batch.phase.outcome.v1,huleedu.batch.pipeline.completed.v1";
    let mut both = Reader::open(client, &format!("?topics={topics}&batch_id={}&from=start", batches[0])).await;
    let mut one = Reader::open(client, &format!("?batch_id={}&from=start", batches[1])).await;
    let mut none = Reader::open(client, &format!("?batch_id={}&from=start", Uuid::new_v4())).await;
    for batch in &batches {
        client.pipeline(batch, "spellcheck").await;
        client.until_settled(batch).await;
    }
    let seen = both.take(2).await;
    assert_eq!(seen.iter().map(|seen| seen.event.as_str()).collect::<Vec<_>>().join(","), topics);
    assert!(seen.iter().all(|seen| seen.data["data"]["batch_id"] == json!(batches[0])));
    let mut kinds = BTreeSet::new();
    while !kinds.contains("huleedu.batch.pipeline.completed.v1") {
        let seen = one.next().await.expect("it goes on");
        let data = &seen.data["data"];
        assert!(data["batch_id"] == json!(batches[1]) || data["entity_id"] == json!(batches[1]), "{seen:?}");
        kinds.insert(seen.event);
    }
    assert!(kinds.contains("huleedu.batch.essays.registered.v1") && kinds.len() > 4, "{kinds:?}");
    // A reader that nothing is for hears all the same how far it is, and misses nothing when it comes back.
    let newest = client.get("/v1/events/groups").await.json()["newest"].clone();
    until("the place", async || {
        none.block().await.is_some_and(|seen| seen.event.is_empty() && json!(seen.id) == newest)
    })
    .await;
}

#[tokio::test]
async fn one_connection_reads_for_a_group_and_the_newest_wins() {
    let server = server().await;
    let client = &server.client;
    let mut first = Reader::open(client, "?group=a").await;
    let sent = post_many(client, 2).await;
    assert_eq!(ids(&first.take(2).await), sent);
    assert_eq!(
        client.request(reqwest::Method::DELETE, "/v1/events/groups/a").send().await.expect("sent").status(),
        409
    );
    let mut second = Reader::open(client, "?group=a").await;
    let mut rest = Vec::new();
    while let Some(seen) = first.next().await {
        rest.push(seen.event);
    }
    assert_eq!(rest, ["taken-over"]);
    let seen = second.take(2).await;
    assert_eq!(ids(&seen), sent, "nothing was acknowledged");
    assert_eq!(group(client, "a").await["connected"], true);
    drop(second);
    until("the end", async || group(client, "a").await["connected"] == false).await;

    // Streams of no group are alone in nothing.
    let mut others = [Reader::open(client, "").await, Reader::open(client, "").await];
    let sent = post_many(client, 1).await;
    for other in &mut others {
        assert_eq!(ids(&other.take(1).await), sent);
    }
}

#[tokio::test]
async fn groups_are_listed_and_forgotten_and_there_are_not_too_many() {
    let server = server().await;
    let client = &server.client;
    let delete = |name: &str| client.request(reqwest::Method::DELETE, &format!("/v1/events/groups/{name}"));
    let engine = server.app.engine();
    post_many(client, 2).await;
    let begin = engine.newest_event().expect("a log");
    for number in 0..EventGroup::MAX {
        let group = format!("g{number:04}").parse().expect("a name");
        assert!(engine.open_event_group(group, begin).await.expect("open").is_some());
    }
    assert_eq!(client.get("/v1/events/stream?group=more").await.status, 409);
    assert_eq!(client.get("/v1/events/groups").await.json()["groups"].as_array().map(Vec::len), Some(1_000));
    assert_eq!(group(client, "more").await, Value::Null);
    assert_eq!(Client::send(delete("g0007")).await.status, 204);
    assert_eq!(Client::send(delete("g0007")).await.status, 404);
    assert_eq!(Client::send(delete("G")).await.status, 404);
    drop(Reader::open(client, "?group=more&from=start").await);
    let more = group(client, "more").await;
    assert_eq!(more["lag"], 2);

    let id = |sequence| EventId { sequence, ..begin }.to_string();
    for (name, body, status) in [
        ("more", json!({ "id": id(3) }), 409),
        ("more", json!({ "id": "x" }), 400),
        ("more", json!({}), 400),
        ("more", json!({ "id": id(1), "unknown": 1 }), 400),
        ("g0007", json!({ "id": id(1) }), 404),
        ("G", json!({ "id": id(1) }), 404),
    ] {
        let answer = client.post(&format!("/v1/events/groups/{name}/ack"), body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    assert_eq!(group(client, "more").await["after"], more["after"]);
    acknowledge(client, "more", &id(2)).await;
    assert_eq!(group(client, "more").await["lag"], 0);
}

#[tokio::test]
async fn there_are_so_many_streams_and_a_place_is_free_when_one_ends() {
    let limits = Limits { streams: 2, ..Limits::default() };
    let server = Server::start(Setup { limits, ..Setup::default() }).await;
    let client = &server.client;
    let one = Reader::open(client, "?group=a").await;
    let mut other = Reader::open(client, "").await;
    let refused = client.get("/v1/events/stream?group=b").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.text);
    assert_eq!(group(client, "b").await, Value::Null, "what is refused changes nothing");
    drop(one);
    until("a place", async || {
        let request = client.request(reqwest::Method::GET, "/v1/events/stream");
        request.send().await.expect("it answers").status() == 200
    })
    .await;
    let sent = post_many(client, 1).await;
    assert_eq!(ids(&other.take(1).await), sent, "the other did not notice");
}
