//! The state of a batch's pipelines, as clients and services read it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::enums::PipelineExecutionStatus;

/// How the essays of a phase came out so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EssayProcessingCounts {
    /// Essays that the phase got.
    pub total: u32,
    /// Those still to be processed.
    pub pending_dispatch_or_processing: u32,
    /// Those that succeeded.
    pub successful: u32,
    /// Those that failed.
    pub failed: u32,
}

/// One phase of a [`ProcessingPipelineState`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineStateDetail<Info = Map<String, Value>> {
    /// Where the phase stands.
    #[serde(default = "requested_by_user")]
    pub status: PipelineExecutionStatus,
    /// How its essays came out.
    #[serde(default)]
    pub essay_counts: EssayProcessingCounts,
    /// When its newest attempt was dispatched.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When its newest attempt ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// Why it failed, with `retry_count` and `retry_history`; free in form.
    #[serde(default = "none")]
    pub error_info: Option<Info>,
    /// How far it is, 0 to 100.
    #[serde(default)]
    pub progress_percentage: Option<f64>,
}

/// What serde would make a default of only where `Info` has one.
fn none<Info>() -> Option<Info> {
    None
}

fn requested_by_user() -> PipelineExecutionStatus {
    PipelineExecutionStatus::RequestedByUser
}

/// The phases of one batch. A phase that was never asked for is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessingPipelineState<Info = Map<String, Value>> {
    /// The batch.
    pub batch_id: String,
    /// The phases of all pipelines asked for, in the order they run.
    pub requested_pipelines: Vec<String>,
    /// The spellcheck.
    #[serde(default = "none")]
    pub spellcheck: Option<PipelineStateDetail<Info>>,
    /// The linguistic analysis.
    #[serde(default = "none")]
    pub nlp: Option<PipelineStateDetail<Info>>,
    /// The feedback.
    #[serde(default = "none")]
    pub ai_feedback: Option<PipelineStateDetail<Info>>,
    /// The comparative judgement.
    #[serde(default = "none")]
    pub cj_assessment: Option<PipelineStateDetail<Info>>,
    /// When any of it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Timestamp>,
}
