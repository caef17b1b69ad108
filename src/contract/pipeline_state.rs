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
pub struct PipelineStateDetail {
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
    /// Why it failed, with `retry_count` and `retry_history`.
    #[serde(default)]
    pub error_info: Option<Map<String, Value>>,
    /// How far it is, 0 to 100.
    #[serde(default)]
    pub progress_percentage: Option<f64>,
}

fn requested_by_user() -> PipelineExecutionStatus {
    PipelineExecutionStatus::RequestedByUser
}

/// The phases of one batch. A phase that was never asked for is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessingPipelineState {
    /// The batch.
    pub batch_id: String,
    /// The phases of all pipelines asked for, in the order they run.
    pub requested_pipelines: Vec<String>,
    /// The spellcheck.
    #[serde(default)]
    pub spellcheck: Option<PipelineStateDetail>,
    /// The linguistic analysis.
    #[serde(default)]
    pub nlp: Option<PipelineStateDetail>,
    /// The feedback.
    #[serde(default)]
    pub ai_feedback: Option<PipelineStateDetail>,
    /// The comparative judgement.
    #[serde(default)]
    pub cj_assessment: Option<PipelineStateDetail>,
    /// When any of it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Timestamp>,
}
