//! `rephase demo`: a class, a phase that fails, its retry, a batch that is complete.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::args::DemoArguments;
use super::client::Client;
use super::signals::Signals;
use super::timeline::{Mark, Timeline};
use crate::app::{App, DataDirectory, Options};
use crate::clock::Clock;
use crate::worker::{self, Faults};

const CLASS: &str = include_str!("../../data/sample_class.json");

/// The one thing that goes wrong.
const FAULTS: &str = r#"[{"phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent",
    "message": "the language model is not installed"}]"#;

/// How often the status is asked for, and for how long.
const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_mins(1);

const TEACHER: &str = "teacher-demo";

/// The phases of `ai_feedback`, in the order in which they run.
const PHASES: [&str; 3] = ["spellcheck", "nlp", "ai_feedback"];

pub(super) async fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("rephase-demo-").tempdir().context("no temporary directory")?;
    let options = Options {
        workers: worker::Options {
            latency_ms: 40..=160,
            seed: 1,
            faults: Faults::parse(FAULTS)?,
            ..worker::Options::default()
        },
        ..Options::new(DataDirectory::Kept(directory.path().to_owned()))
    };
    let mut signals = Signals::new()?;
    let app = App::start(options, Clock::system()).await?;
    let url = format!("http://{}", app.address());
    let client = Client::new(&url, Some(TEACHER.to_owned()), None, None, PATIENCE)?;
    let demo = Demo { client, seen: Default::default(), timeline: Timeline::new(arguments.json) }.tell(&url);
    let told = tokio::select! {
        told = demo => told,
        () = signals.next() => Err(anyhow::anyhow!("interrupted")),
    };
    app.stop().await;
    told
}

struct Demo {
    client: Client,
    /// The status of each of [`PHASES`] that was shown last.
    seen: [String; 3],
    timeline: Timeline,
}

impl Demo {
    async fn tell(mut self, url: &str) -> anyhow::Result<()> {
        let class: Value = serde_json::from_str(CLASS).context("the sample class is not JSON")?;
        let essays = class["essays"].as_array().context("the sample class has no essays")?;
        self.timeline.title("A class, a failed phase, and its retry", &format!("a server of its own at {url}"));

        let prompt = json!({ "references": { "student_prompt_text": { "storage_id": "demo-prompt", "path": "" } } });
        let registration = json!({
            "course_code": class["course_code"],
            "expected_essay_count": essays.len(),
            "user_id": TEACHER,
            "student_prompt_ref": prompt,
        });
        let batch = self.client.post("/v1/batches/register", &registration, &[]).await?;
        let batch = batch["batch_id"].as_str().context("the registration has no batch id")?.to_owned();
        self.timeline.line(Mark::Done, "registered", &format!("batch {batch}, {} essays expected", essays.len()));

        let sent = self.client.post(&format!("/v1/batches/{batch}/essays"), &json!({ "essays": essays }), &[]).await?;
        self.timeline.line(
            Mark::Done,
            "essays",
            &format!("{} texts stored, the batch is {}", essays.len(), text(&sent["batch_status"])),
        );

        let pipeline = json!({ "requested_pipeline": "ai_feedback" });
        self.client.post(&format!("/v1/batches/{batch}/pipelines"), &pipeline, &[]).await?;
        self.timeline.line(Mark::Done, "pipeline", &format!("ai_feedback, that is {}", PHASES.join(", ")));

        let state = self.watch(&batch).await?;
        anyhow::ensure!(text(&state["status"]) == "completed_with_failures", "nlp was to fail once: {state}");
        self.explain_failure(&state);

        let retry = json!({ "phase_name": "nlp", "retry_reason": "the language model is installed now" });
        let answer = self.client.post(&format!("/v1/batches/{batch}/retry-phase"), &retry, &[]).await?;
        self.timeline.gap();
        let attempt = format!("attempt {}: {}", answer["attempt"], text(&answer["message"]));
        self.timeline.line(Mark::Done, "retry", &attempt);

        let state = self.watch(&batch).await?;
        anyhow::ensure!(text(&state["status"]) == "completed_successfully", "the batch was to complete: {state}");
        self.timeline.gap();
        self.show_attempts(&batch).await?;
        self.timeline.line(Mark::Done, "batch", "completed_successfully: every essay came out of every phase");
        Ok(())
    }

    /// Shows the moves of the phases until the batch has come to rest, and answers its last status.
    async fn watch(&mut self, batch: &str) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            let state = self.client.get(&format!("/v1/batches/{batch}/status"), &[]).await?;
            for (phase, seen) in PHASES.iter().zip(&mut self.seen) {
                let detail = &state["pipeline_state"][phase];
                let status = text(&detail["status"]);
                if *seen != status {
                    status.clone_into(seen);
                    self.timeline.phase(phase, status, &detail["essay_counts"]);
                }
            }
            if text(&state["status"]) != "processing" {
                return Ok(state);
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "the batch did not come to rest: {state}");
            tokio::time::sleep(POLL).await;
        }
    }

    fn explain_failure(&mut self, state: &Value) {
        let info = &state["pipeline_state"]["nlp"]["error_info"];
        let why = format!("{} ({}): {}", text(&info["error_code"]), text(&info["category"]), text(&info["message"]));
        self.timeline.gap();
        self.timeline.line(Mark::Failed, "why", &why);
        self.timeline.line(Mark::Note, "kept", "spellcheck stays as it is; ai_feedback was skipped and waits for nlp");
    }

    async fn show_attempts(&mut self, batch: &str) -> anyhow::Result<()> {
        for phase in PHASES {
            let attempts = self.client.get(&format!("/v1/batches/{batch}/phases/{phase}/attempts"), &[]).await?;
            for attempt in attempts["attempts"].as_array().into_iter().flatten() {
                let mut line = format!(
                    "attempt {} by {} ({}): {}",
                    attempt["attempt"],
                    text(&attempt["requested_by"]),
                    text(&attempt["trigger"]),
                    text(&attempt["outcome"]),
                );
                if let Some(code) = attempt["error_code"].as_str() {
                    // Writing to a string cannot fail.
                    let _ = write!(line, ", {code}");
                }
                self.timeline.line(Mark::Note, phase, &line);
            }
        }
        Ok(())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}
