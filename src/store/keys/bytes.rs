//! What stands in keys, and in some values, for a phase, a group and a topic; and how a number is read out of a key.

use crate::contract::{Group, Topic};
use crate::domain::Phase;
use crate::store::Error;

pub(super) fn u64_at(key: &[u8], offset: usize) -> Result<u64, Error> {
    key.get(offset..offset + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| Error::Corrupt("a key is too short".to_owned()))
}

pub(in crate::store) const fn phase_byte(phase: Phase) -> u8 {
    match phase {
        Phase::Spellcheck => 0,
        Phase::CjAssessment => 1,
        Phase::Nlp => 2,
        Phase::AiFeedback => 3,
    }
}

pub(in crate::store) fn phase_of(byte: u8) -> Result<Phase, Error> {
    Phase::ALL
        .into_iter()
        .find(|phase| phase_byte(*phase) == byte)
        .ok_or_else(|| Error::Corrupt(format!("there is no phase {byte}")))
}

pub(in crate::store) const fn group_byte(group: Group) -> u8 {
    match group {
        Group::Orchestrator => 0,
        Group::Spellcheck => 1,
        Group::CjAssessment => 2,
        Group::Nlp => 3,
        Group::AiFeedback => 4,
        Group::StudentMatching => 5,
    }
}

pub(in crate::store) fn group_of(byte: u8) -> Result<Group, Error> {
    let group = Group::ALL.into_iter().find(|group| group_byte(*group) == byte);
    group.ok_or_else(|| Error::Corrupt(format!("there is no group {byte}")))
}

pub(in crate::store) const fn topic_byte(topic: Topic) -> u8 {
    match topic {
        Topic::BatchAiFeedbackInitiateCommand => 0,
        Topic::BatchCjAssessmentInitiateCommand => 1,
        Topic::BatchContentProvisioningCompleted => 2,
        Topic::BatchEssaysReady => 3,
        Topic::BatchEssaysRegistered => 4,
        Topic::BatchNlpInitiateCommandV2 => 5,
        Topic::BatchPhaseSkipped => 6,
        Topic::BatchPipelineCompleted => 7,
        Topic::BatchSpellcheckInitiateCommand => 8,
        Topic::BatchStudentMatchingInitiateCommand => 9,
        Topic::BatchValidationErrors => 10,
        Topic::ClientBatchPipelineRequest => 11,
        Topic::ElsBatchPhaseOutcome => 12,
        Topic::EssayContentProvisioned => 13,
        Topic::PipelineDenied => 14,
        Topic::StudentAssociationsConfirmed => 15,
        Topic::TeacherNotificationRequested => 16,
    }
}

pub(in crate::store) fn topic_of(byte: u8) -> Result<Topic, Error> {
    Topic::ALL
        .iter()
        .copied()
        .find(|topic| topic_byte(*topic) == byte)
        .ok_or_else(|| Error::Corrupt(format!("there is no topic {byte}")))
}
