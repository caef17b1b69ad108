//! What the clients sent and were answered: what must be there after a kill, and what may be.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::Value;

use crate::harness::Answer;

/// A request that changes something.
#[derive(Debug, Clone)]
pub struct Request {
    pub user: String,
    pub method: Method,
    pub path: String,
    pub body: Value,
    /// Its Idempotency-Key.
    pub key: Option<String>,
    pub what: What,
}

/// What a request is about.
#[derive(Debug, Clone)]
pub enum What {
    Register { essays: u64 },
    Essays { batch: String, count: u64 },
    Pipeline { batch: String, phase: &'static str },
    Retry { batch: String, phase: &'static str, reason: String },
    Cancel { batch: String, reason: String },
    Job { reason: String },
    StopJob { job: String },
    Letter { letter: String, decision: &'static str },
}

/// What is known of a request's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// 2xx: it has taken effect, once.
    Acknowledged,
    /// 4xx: it has none.
    Refused,
    /// No answer: it has taken effect once, or not at all.
    Unanswered,
}

/// What has to be true of one batch.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub user: String,
    pub expected: u64,
    pub essay_ids: Vec<String>,
    pub essays: u64,
    /// Essays of requests that got no answer.
    pub essays_perhaps: u64,
    /// The newest version that an answer named.
    pub version: u64,
    pub pipelines: BTreeSet<&'static str>,
    pub retries: BTreeMap<String, Retry>,
    pub cancels: BTreeMap<String, Fate>,
}

#[derive(Debug, Clone)]
pub struct Retry {
    pub phase: &'static str,
    pub fate: Fate,
    /// The attempt's number, where it was answered.
    pub attempt: Option<u64>,
}

/// What has to be true of one bulk retry.
#[derive(Debug, Clone)]
pub struct Job {
    pub reason: String,
    pub total: u64,
    pub is_stopped: bool,
}

/// What has to be true of one user.
#[derive(Debug, Clone, Default)]
pub struct User {
    pub batches: Vec<String>,
    /// Registrations without a key that got no answer.
    pub batches_perhaps: u64,
    pub jobs: BTreeMap<String, Job>,
    pub jobs_perhaps: u64,
    /// The reason of every bulk retry that was asked for, whatever came of it.
    pub job_reasons: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub struct Decision {
    pub letter: String,
    pub by: String,
    pub verb: &'static str,
    pub fate: Fate,
}

#[derive(Debug, Clone, Default)]
pub struct Record {
    pub users: BTreeMap<String, User>,
    pub batches: BTreeMap<String, Batch>,
    pub decisions: Vec<Decision>,
    touched: BTreeSet<String>,
    /// Whether the server may end only between requests, so that one without an answer has had no effect.
    is_orderly: bool,
    pub acknowledged: u64,
    pub refused: u64,
    pub unanswered: u64,
    pub replayed: u64,
    names: u64,
}

impl Record {
    /// Of a server that ends between requests only.
    pub fn orderly() -> Self {
        Self { is_orderly: true, ..Self::default() }
    }

    /// A name that nothing else has.
    pub fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}-{}", self.names)
    }

    /// The batches that requests were about since this was last asked.
    pub fn touched(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched)
    }

    /// Writes down what came of a request.
    pub fn settle(&mut self, request: Request, answer: Option<&Answer>) {
        let fate = match answer.map(|answer| answer.status) {
            None | Some(500..) if self.is_orderly => Fate::Refused,
            None | Some(500..) => Fate::Unanswered,
            Some(200..300) => Fate::Acknowledged,
            Some(_) => Fate::Refused,
        };
        match fate {
            Fate::Acknowledged => self.acknowledged += 1,
            Fate::Refused => self.refused += 1,
            Fate::Unanswered => self.unanswered += 1,
        }
        let said = answer.map(Answer::json).unwrap_or_default();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let version = answer.and_then(|answer| answer.header("etag").trim_matches('"').parse().ok()).unwrap_or(0);
        let user = self.users.entry(request.user.clone()).or_default();
        let about = match request.what {
            What::Register { essays } => match fate {
                Fate::Acknowledged => {
                    let id = text("batch_id");
                    user.batches.push(id.clone());
                    let batch = Batch { user: request.user, expected: essays, ..Batch::default() };
                    self.batches.insert(id.clone(), batch);
                    Some(id)
                }
                Fate::Refused => None,
                Fate::Unanswered => {
                    user.batches_perhaps += 1;
                    None
                }
            },
            What::Essays { batch, count } => {
                if let Some(batch) = self.batches.get_mut(&batch) {
                    match fate {
                        Fate::Acknowledged => {
                            batch.essays += count;
                            let ids = said["essays"].as_array().into_iter().flatten();
                            batch
                                .essay_ids
                                .extend(ids.filter_map(|essay| Some(essay["essay_id"].as_str()?.to_owned())));
                        }
                        Fate::Refused => {}
                        Fate::Unanswered => batch.essays_perhaps += count,
                    }
                }
                Some(batch)
            }
            What::Pipeline { batch, phase } => {
                if let (Some(batch), Fate::Acknowledged) = (self.batches.get_mut(&batch), fate) {
                    batch.pipelines.insert(phase);
                }
                Some(batch)
            }
            What::Retry { batch, phase, reason } => {
                if let Some(batch) = self.batches.get_mut(&batch) {
                    let retry = Retry { phase, fate, attempt: said["attempt"].as_u64() };
                    batch.retries.insert(reason, retry);
                }
                Some(batch)
            }
            What::Cancel { batch, reason } => {
                if let Some(batch) = self.batches.get_mut(&batch) {
                    batch.cancels.insert(reason, fate);
                }
                Some(batch)
            }
            What::Job { reason } => {
                user.job_reasons.insert(reason.clone());
                match fate {
                    Fate::Acknowledged => {
                        let total = said["total"].as_u64().unwrap_or(u64::MAX);
                        user.jobs.insert(text("job_id"), Job { reason, total, is_stopped: false });
                    }
                    Fate::Refused => {}
                    Fate::Unanswered => user.jobs_perhaps += 1,
                }
                None
            }
            What::StopJob { job } => {
                if let (Some(job), Fate::Acknowledged) = (user.jobs.get_mut(&job), fate) {
                    job.is_stopped = true;
                }
                None
            }
            What::Letter { letter, decision } => {
                self.users.remove(&request.user);
                self.decisions.push(Decision { letter, by: request.user, verb: decision, fate });
                None
            }
        };
        if let Some(id) = about {
            if let Some(batch) = self.batches.get_mut(&id) {
                batch.version = batch.version.max(version);
            }
            self.touched.insert(id);
        }
    }
}
