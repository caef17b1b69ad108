//! Registration, essays and prompt: all that comes before the first pipeline.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::announce::Data;
use super::{Context, Draft, Step};
use crate::contract::events::BatchContentProvisioningCompleted;
use crate::contract::requests::{BatchRegistrationRequest, ClientId};
use crate::contract::{
    BatchStatus, EssayRef, EventName, MAX_REFERENCE_CHARS, MAX_REFERENCE_MEMBERS, StorageReferences, Text,
};
use crate::domain::MAX_ESSAYS;
use crate::domain::batch::{Batch, BatchDetails, BatchId, Class, Essay, EssayContent, Slot};
use crate::domain::rejection::Rejected;
use crate::domain::time::Millis;

/// A registration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    batch: BatchId,
    essay_ids: Vec<String>,
    details: BatchDetails,
}

/// An essay that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEssay {
    /// The name of its file, for people.
    pub file_name: String,
    /// Where its text is stored.
    pub text_storage_id: String,
}

impl Registration {
    /// Checks what the schema of `BatchRegistrationRequestV1` cannot say.
    ///
    /// # Errors
    /// [`Rejected::InvalidRegistration`], with the member that is wrong.
    pub fn new(batch: BatchId, request: BatchRegistrationRequest, now: Millis) -> Result<Self, Rejected> {
        let invalid = |field, reason| Err(Rejected::InvalidRegistration { field, reason });
        let Some(count) = usize::try_from(request.expected_essay_count).ok().filter(|count| *count > 0) else {
            return invalid("expected_essay_count", "must be more than 0");
        };
        if count > MAX_ESSAYS {
            return invalid("expected_essay_count", "must be at most 1000");
        }
        if request.cj_default_temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return invalid("cj_default_temperature", "must be between 0 and 2");
        }
        request.student_prompt_ref.as_ref().map_or(Ok(()), require_small)?;
        let class_id = request.class_id.map(Text::into_string).filter(|id| !id.is_empty());
        let essay_ids = match request.essay_ids {
            None => generated_essay_ids(batch, count),
            Some(ids) if ids.len() != count => {
                return invalid("essay_ids", "must have expected_essay_count members, or be left out");
            }
            Some(ids) => ids.into_iter().map(ClientId::into_string).collect(),
        };
        if essay_ids.iter().collect::<HashSet<_>>().len() != count {
            return invalid("essay_ids", "must be different from each other");
        }
        let details = BatchDetails {
            user_id: request.user_id.into_string(),
            org_id: request.org_id.map(Text::into_string),
            course_code: request.course_code,
            student_prompt_ref: request.student_prompt_ref,
            assignment_id: request.assignment_id.map(Text::into_string),
            assignment_is_prompt: false,
            cj_default_llm_model: request.cj_default_llm_model.map(Text::into_string),
            cj_default_temperature: request.cj_default_temperature,
            registered_at: now,
            class: class_id.map(|id| Class { id, confirm_by: None }),
        };
        Ok(Self { batch, essay_ids, details })
    }
}

/// Whether a reference to a prompt is of a size that references have.
pub(super) fn require_small(prompt: &StorageReferences) -> Result<(), Rejected> {
    let is_short = |text: &String| text.chars().take(MAX_REFERENCE_CHARS + 1).count() <= MAX_REFERENCE_CHARS;
    let is_small = prompt.references.values().all(|members| {
        members.len() <= MAX_REFERENCE_MEMBERS && members.iter().all(|(name, value)| is_short(name) && is_short(value))
    });
    let (max_members, max_chars) = (MAX_REFERENCE_MEMBERS, MAX_REFERENCE_CHARS);
    if is_small { Ok(()) } else { Err(Rejected::PromptTooLarge { max_members, max_chars }) }
}

/// Ids that are made of the batch's, so that the step stays without randomness.
fn generated_essay_ids(batch: BatchId, count: usize) -> Vec<String> {
    (0..count).map(|slot| Uuid::new_v5(&batch.0, format!("essay/{slot}").as_bytes()).to_string()).collect()
}

pub(super) fn register(registration: Registration, context: &Context<'_>) -> Step {
    let Registration { batch, essay_ids, details } = registration;
    let batch = Batch {
        id: batch,
        version: 0,
        details: Arc::new(details),
        status: BatchStatus::AwaitingContentValidation,
        essays: Arc::new(essay_ids.into_iter().map(|id| Essay { id, content: None }).collect()),
        essays_received: 0,
        phases: [const { None }; 4],
        run: None,
        updated_at: context.now,
    };
    let mut draft = Draft::of(&batch, context);
    draft.changed = true;
    draft.announce_registration();
    draft.finish()
}

impl Draft<'_> {
    pub(super) fn provide_essays(&mut self, by: &str, essays: Vec<NewEssay>) -> Result<(), Rejected> {
        self.require_owner(by)?;
        let filled = usize::from(self.batch.essays_received);
        let left = self.batch.essays.len() - filled;
        if essays.len() > left {
            return Err(Rejected::TooManyEssays { sent: essays.len(), left });
        }
        if essays.is_empty() {
            return Ok(());
        }
        let slots = Arc::make_mut(&mut self.batch.essays);
        self.batch.essays_received += Slot::try_from(essays.len()).unwrap_or(Slot::MAX);
        for (slot, NewEssay { file_name, text_storage_id }) in slots[filled..].iter_mut().zip(essays) {
            slot.content = Some(EssayContent { file_name, text_storage_id });
        }
        self.changed = true;
        if self.batch.is_provisioned() {
            self.be_provisioned();
            self.announce_provisioning();
        }
        Ok(())
    }

    /// The lifecycle service's own word that all slots are filled. This program's announcement comes back here too and
    /// finds nothing to do.
    pub(super) fn content_provisioned(&mut self, essays: &[EssayRef]) -> Result<(), Rejected> {
        if self.batch.is_provisioned() {
            return Ok(());
        }
        if essays.len() != self.batch.essays.len() {
            return Err(Rejected::Inconsistent { reason: "it does not have one essay for each slot" });
        }
        let mut slots = (*self.batch.essays).clone();
        let by_id = self.batch.slots_by_id();
        let mut named = HashSet::new();
        for essay in essays {
            let Some(&slot) = by_id.get(essay.essay_id.as_str()) else {
                return Err(Rejected::Inconsistent { reason: "it has an essay that the batch does not have" });
            };
            // Not the empty slots decide: some may have been filled before this message.
            if !named.insert(slot) {
                return Err(Rejected::Inconsistent { reason: "it has an essay twice" });
            }
            let content = &mut slots[usize::from(slot)].content;
            let file_name = content.take().map_or_else(|| essay.essay_id.clone(), |content| content.file_name);
            *content = Some(EssayContent { file_name, text_storage_id: essay.text_storage_id.clone() });
        }
        self.batch.essays_received = Slot::try_from(slots.len()).unwrap_or(Slot::MAX);
        self.batch.essays = Arc::new(slots);
        self.be_provisioned();
        Ok(())
    }

    pub(super) fn amend_prompt(&mut self, by: &str, prompt: StorageReferences) -> Result<(), Rejected> {
        self.require_owner(by)?;
        if self.batch.requested_phases().next().is_some() {
            return Err(Rejected::ProcessingHasBegun);
        }
        require_small(&prompt)?;
        Arc::make_mut(&mut self.batch.details).student_prompt_ref = Some(prompt);
        self.changed = true;
        Ok(())
    }

    /// A guest batch needs nobody's confirmation; the students of a regular one are looked for (contract, Who sends
    /// what).
    fn be_provisioned(&mut self) {
        if self.batch.details.class.is_some() { self.await_students() } else { self.become_ready() }
    }

    pub(super) fn become_ready(&mut self) {
        self.batch.status = BatchStatus::ReadyForPipelineExecution;
        self.changed = true;
    }

    fn announce_provisioning(&mut self) {
        let essays = self.original_essays();
        let count = u32::from(self.batch.essays_received);
        let data = Data::ContentProvisioned(BatchContentProvisioningCompleted {
            event: EventName::BatchContentProvisioningCompleted.as_str().to_owned(),
            batch_id: self.batch.id.to_string(),
            provisioned_count: count,
            expected_count: count,
            course_code: self.batch.details.course_code,
            user_id: self.batch.details.user_id.clone(),
            essays_for_processing: essays,
            correlation_id: Some(self.context.correlation_id),
            timestamp: Some(self.context.now.to_timestamp()),
        });
        self.publish(data, self.context.correlation_id, None);
    }
}
