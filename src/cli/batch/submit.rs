//! `rephase batch submit`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::super::common::{Session, read_bounded};
use super::super::failure::{Exit, Failure};
use super::super::filter::{course, phase};
use super::super::output::remark;
use super::super::progress::Bars;
use super::super::values::{counted, list, text};
use super::super::watch::{Shows, WaitArguments, until_rest};
use super::{conclude, look, request_pipeline};
use crate::domain::{MAX_ESSAYS, needs_prompt};

/// The largest text that the server takes, in bytes.
const MAX_TEXT_BYTES: u64 = 1_024 * 1_024;

/// How much JSON goes into one request, in bytes: the server takes 16 MiB, with what is around the essays. A text of
/// nothing but what has to be escaped is six times its size and still fits.
const MAX_REQUEST_BYTES: usize = 15 * 1_024 * 1_024;

/// How many essays go into one request, so that progress can be seen.
const MAX_REQUEST_ESSAYS: usize = 100;

/// Arguments of `batch submit`.
#[derive(Debug, Args)]
pub(super) struct SubmitArguments {
    /// Texts in UTF-8, one essay a file; of a directory all files that end with .txt, in the order of their names.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The course that the essays were written for.
    #[arg(long, value_name = "COURSE", value_parser = course())]
    course: String,
    /// The last phase of the pipeline to run; none is run where this is not given.
    #[arg(long, value_name = "PHASE", value_parser = phase(), ignore_case = true)]
    pipeline: Option<String>,
    /// File with what the students were asked to write.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_id")]
    prompt: Option<PathBuf>,
    /// Id of a stored text with what the students were asked to write.
    #[arg(long, value_name = "ID")]
    prompt_id: Option<String>,
    /// The class of a regular batch, whose students are confirmed before a pipeline can run.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    #[command(flatten)]
    wait: WaitArguments,
}

/// The text of one essay, which is read when its turn comes.
struct EssayFile {
    path: PathBuf,
    file_name: String,
}

pub(super) async fn run(session: &Session, arguments: SubmitArguments) -> Result<(), Failure> {
    if arguments.wait.is_wanted() && arguments.pipeline.is_none() {
        return Err(Failure::usage("--wait waits for a pipeline").hint("name one: --pipeline PHASE"));
    }
    let has_prompt = arguments.prompt.is_some() || arguments.prompt_id.is_some();
    if let Some(pipeline) = arguments.pipeline.as_ref().filter(|pipeline| !has_prompt && wants_prompt(pipeline)) {
        let failure = Failure::usage(format!("{pipeline} needs to know what the students were asked to write"));
        return Err(failure.hint("say it: --prompt FILE, or --prompt-id ID"));
    }
    let essays = essays_of(session, &arguments.paths)?;
    // Everything is looked at before anything is sent.
    for essay in &essays {
        essay.read()?;
    }
    let prompt = prompt(session, &arguments).await?;
    let registration = json!({
        "expected_essay_count": essays.len(),
        "course_code": arguments.course,
        "student_prompt_ref": prompt,
        "class_id": arguments.class,
    });
    let registered =
        session.client.post("/v1/batches/register", &registration, &[("batch_id", Value::is_string)]).await?;
    let batch = text(&registered["batch_id"]);
    upload(session, &batch, &essays).await.map_err(|failure| {
        failure
            .of_batch(&batch)
            .hint(format!("batch {batch} has part of its texts: {}", session.command(&format!("batch show {batch}"))))
    })?;
    if let Some(pipeline) = &arguments.pipeline {
        if arguments.class.is_some() {
            let confirmed = students(session, &batch, pipeline, &arguments.wait).await;
            confirmed.map_err(|failure| failure.of_batch(&batch))?;
        }
        request_pipeline(session, &batch, pipeline).await.map_err(|failure| {
            let hint = session.command(&format!("batch show {batch}"));
            failure.of_batch(&batch).hint(format!("batch {batch} has its texts: {hint}"))
        })?;
    }
    tell(session, &batch, essays.len(), arguments.pipeline.as_deref());
    if arguments.pipeline.is_some() { conclude(session, &batch, &arguments.wait).await } else { Ok(()) }
}

/// Whether a pipeline that ends with this phase needs a prompt. What it depends on needs none that it does not need.
fn wants_prompt(pipeline: &str) -> bool {
    pipeline.parse().is_ok_and(needs_prompt)
}

fn tell(session: &Session, batch: &str, essays: usize, pipeline: Option<&str>) {
    let output = &session.output;
    if output.is_json {
        output.json(&json!({ "batch_id": batch, "essays": essays, "requested_pipeline": pipeline }));
        return;
    }
    output.line(&format!("batch {batch}: {}", counted(essays, "essay")));
    match pipeline {
        Some(pipeline) => output.line(&format!("{pipeline} is going to run")),
        None => remark(output.is_json, &session.command(&format!("batch run {batch} PIPELINE"))),
    }
}

fn essays_of(session: &Session, paths: &[PathBuf]) -> Result<Vec<EssayFile>, Failure> {
    let mut essays = Vec::new();
    for path in paths {
        let found = fs::metadata(path);
        let found = found.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
        if found.is_dir() {
            essays.extend(texts_below(session, path)?);
        } else {
            essays.push(EssayFile::new(path.clone())?);
        }
    }
    if essays.is_empty() || essays.len() > MAX_ESSAYS {
        let message = format!("{} to send; a batch has between 1 and {MAX_ESSAYS}", counted(essays.len(), "text"));
        return Err(Failure::usage(message).hint("give files, or a directory with files that end with .txt"));
    }
    Ok(essays)
}

fn texts_below(session: &Session, directory: &Path) -> Result<Vec<EssayFile>, Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{} cannot be read: {error}", directory.display()));
    let (mut texts, mut others) = (Vec::new(), 0);
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_text = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
        if is_text && path.is_file() {
            texts.push(path);
        } else {
            others += 1;
        }
    }
    if others > 0 {
        let why = if others == 1 { "it is no file that ends" } else { "they are no files that end" };
        let text = format!("{}: {others} left out, because {why} with .txt", directory.display());
        remark(session.output.is_json, &text);
    }
    texts.sort();
    texts.into_iter().map(EssayFile::new).collect()
}

impl EssayFile {
    fn new(path: PathBuf) -> Result<Self, Failure> {
        let file_name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let file_name = file_name.filter(|name| name.chars().count() <= 255);
        let unfit = || Failure::usage(format!("{}: its name is no text of up to 255 characters", path.display()));
        Ok(Self { file_name: file_name.ok_or_else(unfit)?, path })
    }

    fn read(&self) -> Result<String, Failure> {
        read_text(&self.path)
    }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(read_bounded(path, MAX_TEXT_BYTES)?);
    let text = text.map_err(|_| {
        let failure = Failure::usage(format!("{} is not UTF-8", path.display()));
        failure.hint("if it is a text in another encoding: iconv -f ISO-8859-1 -t UTF-8 FILE > OTHER")
    })?;
    if text.trim().is_empty() {
        let failure = Failure::usage(format!("{} is empty", path.display()));
        return Err(failure.hint("write something into it, or leave it away; nothing was sent"));
    }
    Ok(text)
}

async fn prompt(session: &Session, arguments: &SubmitArguments) -> Result<Value, Failure> {
    let storage_id = match (&arguments.prompt, &arguments.prompt_id) {
        (Some(path), _) => {
            let stored = session
                .client
                .post("/v1/content", &json!({ "text": read_text(path)? }), &[("storage_id", Value::is_string)])
                .await?;
            text(&stored["storage_id"])
        }
        (None, Some(id)) => id.clone(),
        (None, None) => return Ok(Value::Null),
    };
    Ok(json!({ "references": { "student_prompt_text": { "storage_id": storage_id, "path": "" } } }))
}

/// Sends the texts, in as few requests as fit.
async fn upload(session: &Session, batch: &str, essays: &[EssayFile]) -> Result<(), Failure> {
    let bars = Bars::new();
    let bar = bars.bar("essays", essays.len() as u64);
    let path = format!("/v1/batches/{batch}/essays");
    let (mut waiting, mut size) = (Vec::new(), 0);
    for essay in essays {
        let essay = json!({ "file_name": essay.file_name, "text": essay.read()? });
        let essay_size = essay.to_string().len() + 1;
        if !waiting.is_empty() && (size + essay_size > MAX_REQUEST_BYTES || waiting.len() == MAX_REQUEST_ESSAYS) {
            let sent = std::mem::take(&mut waiting);
            bar.inc(send(session, &path, sent).await?);
            size = 0;
        }
        size += essay_size;
        waiting.push(essay);
    }
    bar.inc(send(session, &path, waiting).await?);
    Ok(())
}

async fn send(session: &Session, path: &str, essays: Vec<Value>) -> Result<u64, Failure> {
    let answer = session.client.post(path, &json!({ "essays": essays }), &[("essays", Value::is_array)]).await?;
    Ok(list(&answer["essays"]).len() as u64)
}

/// Waits until the students of a regular batch are confirmed.
async fn students(session: &Session, batch: &str, pipeline: &str, wait: &WaitArguments) -> Result<(), Failure> {
    let bars = Bars::new();
    let spinner = bars.spinner("the students are being confirmed");
    // Somebody outside may take a day; without --wait that is not waited for.
    let limit = if wait.is_wanted() { wait.limit() } else { Some(session.client.patience()) };
    let waited = until_rest(session, batch, Shows::MovesForPeople, limit).await;
    spinner.finish_and_clear();
    let later = || session.command(&format!("batch run {batch} {pipeline}"));
    let status = waited.map_err(|failure| {
        if !failure.is(Exit::Failed) {
            return failure;
        }
        let message = format!("batch {batch} has its texts, but nobody has confirmed its students yet");
        Failure::new(Exit::Refused, message).hint(format!("once they are: {}", later()))
    })?;
    if status["status"] == "failed" {
        return Err(look(session, batch, Failure::failed(format!("batch {batch} failed before it could run"))));
    }
    Ok(())
}
