//! A client that does random work until its server is gone.

use std::sync::{Arc, Mutex, MutexGuard};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, registration};
use crate::record::{Record, Request, What};

/// How many clients speak for one user, so that some requests about one batch meet.
const CLIENTS_A_USER: usize = 2;

const PHASES: [&str; 4] = ["spellcheck", "cj_assessment", "nlp", "ai_feedback"];

pub struct Worker {
    client: Client,
    user: String,
    random: fastrand::Rng,
    record: Arc<Mutex<Record>>,
}

impl Worker {
    pub fn new(client: Client, number: usize, random: fastrand::Rng, record: Arc<Mutex<Record>>) -> Self {
        Self { client, user: format!("user-{}", number / CLIENTS_A_USER), random, record }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("nobody panicked")
    }

    /// Works until the server is gone, and answers the request that is to be repeated then.
    pub async fn run(mut self) -> Option<Request> {
        loop {
            let Ok(Some(request)) = self.next_request().await else {
                // What is only asked for changes nothing.
                if self.is_gone().await {
                    return None;
                }
                continue;
            };
            match self.send(&request).await {
                Ok(answer) if request.key.is_some() && answer.status >= 500 => return Some(request),
                Ok(answer) => {
                    if let (Some(_), 200..300, 0) = (&request.key, answer.status, self.random.u8(..8)) {
                        let Ok(again) = self.send(&request).await else {
                            self.record().settle(request, Some(&answer));
                            return None;
                        };
                        assert!(again.status >= 500 || again.text == answer.text, "{request:?}: {again:?}");
                    }
                    self.record().settle(request, Some(&answer));
                }
                Err(_) if request.key.is_some() => return Some(request),
                Err(_) => {
                    self.record().settle(request, None);
                    return None;
                }
            }
        }
    }

    async fn is_gone(&self) -> bool {
        Client::try_send(self.client.request(Method::GET, "/livez")).await.is_err()
    }

    async fn send(&self, request: &Request) -> reqwest::Result<Answer> {
        let client = self.client.as_user(&request.user);
        let sent = client.request(request.method.clone(), &request.path).json(&request.body);
        Client::try_send(match &request.key {
            Some(key) => sent.header("Idempotency-Key", key),
            None => sent,
        })
        .await
    }

    /// Sends a request with a key again until it is answered, and once more: that must be a repetition of the answer.
    pub async fn until_answered(&self, request: Request) {
        let answer = self.send(&request).await.expect("the server serves");
        assert!(answer.status < 500, "{request:?}: {answer:?}");
        if answer.status < 300 {
            let again = self.send(&request).await.expect("the server serves");
            assert_eq!(again.header("idempotent-replayed"), "true", "{request:?}: {again:?}");
            assert_eq!((again.status, &again.text), (answer.status, &answer.text), "{request:?}");
        }
        let mut record = self.record();
        record.replayed += u64::from(answer.header("idempotent-replayed") == "true");
        record.settle(request, Some(&answer));
    }

    async fn next_request(&mut self) -> reqwest::Result<Option<Request>> {
        let batch = self.some_batch();
        let chosen = self.random.u32(..100);
        Ok(match (chosen, batch) {
            (0..10, _) | (10..92, None) => Some(self.register()),
            (10..30, Some(batch)) => self.essays(batch),
            (30..48, Some(batch)) => Some(self.pipeline(batch)),
            (48..84, Some(batch)) => Some(self.retry(batch)),
            (84..92, Some(batch)) => Some(self.cancel(batch)),
            (92..94, _) => Some(self.job()),
            (94..96, _) => self.stop_job(),
            _ => self.letter().await?,
        })
    }

    /// One of the user's batches; more often one of the newest.
    fn some_batch(&mut self) -> Option<String> {
        let record = self.record.lock().expect("nobody panicked");
        let batches = &record.users.get(&self.user)?.batches;
        let newest = batches.len().saturating_sub(6);
        let first = if self.random.u8(..4) == 0 { 0 } else { newest };
        self.random.choice(&batches[first..]).cloned()
    }

    fn request(&mut self, path: String, body: Value, what: What) -> Request {
        let has_key = self.random.u8(..10) < 6;
        let key = has_key.then(|| self.record().name("key"));
        Request { user: self.user.clone(), method: Method::POST, path, body, key, what }
    }

    fn register(&mut self) -> Request {
        let essays = self.random.u64(1..=6);
        let mut body = registration(usize::try_from(essays).expect("small"));
        body["user_id"] = Value::Null;
        self.request("/v1/batches/register".to_owned(), body, What::Register { essays })
    }

    fn essays(&mut self, batch: String) -> Option<Request> {
        let (expected, received) = {
            let record = self.record();
            let known = record.batches.get(&batch)?;
            (known.expected, known.essays)
        };
        // Where another client was quicker it is refused.
        let left = expected.saturating_sub(received);
        let count = self.random.u64(1..=left.max(1));
        let name = self.record().name("essay");
        let essay = |slot: u64| json!({ "file_name": format!("{name}-{slot}.txt"), "text": format!("{name} {slot}") });
        let body = json!({ "essays": (0..count).map(essay).collect::<Vec<_>>() });
        (left > 0).then(|| self.request(format!("/v1/batches/{batch}/essays"), body, What::Essays { batch, count }))
    }

    fn phase(&mut self) -> &'static str {
        PHASES[self.random.usize(..PHASES.len())]
    }

    fn pipeline(&mut self, batch: String) -> Request {
        let phase = self.phase();
        let (path, body) = (format!("/v1/batches/{batch}/pipelines"), json!({ "requested_pipeline": phase }));
        self.request(path, body, What::Pipeline { batch, phase })
    }

    fn retry(&mut self, batch: String) -> Request {
        let phase = self.phase();
        let reason = self.record().name("retry");
        let mut body = json!({ "phase_name": phase, "retry_reason": reason });
        match self.random.u8(..6) {
            0 | 1 => {}
            2 | 3 => body["force"] = true.into(),
            4 => body["only_failed"] = true.into(),
            _ => {
                let essay_ids = self.record().batches.get(&batch).map(|batch| batch.essay_ids.clone());
                body["essay_ids"] = self.random.choice(essay_ids.unwrap_or_default()).into_iter().collect();
                body["force"] = true.into();
            }
        }
        body["downstream"] = (self.random.u8(..5) == 0).into();
        let path = format!("/v1/batches/{batch}/retry-phase");
        self.request(path, body, What::Retry { batch, phase, reason })
    }

    fn cancel(&mut self, batch: String) -> Request {
        let reason = self.record().name("cancel");
        let (path, body) = (format!("/v1/batches/{batch}/cancel"), json!({ "reason": reason }));
        self.request(path, body, What::Cancel { batch, reason })
    }

    fn job(&mut self) -> Request {
        let reason = self.record().name("job");
        let phase = self.phase();
        let filter = if self.random.bool() { json!({}) } else { json!({ "phase": phase, "phase_status": "failed" }) };
        let body = json!({
            "phase": phase, "filter": filter, "reason": reason, "only_failed": self.random.bool(),
            "per_second": self.random.u32(20..=1_000),
        });
        self.request("/v1/retry-jobs".to_owned(), body, What::Job { reason })
    }

    fn stop_job(&mut self) -> Option<Request> {
        let jobs: Vec<String> = self.record().users.get(&self.user)?.jobs.keys().cloned().collect();
        let job = self.random.choice(jobs)?;
        let path = format!("/v1/retry-jobs/{job}");
        let (user, method) = (self.user.clone(), Method::DELETE);
        Some(Request { user, method, path, body: json!({}), key: None, what: What::StopJob { job } })
    }

    async fn letter(&mut self) -> reqwest::Result<Option<Request>> {
        let open = self.client.request(Method::GET, "/internal/v1/dead-letters?state=open&limit=20");
        let open = Client::try_send(open).await?.json();
        let letters = open["dead_letters"].as_array().cloned().unwrap_or_default();
        let Some(letter) = self.random.choice(letters) else { return Ok(None) };
        let letter = letter["id"].as_str().unwrap_or_default().to_owned();
        let decision = if self.random.u8(..3) == 0 { "discard" } else { "redrive" };
        let path = format!("/internal/v1/dead-letters/{letter}/{decision}");
        let request = self.request(path, json!({}), What::Letter { letter, decision });
        // Who decided is on record, so it tells the decisions apart.
        let user = self.record().name("decider");
        Ok(Some(Request { user, ..request }))
    }
}
