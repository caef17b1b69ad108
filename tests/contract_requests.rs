//! The contract's second rule: strings of a client request are trimmed before they are checked, and then held to the
//! limits of the schemas, counted in characters.

mod common;

use common::fixtures::{json as fixture, validator};
use rephase::contract::requests::{BatchRegistrationRequest, ClientBatchPipelineRequest, PromptPayload};
use rephase::contract::{Text, TextError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PIPELINE_REQUEST: &str = "ClientBatchPipelineRequestV1";

/// A pipeline request that is right, with `value` at `pointer`.
fn pipeline_request(pointer: &str, value: &str) -> Value {
    let mut data = fixture("samples/client_batch_pipeline_request_retry.json")["data"].clone();
    data["prompt_payload"] = json!({ "assignment_id": "assignment-1", "cms_prompt_ref": null });
    *data.pointer_mut(pointer).expect("a member of the request") = value.into();
    data
}

fn registration(pointer: &str, value: &str) -> Value {
    let mut body = fixture("samples/batch_registration_request.json");
    body["essay_ids"] = json!(["essay-1"]);
    *body.pointer_mut(pointer).expect("a member of the registration") = value.into();
    body
}

/// What is at `pointer` once the request was read.
fn read<T: DeserializeOwned + Serialize>(request: Value, pointer: &str) -> Result<String, String> {
    let request: T = serde_json::from_value(request).map_err(|error| error.to_string())?;
    let written = serde_json::to_value(request).expect("a request is JSON");
    Ok(written.pointer(pointer).and_then(Value::as_str).expect("a string, as it was sent").to_owned())
}

type Request = fn(&str, &str) -> Value;
type Read = fn(Value, &str) -> Result<String, String>;

/// Every limited string of a client request: where it is, and how few and how many characters it may have.
const LIMITED: [(Request, Read, &str, usize, usize); 11] = [
    (pipeline_request, read::<ClientBatchPipelineRequest>, "/batch_id", 1, 255),
    (pipeline_request, read::<ClientBatchPipelineRequest>, "/user_id", 1, 255),
    (pipeline_request, read::<ClientBatchPipelineRequest>, "/requested_pipeline", 1, 100),
    (pipeline_request, read::<ClientBatchPipelineRequest>, "/retry_reason", 0, 500),
    (pipeline_request, read::<ClientBatchPipelineRequest>, "/prompt_payload/assignment_id", 0, 100),
    (registration, read::<BatchRegistrationRequest>, "/user_id", 1, 255),
    (registration, read::<BatchRegistrationRequest>, "/essay_ids/0", 1, 255),
    (registration, read::<BatchRegistrationRequest>, "/org_id", 0, 255),
    (registration, read::<BatchRegistrationRequest>, "/class_id", 0, 255),
    (registration, read::<BatchRegistrationRequest>, "/cj_default_llm_model", 0, 255),
    (registration, read::<BatchRegistrationRequest>, "/assignment_id", 0, 100),
];

#[test]
fn limits_are_counted_in_characters() {
    for (request, read, pointer, _, most) in LIMITED {
        for character in ["x", "å", "😀", "e\u{301}"] {
            let size = character.chars().count();
            let fits = character.repeat(most / size);
            assert_eq!(read(request(pointer, &fits), pointer), Ok(fits.clone()), "{pointer}");
            let error = read(request(pointer, &(fits + character)), pointer).expect_err(pointer);
            assert!(error.contains(&format!("at most {most} characters")), "{pointer}: {error}");
        }
    }
}

#[test]
fn empty_strings_are_refused_where_the_schema_asks_for_a_character() {
    for (request, read, pointer, least, _) in LIMITED {
        for blank in ["", " ", " \t\r\n\u{a0}"] {
            let result = read(request(pointer, blank), pointer);
            if least == 0 {
                assert_eq!(result, Ok(String::new()), "{pointer}");
            } else {
                let error = result.expect_err(pointer);
                assert!(error.contains("at least 1 character"), "{pointer}: {error}");
            }
        }
    }
}

#[test]
fn white_space_around_a_string_does_not_count_and_is_not_kept() {
    for (request, read, pointer, _, most) in LIMITED {
        let longest = "å".repeat(most);
        for (sent, kept) in [("  a b\t\n", "a b"), (&*format!("\n {longest}\u{a0} "), &*longest)] {
            assert_eq!(read(request(pointer, sent), pointer).as_deref(), Ok(kept), "{pointer}");
        }
    }
}

/// Where nothing is trimmed, our types and the schema agree about every length near a limit.
#[test]
fn our_limits_are_those_of_the_schema() {
    let schema = validator(PIPELINE_REQUEST);
    for (pointer, limit) in [
        ("/batch_id", 255),
        ("/user_id", 255),
        ("/requested_pipeline", 100),
        ("/retry_reason", 500),
        ("/prompt_payload/assignment_id", 100),
    ] {
        for length in [0, 1, limit - 1, limit, limit + 1] {
            for character in ["x", "å", "😀"] {
                let request = pipeline_request(pointer, &character.repeat(length));
                let valid = schema.is_valid(&request);
                let is_read = read::<ClientBatchPipelineRequest>(request, pointer).is_ok();
                assert_eq!(is_read, valid, "{pointer} of {length} × {character}");
            }
        }
    }
}

#[test]
fn the_members_of_a_pipeline_request_that_may_be_left_out_have_defaults() {
    let least = json!({ "batch_id": "b", "requested_pipeline": "nlp", "user_id": "u" });
    let request: ClientBatchPipelineRequest =
        serde_json::from_value(least).expect("nothing that is required is missing");
    assert!(!request.is_retry);
    assert_eq!((request.retry_reason.as_ref(), request.prompt_payload.as_ref()), (None, None));
    assert_eq!(
        serde_json::to_value(request).expect("JSON"),
        json!({
            "batch_id": "b",
            "requested_pipeline": "nlp",
            "user_id": "u",
            "is_retry": false,
            "retry_reason": null,
            "prompt_payload": null,
        }),
        "nulls are written; only the id that the sender would have made up is not"
    );
    let payload: PromptPayload = serde_json::from_value(json!({})).expect("both members may be left out");
    assert_eq!(payload, PromptPayload { assignment_id: None, cms_prompt_ref: None });
}

#[test]
fn what_is_no_string_is_no_text() {
    for value in [json!(1), json!(null), json!(["a"]), json!({})] {
        assert!(serde_json::from_value::<Text<0, 10>>(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn a_text_says_what_is_wrong_with_it_and_keeps_inner_white_space() {
    assert_eq!(Text::<2, 3>::new(" a "), Err(TextError::TooShort { min: 2 }));
    assert_eq!(Text::<2, 3>::new("abcd"), Err(TextError::TooLong { max: 3 }));
    let text = Text::<2, 3>::new("\ta b ").expect("three characters");
    assert_eq!((text.as_str(), text.to_string(), format!("{text:?}")), ("a b", "a b".to_owned(), "\"a b\"".to_owned()));
    assert_eq!(text.into_string(), "a b");
}
