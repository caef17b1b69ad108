//! A partition: the one thread that steps the batches it owns.
//!
//! It takes all requests that wait, steps them one after the other, hands what they came to to the committer, and goes
//! on with the next, on records that may not be durable yet. Whoever asked is answered once its round is durable, and so
//! is whoever was refused, because the record that refused it may be on its way too. A commit that fails ends
//! everything, so nothing ever has to be taken back.

mod consuming;
mod stepping;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::credits::Ledger;
use super::groups::Groups;
use super::letters::{LetterAnswer, LetterRequest};
use super::queue::Inbox;
use super::request::{Question, Reader, Request};
use super::rest::{self, Waiting};
use super::round::{Listeners, OnTheirWay, Round};
use super::{Counters, Error};
use crate::clock::Clock;
use crate::contract::Group;
use crate::contract::idempotency::Key;
use crate::domain::{Batch, BatchId, Millis, Rules};
use crate::store::{self, Commit, Store};

/// The most requests that are stepped before they are committed.
const MAX_ROUND: usize = 256;

pub(super) struct Partition {
    pub(super) store: Store,
    pub(super) clock: Clock,
    up_since: Millis,
    rules: Rules,
    counters: Arc<Counters>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) listeners: Listeners,
    /// The number of the open round.
    number: u64,
    on_their_way: OnTheirWay,
    /// Keys in the state `processing`, with when that ends. They live in memory: the only one who could hold such a key
    /// is this process, and when it dies its keys are free at once.
    claims: HashMap<(Group, Key), Millis>,
    pub(super) event_groups: Groups,
}

impl Partition {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        (rules, up_since): (Rules, Millis),
        listeners: Listeners,
        (counters, ledger): (Arc<Counters>, Arc<Ledger>),
    ) -> Self {
        let (on_their_way, claims, event_groups) = (OnTheirWay::default(), HashMap::new(), Groups::default());
        Self {
            store,
            clock,
            up_since,
            rules,
            counters,
            ledger,
            listeners,
            number: 1,
            on_their_way,
            claims,
            event_groups,
        }
    }

    /// Serves requests until it is told to stop, and says whether that is why it ended. A store that failed ends it.
    pub(super) fn run(mut self, mut requests: Inbox<Request>) -> bool {
        let mut waiting = Vec::with_capacity(MAX_ROUND);
        loop {
            if requests.take(&mut waiting, MAX_ROUND) == 0 {
                return true;
            }
            self.on_their_way.arrived(self.listeners.durable.rounds());
            let mut round = Round::default();
            let mut is_last = false;
            for request in waiting.drain(..) {
                is_last |= matches!(request, Request::Stop);
                match request {
                    // These read what is durable, so everything is made so before.
                    Request::Letters(request) => {
                        self.send_and_wait(std::mem::take(&mut round));
                        self.decide_and_commit(*request);
                    }
                    Request::Balance(request) => {
                        self.send_and_wait(std::mem::take(&mut round));
                        self.change_and_commit(*request);
                    }
                    Request::Forget { batches, reply } => {
                        self.send_and_wait(std::mem::take(&mut round));
                        // The sweep may have ended.
                        let _ = reply.send(self.forget_and_commit(batches));
                    }
                    request => self.take(&mut round, request),
                }
            }
            self.send(round);
            if let Some(reason) = self.store.failure() {
                tracing::error!(reason, "a commit failed; this partition ends");
                return false;
            }
            if is_last {
                return true;
            }
        }
    }

    /// Hands a round to the committer, and opens the next.
    fn send(&mut self, mut round: Round) {
        let number = self.number;
        let commit = std::mem::take(&mut round.commit);
        if commit.is_empty() && round.answers.is_empty() && round.reservations.is_empty() {
            return;
        }
        self.number += 1;
        let listeners = self.listeners.clone();
        if commit.is_empty() && self.on_their_way.is_empty() {
            // There is nothing to wait for.
            round.conclude(number, Ok(()), &listeners);
            return;
        }
        self.on_their_way.close(number, &mut round);
        self.store.commit_then(commit, move |committed| round.conclude(number, committed, &listeners));
    }

    /// Waits until everything up to and with this round is durable. Where it is not, the store has failed, and says so
    /// to the next who asks.
    fn send_and_wait(&mut self, round: Round) {
        self.send(round);
        let _ = self.store.commit_blocking(Commit::new());
        self.on_their_way.arrived(self.listeners.durable.rounds());
    }

    fn take(&mut self, round: &mut Round, request: Request) {
        match request {
            Request::Step(request) => self.step(round, *request),
            Request::Query { batch, run } => self.answer(batch, run),
            Request::Rest { batch, reply } => self.wait_for_rest(batch, reply),
            Request::Claim { group, key, reply } => {
                // Whoever asked may have gone away; then its claim ends with its time.
                let _ = reply.send(self.claim(group, key));
            }
            Request::Release { group, key } => {
                self.claims.remove(&(group, key));
            }
            Request::Settle(settlement) => self.settle(round, *settlement),
            Request::Post(request) => self.post(round, *request),
            Request::Groups(request) => self.groups(round, *request),
            Request::Letters(_) | Request::Balance(_) | Request::Forget { .. } | Request::Stop => {}
        }
    }

    fn wait_for_rest(&mut self, batch: BatchId, reply: rest::Reply) {
        // Held while it is looked at, so that what becomes durable meanwhile is told after it was added.
        let durable = Arc::clone(&self.listeners.durable);
        let mut waiting = durable.waiting();
        match self.durable_record(batch) {
            Ok(Some(record)) if !rest::rests(&record) => Waiting::add(&mut waiting, batch, reply),
            answer => {
                // Whoever asked may have gone away.
                let _ = reply.send(answer.map_err(Error::from));
            }
        }
    }

    fn forget_and_commit(&mut self, batches: Vec<(BatchId, Millis)>) -> Result<usize, Error> {
        let (commit, forgotten) = self.forget(batches);
        self.store.commit_blocking(commit)?;
        let mut cache = self.listeners.durable.cache();
        for id in &forgotten {
            cache.remove(*id);
        }
        Ok(forgotten.len())
    }

    fn decide_and_commit(&mut self, request: LetterRequest) {
        let LetterAnswer { commit, answer, reservation, reply } = self.decide(request);
        let committed = self.store.commit_blocking(commit).map_err(Error::from);
        drop(reservation);
        // Whoever asked may have gone away.
        let _ = reply.send(committed.and(answer));
    }

    /// The newest record, durable or on its way.
    fn record(&self, id: BatchId) -> Result<Option<Arc<Batch>>, store::Error> {
        match self.on_their_way.record(id) {
            Some(record) => Ok(Some(Arc::clone(record))),
            None => self.durable_record(id),
        }
    }

    /// The newest durable record.
    pub(super) fn durable_record(&self, id: BatchId) -> Result<Option<Arc<Batch>>, store::Error> {
        let durable = &self.listeners.durable;
        if let Some(record) = durable.cache().get(id) {
            return Ok(Some(record));
        }
        if self.on_their_way.record(id).is_some() {
            // The committer may write it meanwhile.
            return Ok(self.store.batch_of_another(id)?.map(Arc::new));
        }
        let record = self.store.batch(id)?.map(Arc::new);
        if let Some(record) = &record {
            // Nobody else makes records of this batch, so none that is newer can have come in between.
            durable.cache().put(Arc::clone(record));
        }
        Ok(record)
    }

    fn answer(&mut self, id: BatchId, run: Question) {
        let now = self.clock.now();
        let record = self.durable_record(id);
        let (store, up_since, rules, durable) = (&self.store, self.up_since, &self.rules, &self.listeners.durable);
        let reader = record.map(|batch| Reader { batch, id, store, durable, now, up_since, rules });
        // It only reads, so whatever breaks in it has broken nothing here; whoever asked sees that no answer comes.
        if catch_unwind(AssertUnwindSafe(|| run(reader.map_err(Error::from)))).is_err() {
            tracing::error!(batch = %id, "a read of a batch panicked");
        }
    }
}
