//! Errors of phases: whether trying again may help, and how long to wait before it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::batch::BatchId;
use super::phase::Phase;
use crate::contract::ErrorCode;

/// Whether the same thing may succeed when it is tried again (contract, Idempotent consumer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// It may.
    Transient,
    /// It will not.
    Permanent,
}

impl JsonSchema for Category {
    fn schema_name() -> Cow<'static, str> {
        "Category".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": [Self::Transient.as_str(), Self::Permanent.as_str()] })
    }
}

impl Category {
    /// As the wire has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }

    /// The category of an error whose worker did not say it: transient where something was not there, not reachable, too
    /// busy or broke in an unknown way; permanent where the request, the text or the configuration is wrong.
    #[must_use]
    pub const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::UnknownError
            | ErrorCode::ExternalServiceError
            | ErrorCode::KafkaPublishError
            | ErrorCode::ContentServiceError
            | ErrorCode::SpellcheckServiceError
            | ErrorCode::NlpServiceError
            | ErrorCode::AiFeedbackServiceError
            | ErrorCode::CjAssessmentServiceError
            | ErrorCode::LlmProviderServiceError
            | ErrorCode::Timeout
            | ErrorCode::ConnectionError
            | ErrorCode::ServiceUnavailable
            | ErrorCode::RateLimit
            | ErrorCode::InvalidResponse
            | ErrorCode::CircuitBreakerOpen
            | ErrorCode::RequestQueued
            | ErrorCode::ProcessingError
            | ErrorCode::InitializationFailed
            | ErrorCode::CjCallbackCorrelationFailed
            | ErrorCode::RawStorageFailed
            | ErrorCode::LlmProviderUnavailable
            | ErrorCode::LlmProviderRateLimit
            | ErrorCode::LlmProviderTimeout
            | ErrorCode::LlmProviderApiError
            | ErrorCode::LlmQueueFull
            | ErrorCode::LlmInternalError
            | ErrorCode::LlmParsingError
            | ErrorCode::LlmInvalidResponse
            | ErrorCode::SpellEventCorrelationError => Self::Transient,
            ErrorCode::ValidationError
            | ErrorCode::ResourceNotFound
            | ErrorCode::ConfigurationError
            | ErrorCode::MissingRequiredField
            | ErrorCode::InvalidConfiguration
            | ErrorCode::QuotaExceeded
            | ErrorCode::AuthenticationError
            | ErrorCode::AuthorizationError
            | ErrorCode::InvalidApiKey
            | ErrorCode::InvalidRequest
            | ErrorCode::ParsingError
            | ErrorCode::BcsPipelineDependencyResolutionFailed
            | ErrorCode::BcsPipelineDependencyCycleDetected
            | ErrorCode::BcsPipelineCompatibilityFailed
            | ErrorCode::CjInsufficientComparisons
            | ErrorCode::CjScoreConvergenceFailed
            | ErrorCode::CjComparisonImbalance
            | ErrorCode::CourseNotFound
            | ErrorCode::CourseValidationError
            | ErrorCode::MultipleCourseError
            | ErrorCode::ClassNotFound
            | ErrorCode::StudentNotFound
            | ErrorCode::EmptyContent
            | ErrorCode::ContentTooShort
            | ErrorCode::ContentTooLong
            | ErrorCode::TextExtractionFailed
            | ErrorCode::EncryptedFileUnsupported
            | ErrorCode::UnknownValidationError
            | ErrorCode::IdentityInvalidCredentials
            | ErrorCode::IdentityUserNotFound
            | ErrorCode::IdentityUserAlreadyExists
            | ErrorCode::IdentityEmailNotVerified
            | ErrorCode::IdentityAccountLocked
            | ErrorCode::IdentityTokenExpired
            | ErrorCode::IdentityTokenInvalid
            | ErrorCode::IdentityRefreshTokenInvalid
            | ErrorCode::IdentityRefreshTokenExpired
            | ErrorCode::IdentityVerificationTokenExpired
            | ErrorCode::IdentityVerificationTokenInvalid
            | ErrorCode::IdentityEmailAlreadyVerified
            | ErrorCode::IdentityResetTokenExpired
            | ErrorCode::IdentityResetTokenInvalid
            | ErrorCode::IdentityPasswordResetNotRequested
            | ErrorCode::LlmInvalidPrompt
            | ErrorCode::LlmContentTooLong
            | ErrorCode::LlmInvalidConfig
            | ErrorCode::LlmCallbackTopicMissing
            | ErrorCode::LlmInvalidCallbackTopic
            | ErrorCode::LlmCostLimitExceeded
            | ErrorCode::LlmConfigurationError => Self::Permanent,
        }
    }
}

/// The most characters of a worker's error message that are kept.
pub const MAX_ERROR_MESSAGE_CHARS: usize = 1_000;

/// Why a phase, or one essay in it, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SaidError")]
pub struct PhaseError {
    /// Which error it is.
    pub error_code: ErrorCode,
    /// Whether trying again may help.
    pub category: Category,
    /// What a person reads; at most [`MAX_ERROR_MESSAGE_CHARS`] characters.
    pub message: String,
}

/// An error as a worker says it.
#[derive(Deserialize)]
struct SaidError {
    error_code: ErrorCode,
    category: Option<Category>,
    message: Option<String>,
}

impl From<SaidError> for PhaseError {
    fn from(said: SaidError) -> Self {
        let category = said.category.unwrap_or_else(|| Category::of(said.error_code));
        Self::new(said.error_code, category, said.message.as_deref().unwrap_or_default())
    }
}

impl PhaseError {
    /// The error, with no more of its message than is kept.
    #[must_use]
    pub fn new(error_code: ErrorCode, category: Category, message: &str) -> Self {
        Self { error_code, category, message: message.chars().take(MAX_ERROR_MESSAGE_CHARS).collect() }
    }
}

/// How often, and after how long, a phase that failed for a transient reason is tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many attempts there are in a row, the first included; 1 for none by itself.
    pub max_attempts: u32,
    /// The longest wait before the second attempt, in milliseconds.
    pub base_ms: u64,
    /// How much longer the wait may be before each further one.
    pub factor: u32,
    /// The longest wait of all, in milliseconds.
    pub max_ms: u64,
}

impl Default for RetryPolicy {
    /// Three attempts, a second, twice as long each time, at most a minute.
    fn default() -> Self {
        Self { max_attempts: 3, base_ms: 1_000, factor: 2, max_ms: 60_000 }
    }
}

impl RetryPolicy {
    /// A policy that never tries again by itself.
    #[must_use]
    pub fn never() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// How long to wait after the `tried`th attempt in a row, in milliseconds: exponential backoff with full jitter,
    /// anything from one to the longest, and nothing only where that is the longest: who sees that an attempt is to come
    /// can count on some time before it. The draw is made of the attempt, so that the step stays without randomness and
    /// different batches still spread out.
    #[must_use]
    pub fn wait_ms(&self, batch: BatchId, phase: Phase, attempt: u32, tried: u32) -> u64 {
        let factor = u64::from(self.factor).saturating_pow(tried.saturating_sub(1));
        let longest = self.base_ms.saturating_mul(factor).min(self.max_ms);
        let draw = Uuid::new_v5(&batch.0, format!("backoff/{phase}/{attempt}").as_bytes()).as_u64_pair().0;
        if longest == 0 { 0 } else { 1 + draw % longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_up_to_its_limit_and_is_spread_over_all_of_it() {
        let policy = RetryPolicy { max_attempts: 9, base_ms: 1_000, factor: 2, max_ms: 5_000 };
        for (tried, longest) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (60, 5_000)] {
            let wait = |n: u128| policy.wait_ms(BatchId(Uuid::from_u128(n)), Phase::Nlp, tried, tried);
            let waits: Vec<_> = (0..500).map(wait).collect();
            assert!(waits.iter().all(|wait| (1..=longest).contains(wait)), "{tried}");
            assert!(waits.iter().any(|wait| *wait < longest / 10), "{tried}: never short");
            assert!(waits.iter().any(|wait| *wait > longest - longest / 10), "{tried}: never long");
            assert_eq!(wait(7), wait(7));
        }
    }

    #[test]
    fn there_is_always_some_wait_unless_none_is_wanted() {
        let wait = |base_ms, n: u128| {
            let policy = RetryPolicy { base_ms, ..RetryPolicy::default() };
            policy.wait_ms(BatchId(Uuid::from_u128(n)), Phase::Spellcheck, 1, 1)
        };
        assert!((0..100).all(|n| wait(0, n) == 0));
        assert!((0..100).all(|n| wait(1, n) == 1));
        assert!((0..100).any(|n| wait(2, n) == 2));
    }
}
