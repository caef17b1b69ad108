//! A simulated phase worker.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use uuid::Uuid;

use super::faults::{FaultRule, Faults};
use super::{InForce, Options, spelling};
use crate::bus::{Delivery, Recall, Subscription};
use crate::contract::commands::CommandBase;
use crate::contract::events::BatchPhaseOutcome;
use crate::contract::{
    BatchStatus, Envelope, EssayRef, Message, SCHEMA_VERSION, Topic, metadata, services, span_of, traceparent_of_span,
};
use crate::crash::{self, Point};
use crate::domain::{BatchId, Input, Millis, Phase, PhaseError, Slot};
use crate::engine::{Engine, Error, Submission, content_id};

/// How many attempts one worker runs side by side. Each waits most of its time, and holds one command in memory.
const MAX_CONCURRENT: usize = 256;

/// The same by a manual clock, which is for tests.
const MAX_ASLEEP: usize = 16_384;

pub(super) struct Worker {
    engine: Engine,
    phase: Phase,
    faults: InForce,
    latency: Latency,
}

/// How long attempts at one phase take, one after the other.
struct Latency {
    range_ms: RangeInclusive<u64>,
    random: fastrand::Rng,
}

impl Latency {
    fn new(options: &Options, phase: Phase) -> Self {
        let stream = u64::try_from(phase.index()).unwrap_or(0);
        let random = fastrand::Rng::with_seed(options.seed.wrapping_mul(4).wrapping_add(stream));
        Self { range_ms: options.latency_ms.clone(), random }
    }

    /// The next draw, in milliseconds.
    fn draw(&mut self) -> u64 {
        self.random.u64(self.range_ms.clone())
    }
}

/// A command, understood.
struct Task {
    batch: BatchId,
    phase: Phase,
    attempt: u32,
    correlation_id: Uuid,
    command_id: Uuid,
    traceparent: Option<String>,
    essays: Vec<(Slot, EssayRef)>,
}

impl Worker {
    pub(super) fn new(engine: Engine, phase: Phase, options: &Options, faults: InForce) -> Self {
        let latency = Latency::new(options, phase);
        Self { engine, phase, faults, latency }
    }

    pub(super) async fn run(mut self, mut commands: Subscription) {
        // A manual clock goes on once everybody sleeps, so nobody may wait for a place that a sleeper has.
        let places = if self.engine.clock().is_manual() { MAX_ASLEEP } else { MAX_CONCURRENT };
        let places = Arc::new(Semaphore::new(places));
        while let Some(delivery) = commands.next().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            // Drawn here, in the order of the commands, so that it can be repeated.
            let latency_ms = self.latency.draw();
            let (engine, phase, faults) = (self.engine.clone(), self.phase, self.faults.get());
            let stop = engine.stopping().clone();
            // Boxed, since it is some kilobytes, and moved more than once before it runs.
            let handled = Box::pin(async move { handle(engine, delivery, phase, &faults, latency_ms).await });
            self.engine.spawn(async move {
                // When the program ends the command stays in the outbox, and comes again.
                stop.run_until_cancelled(handled).await;
                drop(place);
            });
        }
    }
}

/// What came of an attempt.
enum Made {
    /// Nobody waits for it any more.
    Nothing,
    /// Its outcome, and the texts that it made.
    Outcome(Box<Envelope<BatchPhaseOutcome>>, Vec<String>),
    /// The same, sent on its way as a fault rule wants: broken, or twice.
    Messages(Vec<Message>, Vec<String>),
}

async fn handle(engine: Engine, mut delivery: Delivery, phase: Phase, faults: &Faults, latency_ms: u64) {
    crash::reach(Point::WorkerTaken);
    let made = match Task::read(delivery.message(), phase) {
        Ok(task) => run(&engine, &task, &mut delivery, faults, latency_ms).await,
        Err(error) => {
            tracing::warn!(%phase, key = %delivery.message().key, %error, "a command was refused");
            return engine.refuse(delivery, &error).await;
        }
    };
    crash::reach(Point::WorkerResult);
    match made {
        Ok(Made::Nothing) => settle(&engine, delivery, Vec::new(), Vec::new()).await,
        Ok(Made::Outcome(outcome, contents)) => engine.conclude(delivery, *outcome, contents).await,
        Ok(Made::Messages(publish, contents)) => settle(&engine, delivery, publish, contents).await,
        Err(error) => engine.reject(delivery, &error.to_string()).await,
    }
}

/// Consumes the command, and publishes what came of it.
async fn settle(engine: &Engine, delivery: Delivery, publish: Vec<Message>, contents: Vec<String>) {
    if let Err(error) = engine.finish(delivery, publish, contents).await {
        tracing::warn!(%error, "an outcome was not committed; its command comes again");
    }
}

/// Runs the phase.
async fn run(
    engine: &Engine,
    task: &Task,
    delivery: &mut Delivery,
    faults: &Faults,
    latency_ms: u64,
) -> Result<Made, Error> {
    let slots: Vec<Slot> = task.essays.iter().map(|(slot, _)| *slot).collect();
    let fault = faults.find(task.phase, task.attempt, &slots);
    if let Some(point) = fault.and_then(FaultRule::crash) {
        crash::arm(point, 0);
    }
    let latency_ms = fault.and_then(FaultRule::delay_ms).unwrap_or(latency_ms);
    if latency_ms > 0 {
        // A worker that answers at once has nothing to report before.
        let started = Input::PhaseStarted { phase: task.phase, attempt: task.attempt };
        let recalled = task.recalled(engine.bus().recalls());
        match engine.submit(task.batch, Submission::new(started, task.correlation_id)).await {
            Ok(_) => tokio::select! {
                // A manual clock may be past its end before the recall is heard.
                biased;
                () = recalled => {
                    tracing::info!(batch = %task.batch, phase = %task.phase, "an attempt was recalled");
                    return Ok(Made::Nothing);
                }
                () = delivery.sleep(engine.clock(), latency_ms) => {}
            },
            Err(Error::Rejected(rejected)) => {
                tracing::info!(batch = %task.batch, phase = %task.phase, %rejected, "a command was out of date");
                return Ok(Made::Nothing);
            }
            Err(error) => return Err(error),
        }
    }
    let mut contents = Vec::new();
    let mut processed = Vec::new();
    let mut errors = BTreeMap::new();
    for (slot, essay) in &task.essays {
        match fault.and_then(|fault| fault.error_of(*slot)) {
            Some(error) => {
                errors.insert(essay.essay_id.clone(), error);
            }
            None => processed.push(process(engine, task.phase, essay, &mut contents).await?),
        }
    }
    let unwritable = |error: serde_json::Error| Error::Unavailable(error.to_string());
    let outcome = task.outcome(engine.clock().now(), processed, errors, fault).map_err(unwritable)?;
    let (is_garbled, is_duplicate) = fault.map_or((false, false), |fault| (fault.is_garbled(), fault.is_duplicate()));
    if !is_garbled && !is_duplicate {
        return Ok(Made::Outcome(Box::new(outcome), contents));
    }
    let message = Message::new(Topic::ElsBatchPhaseOutcome, task.batch.to_string(), &outcome);
    let mut message = message.map_err(unwritable)?;
    if is_garbled {
        message.body = message.body.slice(..message.body.len() / 2);
    }
    let messages = if is_duplicate { vec![message.clone(), message] } else { vec![message] };
    Ok(Made::Messages(messages, contents))
}

/// What a phase hands on. Only the spellcheck makes a new text.
async fn process(
    engine: &Engine,
    phase: Phase,
    essay: &EssayRef,
    contents: &mut Vec<String>,
) -> Result<EssayRef, Error> {
    let mut processed = essay.clone();
    match phase {
        Phase::Spellcheck => match engine.content(&essay.text_storage_id).await? {
            Some(text) => {
                let (corrected, corrections) = spelling::correct(&text);
                processed.text_storage_id = content_id(&corrected);
                processed.spellcheck_metrics = Some(json!({ "corrections": corrections }));
                if corrections > 0 {
                    contents.push(corrected);
                }
            }
            // The text lies with somebody else, so its correction is only named.
            None => processed.text_storage_id = format!("{}-corrected", essay.text_storage_id),
        },
        Phase::CjAssessment | Phase::Nlp | Phase::AiFeedback => {}
    }
    Ok(processed)
}

impl Task {
    fn read(message: &Message, phase: Phase) -> Result<Self, String> {
        let command: Envelope<CommandBase> =
            serde_json::from_slice(&message.body).map_err(|error| error.to_string())?;
        let batch = command.data.entity_id.as_deref().and_then(|id| id.parse().ok()).ok_or("it names no batch")?;
        let correlation_id = command.correlation_id.ok_or("it has no correlation id")?;
        let command_id = command.event_id.ok_or("it has no event id")?;
        let said = command.metadata.unwrap_or_default();
        let traceparent = said.get(metadata::TRACEPARENT).and_then(Value::as_str).map(str::to_owned);
        let attempt = said.get(metadata::ATTEMPT).and_then(Value::as_u64).and_then(|number| number.try_into().ok());
        let slots = match said.get(metadata::SLOTS) {
            Some(slots) => serde_json::from_value::<Vec<Slot>>(slots.clone()).map_err(|error| error.to_string())?,
            None => (0..).take(command.data.essays_to_process.len()).collect(),
        };
        if slots.len() != command.data.essays_to_process.len() {
            return Err("it has not one slot for each essay".to_owned());
        }
        let essays = slots.into_iter().zip(command.data.essays_to_process).collect();
        Ok(Self { batch, phase, attempt: attempt.unwrap_or(1), correlation_id, command_id, traceparent, essays })
    }

    /// Waits until nobody waits for this attempt any more, as far as that is heard.
    fn recalled(&self, mut recalls: broadcast::Receiver<Recall>) -> impl Future<Output = ()> + use<> {
        let this = Recall { batch: self.batch, phase: self.phase, attempt: self.attempt };
        async move {
            loop {
                match recalls.recv().await {
                    Ok(recall) if recall == this => return,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    /// The outcome. Its id is made of the command's, so that the same command always has the same outcome.
    fn outcome(
        &self,
        now: Millis,
        processed: Vec<EssayRef>,
        errors: BTreeMap<String, PhaseError>,
        fault: Option<&FaultRule>,
    ) -> serde_json::Result<Envelope<BatchPhaseOutcome>> {
        let phase_status = if errors.is_empty() {
            BatchStatus::CompletedSuccessfully
        } else if processed.is_empty() {
            BatchStatus::FailedCritically
        } else {
            BatchStatus::CompletedWithFailures
        };
        let mut said = Map::new();
        said.insert(metadata::ATTEMPT.to_owned(), self.attempt.into());
        if let (false, Some(fault)) = (errors.is_empty(), fault) {
            said.insert(metadata::ERROR.to_owned(), serde_json::to_value(fault.error())?);
            said.insert(metadata::RETRY_AFTER_MS.to_owned(), fault.retry_after_ms().into());
        }
        if phase_status == BatchStatus::CompletedWithFailures {
            said.insert(metadata::ESSAY_ERRORS.to_owned(), serde_json::to_value(&errors)?);
        }
        let topic = Topic::ElsBatchPhaseOutcome;
        let event_id = Uuid::new_v5(&self.command_id, b"outcome");
        let traceparent = self.traceparent.as_deref().and_then(|parent| traceparent_of_span(parent, span_of(event_id)));
        said.extend(traceparent.map(|traceparent| (metadata::TRACEPARENT.to_owned(), traceparent.into())));
        Ok(Envelope {
            event_id: Some(event_id),
            event_type: topic.as_str().to_owned(),
            event_timestamp: Some(now.to_timestamp()),
            source_service: services::LIFECYCLE.to_owned(),
            schema_version: SCHEMA_VERSION,
            correlation_id: Some(self.correlation_id),
            data_schema_uri: None,
            data: BatchPhaseOutcome {
                batch_id: self.batch.to_string(),
                phase_name: self.phase.name(),
                phase_status,
                processed_essays: processed,
                failed_essay_ids: errors.into_keys().collect(),
                correlation_id: Some(self.correlation_id),
            },
            metadata: Some(said),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_latencies() {
        let draws = |seed, phase| {
            let options = Options { seed, latency_ms: 20..=80, ..Options::default() };
            let mut latency = Latency::new(&options, phase);
            std::iter::repeat_with(move || latency.draw()).take(20).collect::<Vec<_>>()
        };
        assert_eq!(draws(7, Phase::Nlp), draws(7, Phase::Nlp));
        assert_ne!(draws(7, Phase::Nlp), draws(8, Phase::Nlp));
        assert_ne!(draws(7, Phase::Nlp), draws(7, Phase::Spellcheck));
        assert!(draws(7, Phase::Nlp).iter().all(|latency_ms| (20..=80).contains(latency_ms)));
    }
}
