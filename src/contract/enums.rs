//! The enumerations of the wire, each value exactly as it is spelled there.

/// An enum whose variants are strings on the wire, with the list of all of them.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $wire:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(#[doc = concat!("`", $wire, "`")] #[serde(rename = $wire)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value as it is spelled on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire,)+ }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let values: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                schemars::json_schema!({ "type": "string", "enum": values })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::contract::enums::UnknownValue;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.as_str() == text)
                    .ok_or(crate::contract::enums::UnknownValue { kind: stringify!($name) })
            }
        }
    };
}
pub(crate) use wire_enum;

/// A string that is none of the enum's values. It does not repeat the string, which came from outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a value of {kind}")]
pub struct UnknownValue {
    /// The name of the enum.
    pub kind: &'static str,
}

wire_enum! {
    /// A phase of a pipeline; `student_matching` belongs to readiness (contract, Phases and pipelines).
    PhaseName {
        Spellcheck = "spellcheck",
        AiFeedback = "ai_feedback",
        CjAssessment = "cj_assessment",
        Nlp = "nlp",
        StudentMatching = "student_matching",
    }
}

wire_enum! {
    /// Where one phase of one batch stands.
    PipelineExecutionStatus {
        RequestedByUser = "requested_by_user",
        PendingDependencies = "pending_dependencies",
        DispatchInitiated = "dispatch_initiated",
        InProgress = "in_progress",
        CompletedSuccessfully = "completed_successfully",
        CompletedWithPartialSuccess = "completed_with_partial_success",
        Failed = "failed",
        SkippedDueToDependencyFailure = "skipped_due_to_dependency_failure",
        SkippedByUserConfig = "skipped_by_user_config",
        Cancelled = "cancelled",
    }
}

wire_enum! {
    /// Where a batch stands, as the services see it. Also the status of an `ELSBatchPhaseOutcomeV1`.
    BatchStatus {
        AwaitingContentValidation = "awaiting_content_validation",
        ContentIngestionFailed = "content_ingestion_failed",
        AwaitingPipelineConfiguration = "awaiting_pipeline_configuration",
        ReadyForPipelineExecution = "ready_for_pipeline_execution",
        ProcessingPipelines = "processing_pipelines",
        AwaitingStudentValidation = "awaiting_student_validation",
        StudentValidationCompleted = "student_validation_completed",
        ValidationTimeoutProcessed = "validation_timeout_processed",
        CompletedSuccessfully = "completed_successfully",
        CompletedWithFailures = "completed_with_failures",
        FailedCritically = "failed_critically",
        Cancelled = "cancelled",
    }
}

wire_enum! {
    /// Where a batch stands, as a client sees it.
    BatchClientStatus {
        PendingContent = "pending_content",
        Ready = "ready",
        Processing = "processing",
        CompletedSuccessfully = "completed_successfully",
        CompletedWithFailures = "completed_with_failures",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

wire_enum! {
    /// The course a batch was written for; it fixes the language.
    CourseCode {
        Eng5 = "ENG5",
        Eng6 = "ENG6",
        Eng7 = "ENG7",
        Sv1 = "SV1",
        Sv2 = "SV2",
        Sv3 = "SV3",
    }
}

wire_enum! {
    /// The language of a course, as ISO 639-1.
    Language {
        En = "en",
        Sv = "sv",
    }
}

wire_enum! {
    /// What a stored content is.
    ContentType {
        OriginalEssay = "original_essay",
        CorrectedText = "corrected_text",
        ProcessingLog = "processing_log",
        NlpMetricsJson = "nlp_metrics_json",
        StudentFacingAiFeedbackText = "student_facing_ai_feedback_text",
        AiEditorRevisionText = "ai_editor_revision_text",
        AiDetailedAnalysisJson = "ai_detailed_analysis_json",
        GrammarAnalysisJson = "grammar_analysis_json",
        CjResultsJson = "cj_results_json",
        RawUploadBlob = "raw_upload_blob",
        ExtractedPlaintext = "extracted_plaintext",
        StudentPromptText = "student_prompt_text",
    }
}

wire_enum! {
    /// The stage a processed entity is in, inside `SystemProcessingMetadata`.
    ProcessingStage {
        Pending = "pending",
        Initialized = "initialized",
        Processing = "processing",
        Completed = "completed",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

wire_enum! {
    /// How a student association was confirmed.
    ValidationMethod {
        Human = "human",
        Timeout = "timeout",
        Auto = "auto",
    }
}

wire_enum! {
    /// How urgent a notification is.
    NotificationPriority {
        Critical = "critical",
        Immediate = "immediate",
        High = "high",
        Standard = "standard",
        Low = "low",
    }
}

wire_enum! {
    /// What a notification is about.
    NotificationCategory {
        BatchProgress = "batch_progress",
        ProcessingResults = "processing_results",
        FileOperations = "file_operations",
        ClassManagement = "class_management",
        StudentWorkflow = "student_workflow",
        SystemAlerts = "system_alerts",
    }
}

impl CourseCode {
    /// The language the course is taught in (contract, Phases and pipelines).
    #[must_use]
    pub const fn language(self) -> Language {
        match self {
            Self::Eng5 | Self::Eng6 | Self::Eng7 => Language::En,
            Self::Sv1 | Self::Sv2 | Self::Sv3 => Language::Sv,
        }
    }
}

impl BatchStatus {
    /// What a client is shown for this status (contract, Phases and pipelines).
    #[must_use]
    pub const fn for_client(self) -> BatchClientStatus {
        match self {
            Self::AwaitingContentValidation | Self::AwaitingPipelineConfiguration => BatchClientStatus::PendingContent,
            Self::ContentIngestionFailed | Self::FailedCritically => BatchClientStatus::Failed,
            Self::ReadyForPipelineExecution => BatchClientStatus::Ready,
            Self::ProcessingPipelines
            | Self::AwaitingStudentValidation
            | Self::StudentValidationCompleted
            | Self::ValidationTimeoutProcessed => BatchClientStatus::Processing,
            Self::CompletedSuccessfully => BatchClientStatus::CompletedSuccessfully,
            Self::CompletedWithFailures => BatchClientStatus::CompletedWithFailures,
            Self::Cancelled => BatchClientStatus::Cancelled,
        }
    }
}
