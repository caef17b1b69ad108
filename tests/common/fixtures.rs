//! The files of the contract: samples, schemas and tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use rephase::contract::Topic;
use serde_json::Value;

/// A file or folder of the contract.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contract").join(name)
}

/// A file of the contract, as JSON.
pub fn json(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every JSON file in a folder of the contract, by its name without the ending. A folder without any is an error: a
/// test over nothing would pass.
pub fn folder(name: &str) -> BTreeMap<String, Value> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path(name)).expect("the fixtures are part of the repository") {
        let path = entry.expect("the folder can be read").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8").to_owned();
        files.insert(stem.clone(), json(&format!("{name}/{stem}.json")));
    }
    assert!(!files.is_empty(), "{name} has no files");
    files
}

/// The schema of a type, as it is in its file.
pub fn schema(name: &str) -> Value {
    json(&format!("schemas/{name}.json"))
}

/// The schema of a type, with `format` checked as well.
pub fn validator(name: &str) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .build(&schema(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails with all that is wrong with `value`.
pub fn assert_valid(schema_name: &str, value: &Value, what: &str) {
    let errors: Vec<_> =
        validator(schema_name).iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what} is no {schema_name}:\n{errors:#?}\n{value:#}");
}

/// The schema of the `data` of a topic's messages.
pub const fn schema_of(topic: Topic) -> &'static str {
    match topic {
        Topic::BatchAiFeedbackInitiateCommand => "BatchServiceAIFeedbackInitiateCommandDataV1",
        Topic::BatchCjAssessmentInitiateCommand => "BatchServiceCJAssessmentInitiateCommandDataV1",
        Topic::BatchContentProvisioningCompleted => "BatchContentProvisioningCompletedV1",
        Topic::BatchEssaysReady => "BatchEssaysReady",
        Topic::BatchEssaysRegistered => "BatchEssaysRegistered",
        Topic::BatchNlpInitiateCommandV2 => "BatchServiceNLPInitiateCommandDataV2",
        Topic::BatchPhaseSkipped => "PhaseSkippedV1",
        Topic::BatchPipelineCompleted => "BatchPipelineCompletedV1",
        Topic::BatchSpellcheckInitiateCommand => "BatchServiceSpellcheckInitiateCommandDataV1",
        Topic::BatchStudentMatchingInitiateCommand => "BatchServiceStudentMatchingInitiateCommandDataV1",
        Topic::BatchValidationErrors => "BatchValidationErrorsV1",
        Topic::ClientBatchPipelineRequest => "ClientBatchPipelineRequestV1",
        Topic::ElsBatchPhaseOutcome => "ELSBatchPhaseOutcomeV1",
        Topic::EssayContentProvisioned => "EssayContentProvisionedV1",
        Topic::PipelineDenied => "PipelineDeniedV1",
        Topic::StudentAssociationsConfirmed => "StudentAssociationsConfirmedV1",
        Topic::TeacherNotificationRequested => "TeacherNotificationRequestedV1",
    }
}

/// The schema that `schema` stands for, where it is only a reference or may be null besides.
pub fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").expect("references stay within the file");
        return resolved(root, &root["$defs"][name]);
    }
    match schema["anyOf"].as_array() {
        Some(choices) => resolved(root, &choices[0]),
        None => schema,
    }
}
