//! What is on its way: messages, bulk retries, dead letters; and the texts.

use std::collections::HashSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::keys::Aged;
use super::super::read::{self, failed};
use super::super::stored::{StoredJob, StoredLetter, StoredMember, StoredMessage};
use super::super::{Error, codec, keys};
use super::{Check, shown};
use crate::contract::idempotency::Key;
use crate::contract::{Group, Message, metadata};
use crate::domain::{Batch, JobState, Phase, RetryJob};

impl Check<'_> {
    pub(super) fn outbox(&mut self) -> Result<(), Error> {
        let mut commands = HashSet::new();
        for entry in self.entries(b"o") {
            let (key, value) = entry?;
            self.checked.messages += 1;
            let group = key.get(1).copied().ok_or_else(|| Error::Corrupt("a key is too short".to_owned()));
            let group = group.and_then(keys::group_of);
            let sequence = keys::sequence_of(&key);
            let message = codec::decode::<StoredMessage>(&value).and_then(StoredMessage::into_message);
            self.sound(&shown(&key), sequence);
            let (group, message) = (self.sound(&shown(&key), group), self.sound(&shown(&key), message));
            let (Some(group), Some(message)) = (group, message) else { continue };
            if !Group::of(message.topic).contains(&group) {
                self.violation(&format!("{}: {} is not for {group:?}", shown(&key), message.topic));
            }
            let Some(attempt) = attempt_of(&message) else { continue };
            if !commands.insert((group, message.key.clone(), attempt)) {
                self.violation(&format!("attempt {attempt} of {group:?} of batch {} is sent twice", message.key));
            }
            if self.is_leased(group, &message.key, attempt) {
                let said = format!("attempt {attempt} of {group:?} of batch {} is leased and still sent", message.key);
                self.violation(&said);
            }
        }
        Ok(())
    }

    /// Whether a worker has the attempt by a lease, which then is what it lives by.
    fn is_leased(&self, group: Group, batch: &str, attempt: u64) -> bool {
        let batch = batch.parse().ok().and_then(|id| read::batch(&self.tree, id).unwrap_or_default());
        let phases: Vec<_> = batch.iter().flat_map(Batch::requested_phases).collect();
        phases.into_iter().any(|(phase, record)| {
            let is_its_phase = match group {
                Group::Orchestrator | Group::StudentMatching => false,
                Group::Spellcheck => phase == Phase::Spellcheck,
                Group::CjAssessment => phase == Phase::CjAssessment,
                Group::Nlp => phase == Phase::Nlp,
                Group::AiFeedback => phase == Phase::AiFeedback,
            };
            let leased = record.state.in_flight().filter(|(open, _)| open.lease.is_some());
            is_its_phase && leased.is_some_and(|(open, _)| u64::from(open.number) == attempt)
        })
    }

    pub(super) fn jobs(&mut self) -> Result<(), Error> {
        let (mut running, mut members) = (HashSet::new(), 0_u64);
        for entry in self.entries(b"j") {
            let (key, value) = entry?;
            self.checked.jobs += 1;
            let job = codec::decode::<StoredJob>(&value).and_then(StoredJob::into_job);
            let Some(job) = self.sound(&shown(&key), job) else { continue };
            if key != keys::job(&job.by, job.id) {
                self.violation(&format!("retry job {} lies under another name", job.id));
            }
            if job.state == JobState::Running {
                running.insert(keys::running_job(job.id));
            }
            members += self.members(&job)?;
            self.age(&format!("retry job {}", job.id), Aged::job(&job.by, job.id), job.state.ended_at())?;
        }
        let mut is_running = 0;
        for entry in self.entries(keys::RUNNING_JOBS) {
            let (key, _) = entry?;
            is_running += 1;
            if !running.contains(&key.to_vec()) {
                self.violation(&format!("{}: it says that a retry job runs, and it does not", shown(&key)));
            }
        }
        if is_running < running.len() {
            self.violation("a retry job runs and no start would go on with it");
        }
        let all = self.entries(b"m").count();
        if u64::try_from(all) != Ok(members) {
            self.violation(&format!("there are {all} batches of retry jobs, and the jobs have {members}"));
        }
        Ok(())
    }

    /// Checks the batches of a bulk retry, and counts them.
    fn members(&mut self, job: &RetryJob) -> Result<u64, Error> {
        let (mut count, mut has_waiting) = (0, false);
        for entry in self.entries(&keys::job_member(job.id, 0)[..17]) {
            let (key, value) = entry?;
            let member = codec::decode::<StoredMember>(&value).map(StoredMember::into_member);
            let Some(member) = self.sound(&shown(&key), member) else { continue };
            if key != keys::job_member(job.id, count) {
                self.violation(&format!("retry job {} has no batch in place {count}", job.id));
            }
            if has_waiting && member.outcome.is_some() {
                self.violation(&format!("retry job {} has skipped a batch before place {count}", job.id));
            }
            has_waiting |= member.outcome.is_none();
            count += 1;
        }
        if count != job.total {
            self.violation(&format!("retry job {} has {count} batches, and should have {}", job.id, job.total));
        }
        if has_waiting && matches!(job.state, JobState::Finished { .. }) {
            self.violation(&format!("retry job {} has finished, and a batch still waits", job.id));
        }
        Ok(u64::from(count))
    }

    pub(super) fn letters(&mut self) -> Result<(), Error> {
        for entry in self.entries(b"z") {
            let (key, value) = entry?;
            self.checked.letters += 1;
            let id = keys::letter_id(key.get(1..).unwrap_or_default());
            let letter = id.and_then(|id| codec::decode::<StoredLetter>(&value)?.into_letter(id));
            let Some(letter) = self.sound(&shown(&key), letter) else { continue };
            let message = Key::of(letter.group.service(), &letter.message);
            let named = self.tree.get(keys::letter_of_message(letter.group, &message)).map_err(failed)?;
            if named.is_none_or(|id| id != letter.id.0.as_bytes()) {
                self.violation(&format!("dead letter {} is not found by its message", letter.id));
            }
            let since = letter.history.last().map(|event| event.at);
            self.age(&format!("dead letter {}", letter.id), Aged::Letter(letter.id), since)?;
        }
        let named = self.entries(b"w").count();
        if u64::try_from(named) != Ok(self.checked.letters) {
            self.violation(&format!("{named} messages are named as dead letters, of which there are others"));
        }
        Ok(())
    }

    /// Every text is whole, and the one that its name says.
    pub(super) fn contents(&mut self) -> Result<(), Error> {
        let mut text: Option<([u8; 32], Sha256)> = None;
        for entry in self.contents.iter() {
            let (key, part) = entry.map_err(failed)?;
            let Some((hash, _)) = key.split_first_chunk::<32>() else {
                self.violation(&format!("text {}: its key is too short", hex::encode(&key)));
                continue;
            };
            match &mut text {
                Some((current, digest)) if current == hash => digest.update(&part),
                Some(_) | None => {
                    let before = text.replace((*hash, Sha256::new_with_prefix(&part)));
                    self.text(before);
                }
            }
        }
        self.text(text);
        Ok(())
    }

    fn text(&mut self, text: Option<([u8; 32], Sha256)>) {
        let Some((hash, digest)) = text else { return };
        self.checked.contents += 1;
        if <[u8; 32]>::from(digest.finalize()) != hash {
            self.violation(&format!("text {} is not what its name says", hex::encode(hash)));
        }
    }
}

/// The attempt that a command is for; none for other messages.
fn attempt_of(message: &Message) -> Option<u64> {
    match Group::of(message.topic) {
        [Group::Spellcheck | Group::CjAssessment | Group::Nlp | Group::AiFeedback] => {
            let envelope: Value = serde_json::from_slice(&message.body).ok()?;
            envelope.get("metadata")?.get(metadata::ATTEMPT)?.as_u64()
        }
        _ => None,
    }
}
