//! A client of the stream of events, and envelopes to send.

use std::time::Duration;

use rephase::contract::Topic;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Client, PATIENCE};

/// An event as it was sent. One without data is only a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl Seen {
    pub fn event_id(&self) -> &str {
        self.data["event_id"].as_str().expect("an envelope")
    }

    /// The number within the log.
    pub fn number(&self) -> u64 {
        self.id.split_once('-').and_then(|(_, number)| number.parse().ok()).expect("an id")
    }
}

/// A stream, read piece by piece.
pub struct Reader {
    response: reqwest::Response,
    text: Vec<u8>,
    /// How much of the text was looked at.
    looked: usize,
}

impl Reader {
    pub async fn open(client: &Client, query: &str) -> Self {
        Self::resume(client, query, None).await
    }

    pub async fn resume(client: &Client, query: &str, last: Option<&str>) -> Self {
        let mut request = client.request(reqwest::Method::GET, &format!("/v1/events/stream{query}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.expect("it answers");
        assert_eq!(response.status(), 200, "{query} {last:?}");
        Self::of(response)
    }

    pub fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: Vec::new(), looked: 0 }
    }

    /// The next block of lines; none where the stream ends.
    pub async fn block(&mut self) -> Option<Seen> {
        loop {
            if let Some(end) = self.text[self.looked..].windows(2).position(|pair| pair == b"\n\n") {
                let block = self.text.drain(..self.looked + end + 2).collect();
                self.looked = 0;
                let block = String::from_utf8(block).expect("text");
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    let values: Vec<_> = block.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
                    values.join("\n")
                };
                let data = serde_json::from_str(&field("data")).unwrap_or(Value::Null);
                return Some(Seen { id: field("id"), event: field("event"), data });
            }
            self.looked = self.text.len().saturating_sub(1);
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something comes");
            // A connection that is cut ends the stream too.
            self.text.extend_from_slice(&chunk.ok().flatten()?);
        }
    }

    /// The next event; none where the stream ends.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            let block = self.block().await?;
            if !block.event.is_empty() {
                return Some(block);
            }
        }
    }

    pub async fn take(&mut self, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(self.next().await.expect("the stream goes on"));
        }
        seen
    }
}

/// A notification for this batch; nothing here consumes those.
pub fn notification(batch: Uuid) -> Value {
    json!({
        "event_id": Uuid::new_v4(), "event_type": Topic::TeacherNotificationRequested,
        "event_timestamp": "2026-03-02T08:30:00Z", "source_service": "a-test", "schema_version": 1,
        "correlation_id": null, "data_schema_uri": null, "metadata": null,
        "data": { "teacher_id": "teacher-7", "notification_type": "hello", "category": "batch_progress",
                  "priority": "low", "payload": {}, "correlation_id": Uuid::new_v4(), "batch_id": batch },
    })
}

/// Posts an event, and answers its id.
pub async fn post(client: &Client, event: Value) -> String {
    let answer = client.post("/v1/events", event.clone()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json()["duplicate"], false);
    event["event_id"].as_str().expect("an id").to_owned()
}

pub async fn post_many(client: &Client, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(post(client, notification(Uuid::new_v4())).await);
    }
    ids
}

pub fn ids(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(Seen::event_id).collect()
}

/// Asks until `is_there`.
pub async fn until(what: &str, mut is_there: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_there().await {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} did not come"));
}

/// A heartbeat that a test sees soon, and one that it never sees.
pub const SOON: Duration = Duration::from_millis(20);
