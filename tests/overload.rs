//! The promise "more than can be done is refused, and what was accepted is done".

mod harness;

use std::sync::mpsc;

use harness::{Server, Setup};
use rephase::domain::{BatchId, Input};
use rephase::engine::{Error, Reader, Submission};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

/// How many requests may wait for one partition.
const BOUND: usize = 512;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_partition_cannot_hold_is_refused_and_what_it_holds_is_done() {
    let server = Server::start(Setup::default()).await;
    let batch = server.client.ready_batch(1).await;
    let id: BatchId = batch.parse().expect("an id");
    let engine = server.app.engine().clone();

    // Its partition waits for this question, and cannot take another request meanwhile.
    let (release, released) = mpsc::channel::<()>();
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    let blocked = tokio::spawn({
        let engine = engine.clone();
        async move {
            let question = move |_: Result<Reader<'_>, Error>| {
                asked.send(()).expect("somebody waits");
                released.recv().expect("it is released");
                Ok::<(), Error>(())
            };
            engine.query(id, question).await
        }
    });
    is_asked.await.expect("it is asked");
    let mut requests = JoinSet::new();
    for _ in 0..BOUND + 100 {
        let engine = engine.clone();
        requests.spawn(async move {
            let input = Input::Cancel { by: "nobody".to_owned(), reason: String::new() };
            engine.submit(id, Submission::new(input, Uuid::new_v4())).await
        });
    }
    // The refused ones come back at once, the others wait.
    for _ in 0..100 {
        let refused = requests.join_next().await.expect("there are more").expect("it ran");
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    }
    for answer in [
        server.client.get(&format!("/v1/batches/{batch}/phases/nlp/attempts")).await,
        server.client.pipeline(&batch, "spellcheck").await,
    ] {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text);
        assert_eq!(answer.json()["error_code"], json!("SERVICE_UNAVAILABLE"));
    }
    // What is at hand needs no partition.
    assert_eq!(server.client.get(&format!("/v1/batches/{batch}/status")).await.status, 200);
    assert_eq!(server.client.get("/readyz").await.status, 200);

    release.send(()).expect("it waits");
    blocked.await.expect("it ran").expect("it was answered");
    let mut answered = 0;
    while let Some(answer) = requests.join_next().await {
        match answer.expect("it ran") {
            Err(Error::Rejected(_)) => answered += 1,
            // What the batch's own messages took of the room.
            Err(Error::Overloaded) => {}
            answer => panic!("{answer:?}"),
        }
    }
    assert!((BOUND - 8..=BOUND).contains(&answered), "{answered} were accepted and answered");
    assert_eq!(server.client.pipeline(&batch, "spellcheck").await.status, 202);
    assert_eq!(server.client.until_settled(&batch).await["status"], "completed_successfully");
}

#[tokio::test]
async fn a_read_that_breaks_is_no_ones_end_but_its_own() {
    let server = Server::start(Setup::default()).await;
    let batch = server.client.ready_batch(1).await;
    let id: BatchId = batch.parse().expect("an id");
    let question = |_: Result<Reader<'_>, Error>| -> Result<(), Error> { panic!("as the test wants it") };
    let answer = server.app.engine().query(id, question).await;
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    assert_eq!(server.client.status(&batch).await["status"], "ready");
    assert_eq!(server.client.get("/readyz").await.status, 200);
}
