//! A worker of somebody else's, as the tests play it.
#![allow(dead_code, reason = "each test file uses its own part of it")]

use rephase::worker::Runner;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Setup};

/// The spellcheck and the analysis are run by whoever leases them; the rest is simulated.
pub const RUNNERS: [Runner; 4] = [Runner::Remote, Runner::Simulated, Runner::Remote, Runner::Simulated];

/// How long the leases of these tests last.
pub const LEASE_MS: u64 = 60_000;

pub fn setup() -> Setup {
    Setup { runners: RUNNERS, ..Setup::default() }
}

/// A worker with a name.
pub struct Worker {
    client: Client,
    name: &'static str,
}

impl Worker {
    pub fn new(client: &Client, name: &'static str) -> Self {
        Self { client: client.as_nobody(), name }
    }

    pub async fn ask(&self, phase: &str, max: usize, wait_ms: u64) -> Vec<Value> {
        let body = json!({ "worker_id": self.name, "phases": [phase], "max": max, "wait_ms": wait_ms,
                           "lease_ms": LEASE_MS });
        let answer = self.client.post("/v1/workers/lease", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["tasks"].as_array().expect("a list").clone()
    }

    /// The next task; there has to be one.
    pub async fn lease(&self, phase: &str) -> Value {
        let tasks = self.ask(phase, 1, 30_000).await;
        assert_eq!(tasks.len(), 1, "nothing came");
        tasks[0].clone()
    }

    pub async fn say(&self, task: &Value, what: &str, mut body: Value) -> Answer {
        body["lease_token"] = task["lease_token"].clone();
        let id = task["task_id"].as_str().expect("an id");
        self.client.post(&format!("/v1/workers/tasks/{id}/{what}"), body).await
    }

    pub async fn complete(&self, task: &Value) -> Answer {
        self.say(task, "complete", all_done(task)).await
    }
}

/// Every essay came out as it went in.
pub fn all_done(task: &Value) -> Value {
    let essays = task["essays"].as_array().expect("a list").iter();
    json!({ "essays": essays.map(|essay| json!({ "essay_id": essay["essay_id"] })).collect::<Vec<_>>() })
}

pub fn failure() -> Value {
    json!({ "error_code": "SPELLCHECK_SERVICE_ERROR", "category": "transient", "message": "down" })
}

/// A batch whose spellcheck waits for a worker.
pub async fn waiting(client: &Client, essays: usize) -> String {
    let batch = client.ready_batch(essays).await;
    assert_eq!(client.pipeline(&batch, "spellcheck").await.status, 202);
    batch
}
