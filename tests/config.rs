//! The promise "what is in force can be told": flags before variables before the file before defaults; and a slip is an
//! error that names what was meant.

mod harness;

use std::path::PathBuf;
use std::process::Command;

use harness::{Process, run};
use serde_json::{Value, json};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("rephase.toml");
        std::fs::write(&path, text).expect("written");
        path
    }
}

/// `rephase config` with nothing of the environment of the tests.
fn config(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
    command.env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REPHASE_") {
            command.env_remove(name);
        }
    }
    command.arg("config").args(arguments).envs(variables.iter().copied());
    command
}

/// What is in force.
fn shown(arguments: &[&str], variables: &[(&str, &str)]) -> Value {
    let (code, output, errors) = run(config(&[arguments, &["--json"]].concat(), variables));
    assert_eq!((code, errors.as_str()), (0, ""));
    serde_json::from_str(&output).expect("JSON")
}

#[test]
fn flags_come_before_variables_before_the_file_before_defaults() {
    let files = Files::new();
    let path = files.write("# one\nseed = 1\nmax-retries = 2\n");
    let path = path.to_str().expect("UTF-8");
    let default = shown(&[], &[]);
    assert_eq!(default["seed"], json!({ "value": 0, "source": "default" }));
    assert_eq!(default["retain"], json!({ "value": null, "source": "default" }));
    let file = shown(&["--config", path], &[]);
    assert_eq!(file["seed"], json!({ "value": 1, "source": "file", "file": path, "line": 2 }));
    assert_eq!(file["max-retries"]["line"], 3);
    let named = shown(&[], &[("REPHASE_CONFIG", path)]);
    assert_eq!((&named["seed"]["value"], &named["config"]["source"]), (&json!(1), &json!("environment")));
    let variable = shown(&["--config", path], &[("REPHASE_SEED", "3")]);
    assert_eq!(variable["seed"], json!({ "value": 3, "source": "environment", "variable": "REPHASE_SEED" }));
    assert_eq!(variable["max-retries"]["value"], 2);
    let flag = shown(&["--config", path, "--seed", "4"], &[("REPHASE_SEED", "3")]);
    assert_eq!(flag["seed"], json!({ "value": 4, "source": "flag" }));
}

#[test]
fn every_option_can_be_said_in_every_place() {
    let (_, help, _) = run(config(&["--help"], &[]));
    let options = shown(&[], &[]);
    for name in options.as_object().expect("an object").keys() {
        let variable = format!("REPHASE_{}", name.to_uppercase().replace('-', "_"));
        assert!(help.contains(&format!("[env: {variable}]")), "{variable} is not in the help");
    }
    let files = Files::new();
    let path = files.write(
        r#"
listen = "127.0.0.1:0"
data_dir = "somewhere"
end-with-stdin = true
test_api = false
latency-ms = 5
retain = "90d"
cors-origin = ["https://a.example", "https://b.example"]
retry-policy = ["nlp=2", "all=1"]

[workers]
nlp = "remote"
spellcheck = "events"

[deadline]
all = 60
"#,
    );
    let path = path.to_str().expect("UTF-8");
    let all = shown(&["--config", path], &[("REPHASE_TEST_API", "yes"), ("REPHASE_DEADLINE", "nlp=5,all=6")]);
    let several = shown(&[], &[("REPHASE_RETRY_POLICY", "nlp=2,50;all=1")]);
    assert_eq!(several["retry-policy"]["value"], json!(["nlp=2,50", "all=1"]));
    for (name, value) in [
        ("data-dir", json!("somewhere")),
        ("end-with-stdin", json!(true)),
        ("test-api", json!(true)),
        ("latency-ms", json!("5")),
        ("cors-origin", json!(["https://a.example", "https://b.example"])),
        ("retry-policy", json!(["nlp=2", "all=1"])),
        ("retain", json!("90d")),
        ("workers", json!(["nlp=remote", "spellcheck=events"])),
        ("deadline", json!(["nlp=5", "all=6"])),
    ] {
        assert_eq!(all[name]["value"], value, "{name}");
    }
    // What is printed is a file that says the same.
    let (code, output, _) = run(config(&["--config", path], &[]));
    assert_eq!(code, 0);
    assert!(output.contains(&format!("# {path} line 2")), "{output}");
    let again = files.write(&output);
    let again = shown(&["--config", again.to_str().expect("UTF-8")], &[]);
    let before = shown(&[], &[]);
    assert_eq!(again["workers"]["value"], json!(["nlp=remote", "spellcheck=events"]));
    assert_eq!(again["journal-mib"]["value"], before["journal-mib"]["value"]);
}

#[test]
fn a_slip_in_the_file_is_named_with_its_line_and_what_was_meant() {
    let files = Files::new();
    for (text, said) in [
        ("jornal-mib = 1", "line 1: there is no option jornal-mib; did you mean journal-mib?"),
        ("\n\nadmin-token = \"secret\"", "line 3: there is no option admin-token; did you mean admin-token-file?"),
        ("[worker]\nnlp = \"remote\"", "line 1: there is no option worker; did you mean workers?"),
        ("json = true", "there is no option json"),
        ("config = \"other.toml\"", "cannot name another"),
        ("LISTEN = \"127.0.0.1:0\"", "there is no option LISTEN; did you mean listen?"),
        ("url = \"a\"", "line 1: there is no option url\n"),
        ("zzzzzzz = 1", "line 1: there is no option zzzzzzz\n"),
        ("cors-origin = 5", "line 1: cors-origin is a string, not an integer"),
        ("data-dir = 5", "data-dir is a string, not an integer"),
        ("[workers]\nspelcheck = \"remote\"", "line 2: workers: invalid value 'spelcheck=remote'"),
        ("[workers]\nspelcheck = \"remote\"", "did you mean spellcheck?"),
        ("deadline = [\n\"nlp=5\",\n\"nlp=x\"]", "line 3: deadline: invalid value 'nlp=x'"),
        ("[deadline]\nnlp = 5\nall = \"x\"", "line 3: deadline: invalid value 'all=x'"),
        ("seed = \"7\"", "line 1: seed is an integer, not a string"),
        ("seed = 1.5", "seed is an integer, not a float"),
        ("seed = -1", "seed: invalid value '-1'"),
        ("seed = [1]", "seed is an integer, not an array"),
        ("retain = \"5\"", "line 1: retain: invalid value '5' for '--retain <TIME>': give days or hours"),
        ("retain = 5", "retain is a string with its unit, as \"90d\" or \"12h\", not an integer"),
        ("student-validation = 5", "student-validation is a string with its unit"),
        ("ephemeral = \"yes\"", "ephemeral is true or false, not a string"),
        ("listen = true", "listen is a string, not a boolean"),
        ("listen = { a = 1 }", "listen is a string, not a table"),
        ("journal-mib = 100000", "journal-mib: invalid value '100000'"),
        ("auth = \"nobody\"", "[possible values: dev, jwt]"),
        ("[workers]\nnlp = \"who\"", "line 2: workers: invalid value 'nlp=who'"),
        ("data-dir = \"a\"\ndata_dir = \"b\"", "is said twice"),
        ("seed = 1\nseed = 2", "line 2: this is no TOML"),
        ("seed = ", "line 1: this is no TOML"),
    ] {
        let path = files.write(text);
        let arguments = ["--config", path.to_str().expect("UTF-8")];
        let (code, output, errors) = run(config(&arguments, &[]));
        assert_eq!((code, output.as_str()), (2, ""), "{text}");
        assert!(errors.contains(said), "{text}: {errors}");
        let (code, output, served) = run(Process::command(&[&arguments[..], &["--ephemeral"]].concat()));
        assert_eq!((code, output.as_str(), served), (2, "", errors), "{text}");
    }
    // All of them at once.
    let path = files.write("sed = 1\nlisen = 2\n");
    let (_, _, errors) = run(config(&["--config", path.to_str().expect("UTF-8")], &[]));
    assert!(errors.contains("line 1: ") && errors.contains("line 2: "), "{errors}");
    let (code, _, errors) = run(config(&["--config", "there/is/none.toml"], &[]));
    assert!(code == 2 && errors.contains("none.toml cannot be read"), "{errors}");
}

#[test]
fn a_slip_in_a_variable_is_told() {
    let (code, _, errors) = run(config(&[], &[("REPHASE_LISTN", "x"), ("REPHASE_SEED", "1")]));
    assert_eq!(code, 0);
    assert!(errors.contains("REPHASE_LISTN; did you mean REPHASE_LISTEN?"), "{errors}");
    assert!(!errors.contains("REPHASE_SEED"), "{errors}");
    let (code, _, errors) = run(config(&[], &[("REPHASE_SEED", "x")]));
    assert!(code == 2 && errors.contains("REPHASE_SEED: invalid value 'x' for '--seed"), "{errors}");
    let (code, _, errors) = run(config(&["--seed", "x"], &[("REPHASE_SEED", "1")]));
    assert!(code == 2 && errors.contains("--seed") && !errors.contains("REPHASE_SEED:"), "{errors}");
    // What is near no name is not guessed at, and what the clients of the program read is none of this.
    let (_, _, errors) = run(config(&[], &[("REPHASE_ZZZZZZZ", "x")]));
    assert_eq!(errors, "rephase: nothing reads the variable REPHASE_ZZZZZZZ\n");
    let clients = [("REPHASE_URL", "http://a"), ("REPHASE_USER", "u"), ("REPHASE_TOKEN", "t")];
    assert_eq!(run(config(&[], &clients)).2, "");
}

#[test]
fn a_slip_in_an_error_code_of_a_fault_is_told_with_what_was_meant() {
    let files = Files::new();
    for (code, meant) in [("AI_QUOTA", "; did you mean QUOTA_EXCEEDED?"), ("NLP_SERVICE_EROR", "NLP_SERVICE_ERROR?")] {
        let path = files
            .write(&json!([{ "phase": "nlp", "delay_ms": 1 }, { "phase": "nlp", "error_code": code }]).to_string());
        let (got, _, errors) = run(Process::command(&["--ephemeral", "--faults", path.to_str().expect("UTF-8")]));
        assert!(got == 2 && errors.contains(&format!("fault rule 2: there is no error_code '{code}'")), "{errors}");
        assert!(errors.contains(meant) && errors.contains("/openapi.json"), "{errors}");
    }
    // Those that README lists there are.
    let readme = include_str!("../README.md");
    let listed = readme.split("the usual codes are").nth(1).and_then(|rest| rest.split("and `ErrorCode`").next());
    let listed: Vec<_> = listed.expect("a list").split('`').skip(1).step_by(2).collect();
    assert!(listed.len() > 5, "{listed:?}");
    for code in listed {
        let path = files.write(&json!([{ "phase": "nlp", "error_code": code }]).to_string());
        let faults = path.to_str().expect("UTF-8");
        assert_eq!(run(config(&["--faults", faults], &[])).0, 0, "{code}");
    }
}

#[test]
fn where_the_state_is_says_the_stronger_place() {
    let files = Files::new();
    let path = files.write("ephemeral = true\n");
    let path = path.to_str().expect("UTF-8");
    for (arguments, variables, code) in [
        (vec!["--ephemeral", "--data-dir", "a"], vec![], 2),
        (vec!["--ephemeral"], vec![("REPHASE_DATA_DIR", "a")], 0),
        (vec!["--data-dir", "a", "--config", path], vec![], 0),
        (vec![], vec![("REPHASE_DATA_DIR", "a"), ("REPHASE_EPHEMERAL", "true")], 2),
    ] {
        let (got, _, errors) = run(config(&arguments, &variables));
        assert_eq!(got, code, "{arguments:?} {variables:?}: {errors}");
        assert!(code == 0 || errors.contains("give one of them"), "{errors}");
    }
}

#[tokio::test]
async fn the_server_does_what_the_file_says() {
    let files = Files::new();
    let directory = files.0.path().join("state");
    let state = directory.to_str().expect("UTF-8").to_owned();
    let path = files.write(&format!("data-dir = {state:?}\npipeline-limit = 1\nephemeral = true\n"));
    let path = path.to_str().expect("UTF-8");
    let mut command = Process::command(&["--config", path, "--data-dir", &state]);
    command.env("REPHASE_LATENCY_MS", "0").env("REPHASE_EPHEMERAL", "true");
    let process = Process::spawn(command).expect("it serves");
    let batch = process.client.ready_batch(1).await;
    assert_eq!(process.client.pipeline(&batch, "spellcheck").await.status, 202);
    assert_eq!(process.client.pipeline(&batch, "nlp").await.status, 429);
    assert!(directory.join("journal").is_dir(), "the flag is stronger than the file and the variable");
}

#[test]
fn what_nobody_said_is_shown_as_it_is_in_force() {
    let default = shown(&[], &[]);
    for (name, value) in [
        ("auth", json!("dev")),
        ("workers", json!(["all=simulated"])),
        ("deadline", json!(["all=900"])),
        ("retry-policy", json!(["all=3,1000,2,60000"])),
        ("pipeline-limit", json!(20)),
        ("log", json!("info")),
    ] {
        assert_eq!(default[name], json!({ "value": value, "source": "default" }), "{name}");
    }
    let variables = [("RUST_LOG", "debug"), ("REPHASE_JWT_SECRET", "a secret of thirty-two bytes, or so")];
    let other = shown(&["--ephemeral"], &variables);
    assert_eq!(other["log"], json!({ "value": "debug", "source": "environment", "variable": "RUST_LOG" }));
    assert_eq!((&other["auth"]["value"], &other["pipeline-limit"]["value"]), (&json!("jwt"), &json!(0)));
    assert_eq!(shown(&["--log", "warn"], &variables)["log"], json!({ "value": "warn", "source": "flag" }));
    // All of it is a file, too.
    let (_, output, _) = run(config(&[], &[]));
    let files = Files::new();
    let again = files.write(&output);
    let again = shown(&["--config", again.to_str().expect("UTF-8")], &[]);
    assert_eq!((&again["deadline"]["value"], &again["log"]["value"]), (&json!(["all=900"]), &json!("info")));
}

#[test]
fn what_the_filter_of_the_log_does_not_name_is_logged_as_without_it() {
    for (filter, is_logged) in [
        ("nonsense=5", true),
        ("rephase::engine=debug", true),
        ("warn", false),
        ("rephase=warn", false),
        ("off", false),
    ] {
        let mut command = Process::command(&["--ephemeral", "--end-with-stdin", "--log", filter]);
        command.stdin(std::process::Stdio::null());
        let (code, _, errors) = run(command);
        assert_eq!((code, errors.contains("serving")), (0, is_logged), "{filter}: {errors}");
    }
}
