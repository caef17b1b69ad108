//! The promise "all or nothing": a process that dies at any named point, in the middle of anything, leaves a store that
//! is sound, has what was answered, has the rest wholly or not at all, and goes on to the same end.
//!
//! Each case is a child process: this very test, told which scenario to play and where to die. Its parent opens what
//! it left. `REPHASE_CRASH_PASSES` says at how many passes of each point it dies, 1 by default.

mod harness;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Answer, Client, OWNER, START, Setup, kept, request_message, start_app, verify};
use rephase::app::App;
use rephase::clock::ManualClock;
use rephase::crash::{self, Point};
use rephase::domain::{Millis, Rules};
use rephase::worker::Runner;
use serde_json::{Value, json};
use uuid::Uuid;

/// What a child is told: the scenario, the point, how often to pass it, the directory.
const TOLD: &str = "REPHASE_CRASH_CHILD";

/// What the child under load is told: the directory.
const LOADED: &str = "REPHASE_CRASH_UNDER_LOAD";

/// A day and an hour, in milliseconds: whatever expires has.
const LATER_MS: u64 = 90_000_000;

/// What the process is doing when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Register,
    Essays,
    Pipeline,
    Outcome,
    Retry,
    AutomaticRetry,
    Cancel,
    BulkJob,
    Redrive,
    Sweep,
    Lease,
}

const SCENARIOS: [Scenario; 11] = [
    Scenario::Register,
    Scenario::Essays,
    Scenario::Pipeline,
    Scenario::Outcome,
    Scenario::Retry,
    Scenario::AutomaticRetry,
    Scenario::Cancel,
    Scenario::BulkJob,
    Scenario::Redrive,
    Scenario::Sweep,
    Scenario::Lease,
];

/// A server with its clock.
struct World {
    app: App,
    client: Client,
    clock: ManualClock,
}

impl World {
    async fn start(directory: &Path, now: Millis, latency_ms: u64, scenario: Scenario) -> Self {
        let clock = ManualClock::new(now);
        let data = kept(directory);
        let latency_ms = latency_ms..=latency_ms;
        let (faults, rules, runners) = (scenario.faults(), scenario.rules(), scenario.runners());
        // Every group is settled, so that the process can die there too.
        let setup = Setup { data, journal_bytes: 1, runners, latency_ms, faults, rules, ..Setup::default() };
        let app = start_app(setup, clock.clock()).await.expect("it starts");
        let client = Client::new(&format!("http://{}", app.address()));
        Self { app, client, clock }
    }

    /// The request that every scenario is about, under a key, so that it can be repeated.
    async fn keyed(&self, path: &str, body: &Value) -> Answer {
        let request = self.client.request(reqwest::Method::POST, path).header("Idempotency-Key", "the-request");
        Client::send(request.json(body)).await
    }

    /// A task of the spellcheck, where one comes in this time.
    async fn lease(&self, wait_ms: u64) -> Option<Value> {
        let body = json!({ "worker_id": "w", "phases": ["spellcheck"], "wait_ms": wait_ms });
        let answer = self.client.post("/v1/workers/lease", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["tasks"].get(0).cloned()
    }

    /// The task that somebody gets once the lease of one who died is over.
    async fn lease_at_last(&self) -> Value {
        loop {
            if let Some(task) = self.lease(50).await {
                return task;
            }
            self.clock.advance(10_000);
        }
    }

    /// Says this about `task`; its essays came out as they went in.
    async fn say(&self, task: &Value, what: &str) -> Answer {
        let essays = task["essays"].as_array().expect("a list").iter();
        let essays: Vec<_> = essays.map(|essay| json!({ "essay_id": essay["essay_id"] })).collect();
        let mut body = json!({ "lease_token": task["lease_token"] });
        if what == "complete" {
            body["essays"] = json!(essays);
        }
        self.client.post(&format!("/v1/workers/tasks/{}/{what}", task["task_id"].as_str().expect("an id")), body).await
    }

    async fn attempts(&self, batch: &str, phase: &str) -> usize {
        self.client.attempts(batch, phase).await.len()
    }
}

impl Scenario {
    fn faults(self) -> Value {
        match self {
            Self::Retry | Self::BulkJob => {
                json!([{ "phase": "nlp", "attempts": [1], "error_code": "TIMEOUT", "category": "permanent" }])
            }
            Self::AutomaticRetry => json!([{ "phase": "spellcheck", "attempts": [1], "error_code": "TIMEOUT" }]),
            // So it comes by the bus, as one of somebody else's would.
            Self::Outcome => json!([{ "phase": "spellcheck", "duplicate": true }]),
            Self::Register
            | Self::Essays
            | Self::Pipeline
            | Self::Cancel
            | Self::Redrive
            | Self::Sweep
            | Self::Lease => json!([]),
        }
    }

    fn rules(self) -> Rules {
        // A worker that was never told what it got is one that died, and the attempt after it is somebody else's.
        let is_tried_again = matches!(self, Self::AutomaticRetry | Self::Lease);
        if is_tried_again { Rules::default() } else { harness::no_automatic_retry() }
    }

    fn runners(self) -> [Runner; 4] {
        let runner = if self == Self::Lease { Runner::Remote } else { Runner::Simulated };
        [runner, Runner::Simulated, Runner::Simulated, Runner::Simulated]
    }

    /// How long a phase takes before the crash, in milliseconds, and after it.
    fn latency_ms(self) -> (u64, u64) {
        match self {
            Self::Cancel => (1_000, 1_000),
            Self::Outcome => (1_000, 0),
            Self::Register
            | Self::Essays
            | Self::Pipeline
            | Self::Retry
            | Self::AutomaticRetry
            | Self::BulkJob
            | Self::Redrive
            | Self::Sweep
            | Self::Lease => (0, 0),
        }
    }

    /// Points at which the scenario has to be able to die, besides those of every commit.
    fn passes(self) -> &'static [Point] {
        match self {
            Self::Pipeline | Self::Retry => &[
                Point::StepAnswer,
                Point::PublishDeliver,
                Point::PublishDelivered,
                Point::WorkerTaken,
                Point::WorkerResult,
                Point::Acknowledge,
            ],
            Self::Outcome => &[Point::WorkerResult, Point::PublishDeliver, Point::ConsumeTaken, Point::StepAnswer],
            Self::AutomaticRetry => &[Point::TimerDue, Point::StepAnswer, Point::WorkerTaken],
            Self::Register | Self::Essays | Self::Cancel => &[Point::StepAnswer],
            Self::BulkJob => &[Point::JobTurn, Point::StepAnswer, Point::WorkerResult],
            Self::Redrive => &[Point::StepAnswer, Point::PublishDeliver, Point::ConsumeTaken, Point::WorkerResult],
            Self::Sweep => &[Point::SweepBite],
            Self::Lease => &[Point::LeaseGranted, Point::StepAnswer],
        }
    }

    /// Brings the world to where the scenario begins, and gives what it is about.
    async fn prepare(self, world: &World) -> Vec<String> {
        let client = &world.client;
        match self {
            Self::Register => Vec::new(),
            Self::Essays => vec![client.registered_batch(2).await],
            Self::Pipeline => vec![client.ready_batch(2).await],
            Self::Outcome | Self::Cancel => {
                let batch = client.ready_batch(2).await;
                client.pipeline(&batch, "spellcheck").await;
                client.until_phase(&batch, "spellcheck", "in_progress").await;
                vec![batch]
            }
            Self::Retry | Self::BulkJob => {
                let mut batches = Vec::new();
                for _ in 0..if self == Self::Retry { 1 } else { 3 } {
                    let batch = client.ready_batch(2).await;
                    client.pipeline(&batch, "nlp").await;
                    client.until_phase(&batch, "nlp", "failed").await;
                    batches.push(batch);
                }
                batches
            }
            Self::AutomaticRetry => {
                let batch = client.ready_batch(2).await;
                client.pipeline(&batch, "spellcheck").await;
                let waits =
                    |status: &Value| status["pipeline_state"]["spellcheck"]["error_info"]["next_retry_at"].is_string();
                client.until(&batch, "a wait", waits).await;
                vec![batch]
            }
            Self::Lease => {
                let batch = client.ready_batch(2).await;
                client.pipeline(&batch, "spellcheck").await;
                vec![batch]
            }
            Self::Redrive => {
                let batch = client.registered_batch(2).await;
                let message = request_message(Uuid::new_v4(), &batch, OWNER, "spellcheck", false);
                world.app.engine().publish(message).await.expect("published");
                let letter = loop {
                    let letters = client.get("/internal/v1/dead-letters").await.json();
                    if let Some(id) = letters["dead_letters"][0]["id"].as_str() {
                        break id.to_owned();
                    }
                    tokio::task::yield_now().await;
                };
                client.post(&format!("/v1/batches/{batch}/essays"), harness::essays_body(2)).await;
                vec![batch, letter]
            }
            Self::Sweep => {
                let batch = client.ready_batch(2).await;
                client.pipeline(&batch, "ai_feedback").await;
                client.until_settled(&batch).await;
                world.keyed("/v1/batches/register", &harness::registration(1)).await;
                vec![batch]
            }
        }
    }

    /// The request of the scenario, where it has one.
    fn request(self, about: &[String]) -> Option<(String, Value)> {
        let of_batch = |route: &str| format!("/v1/batches/{}/{route}", about[0]);
        match self {
            Self::Register => Some(("/v1/batches/register".to_owned(), harness::registration(2))),
            Self::Essays => Some((of_batch("essays"), harness::essays_body(2))),
            Self::Pipeline => Some((of_batch("pipelines"), json!({ "requested_pipeline": "ai_feedback" }))),
            Self::Retry => Some((of_batch("retry-phase"), json!({ "phase_name": "nlp" }))),
            Self::Cancel => Some((of_batch("cancel"), json!({ "reason": "a crash" }))),
            Self::BulkJob => {
                let body = json!({ "filter": { "phase_status": "failed" }, "phase": "nlp", "per_second": 1_000 });
                Some(("/v1/retry-jobs".to_owned(), body))
            }
            Self::Redrive => Some((format!("/internal/v1/dead-letters/{}/redrive", about[1]), json!({}))),
            Self::Outcome | Self::AutomaticRetry | Self::Sweep | Self::Lease => None,
        }
    }

    /// Does what the scenario is about, and sees it through.
    async fn act(self, world: &World, about: &[String]) {
        if let Some((path, body)) = self.request(about) {
            let answer = world.keyed(&path, &body).await;
            assert!(answer.status < 300, "{self:?}: {}", answer.text);
            println!("answered {}", answer.text);
        }
        match self {
            Self::Register | Self::Essays | Self::Cancel => {}
            Self::Pipeline | Self::Retry => {
                world.client.until_settled(&about[0]).await;
            }
            Self::Redrive => self.completed(world, about).await,
            Self::Outcome => {
                // Its worker may fall asleep a little later than it says that it has begun.
                while world.client.status(&about[0]).await["status"] == "processing" {
                    world.clock.advance(100);
                    tokio::task::yield_now().await;
                }
            }
            Self::AutomaticRetry => {
                world.clock.advance(60_000);
                world.client.until_settled(&about[0]).await;
            }
            Self::BulkJob => self.see_through_jobs(world).await,
            Self::Lease => {
                let task = world.lease(30_000).await.expect("its command was sent");
                println!("answered {task}");
                assert_eq!(world.say(&task, "heartbeat").await.status, 200);
                assert_eq!(world.say(&task, "complete").await.status, 200);
                world.client.until_settled(&about[0]).await;
            }
            Self::Sweep => {
                world.clock.advance(LATER_MS);
                world.app.engine().sweep().await.expect("swept");
            }
        }
        println!("done");
    }

    /// What is redriven has not arrived when the answer says that it is on its way, so its batch may still be at rest.
    async fn completed(self, world: &World, about: &[String]) {
        world.client.until(&about[0], "the end", |status| status["status"] == "completed_successfully").await;
    }

    async fn see_through_jobs(self, world: &World) {
        while world.client.get("/v1/retry-jobs").await.json()["jobs"][0]["status"] == "running" {
            world.clock.advance(1);
            tokio::task::yield_now().await;
        }
    }

    /// What the process left is opened: what was answered is there, and all goes on to the same end.
    async fn check(self, world: &World, about: &[String], answered: Option<&str>, is_done: bool) {
        let client = &world.client;
        if let Some((path, body)) = self.request(about) {
            if self == Self::Essays {
                let received = client.status(&about[0]).await["details"]["essays_received"].clone();
                assert!(received == 2 || (received == 0 && answered.is_none()), "{received} essays");
            }
            let again = world.keyed(&path, &body).await;
            assert!(again.status < 300, "{}", again.text);
            if let Some(answered) = answered {
                assert_eq!((again.header("idempotent-replayed"), again.text.as_str()), ("true", answered));
            }
        }
        match self {
            Self::Register => {
                let listed = client.get("/v1/batches").await.json();
                assert_eq!(listed["batches"].as_array().map(Vec::len), Some(1), "it was registered once");
            }
            Self::Essays => assert_eq!(client.status(&about[0]).await["status"], "ready"),
            Self::Pipeline => {
                let status = client.until_settled(&about[0]).await;
                assert_eq!(status["status"], "completed_successfully");
                for phase in ["spellcheck", "nlp", "ai_feedback"] {
                    assert_eq!(world.attempts(&about[0], phase).await, 1, "{phase}");
                }
            }
            Self::Outcome | Self::Redrive => {
                self.completed(world, about).await;
                assert_eq!(world.attempts(&about[0], "spellcheck").await, 1);
            }
            Self::Retry => {
                let status = client.until_settled(&about[0]).await;
                assert_eq!(status["status"], "completed_successfully");
                assert_eq!(world.attempts(&about[0], "nlp").await, 2);
            }
            Self::AutomaticRetry => {
                let status = client.until_settled(&about[0]).await;
                assert_eq!(status["status"], "completed_successfully");
                let attempts = client.attempts(&about[0], "spellcheck").await;
                let triggers: Vec<_> = attempts.iter().map(|attempt| &attempt["trigger"]).collect();
                assert_eq!(triggers, ["pipeline", "automatic"]);
            }
            Self::Cancel => {
                let status = client.status(&about[0]).await;
                assert_eq!(status["status"], "cancelled");
                assert_eq!(client.attempts(&about[0], "spellcheck").await[0]["outcome"], "cancelled");
            }
            Self::BulkJob => {
                self.see_through_jobs(world).await;
                let jobs = client.get("/v1/retry-jobs").await.json();
                assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "one job was made");
                for batch in about {
                    client.until_settled(batch).await;
                    assert_eq!(world.attempts(batch, "nlp").await, 2, "{batch} was retried once");
                }
            }
            Self::Lease => {
                let told: Option<Value> = answered.map(|text| serde_json::from_str(text).expect("a task"));
                let is_told = told.is_some();
                let task = match told {
                    // It is this worker's still, or was ended by it.
                    Some(task) => task,
                    None => world.lease_at_last().await,
                };
                let done = world.say(&task, "complete").await;
                assert_eq!(done.status, 200, "{}", done.text);
                self.completed(world, about).await;
                let attempts = world.attempts(&about[0], "spellcheck").await;
                assert!(attempts == 1 || (attempts == 2 && !is_told), "{attempts} attempts");
            }
            Self::Sweep => {
                let swept = world.app.engine().sweep().await.expect("swept");
                assert!(swept == 0 || !is_done, "{swept} keys came back");
                assert_eq!(world.app.engine().sweep().await.expect("swept"), 0);
                assert_eq!(client.status(&about[0]).await["status"], "completed_successfully");
            }
        }
    }
}

/// Where to die: at this point, after so many passes of it.
type Death = (Point, u32);

/// What a child is told, if this is one.
fn told() -> Option<(Scenario, Option<Death>, PathBuf)> {
    let told = std::env::var(TOLD).ok()?;
    let words: Vec<_> = told.splitn(4, ' ').collect();
    let [scenario, point, passes, directory] = words[..] else { panic!("{told}") };
    let named = |wanted: &str, name: String| name == wanted;
    let scenario = SCENARIOS.into_iter().find(|one| named(scenario, format!("{one:?}"))).expect("a scenario");
    let point = Point::ALL.into_iter().find(|one| named(point, format!("{one:?}")));
    Some((scenario, point.map(|point| (point, passes.parse().expect("a number"))), PathBuf::from(directory)))
}

/// The child: plays its scenario, and dies where it is told to.
#[tokio::test]
async fn child() {
    let Some((scenario, death, directory)) = told() else { return };
    let (latency_ms, _) = scenario.latency_ms();
    let world = World::start(&directory, START, latency_ms, scenario).await;
    let about = scenario.prepare(&world).await;
    println!("about {}", json!(about));
    if let Some((point, passes)) = death {
        crash::arm(point, passes);
    }
    scenario.act(&world, &about).await;
    world.app.stop().await;
}

/// Plays `scenario` until it dies at `point`, opens what it left, and says whether it died.
fn play(scenario: Scenario, point: Point, passes: u32) -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let told = format!("{scenario:?} {point:?} {passes} {}", directory.path().display());
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "child", "--nocapture"]).env(TOLD, told).stderr(Stdio::null());
    let output = child.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // It may die in the middle of a line, which then says nothing.
    let whole = said.rfind('\n').map_or("", |end| &said[..end]);
    let line = |name: &str| whole.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
    let has_died = output.status.code().is_none();
    assert!(has_died || output.status.success(), "{scenario:?} at {point:?}: {said}");
    let about = line("about ").unwrap_or_else(|| panic!("{scenario:?} did not begin: {said}"));
    let about: Vec<String> = serde_json::from_str(about).expect("a list");
    let is_done = line("done").is_some();

    verify(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_, latency_ms) = scenario.latency_ms();
        // Late enough that every timer is due, and early enough that answers are still kept.
        let later_ms = if scenario == Scenario::Sweep { LATER_MS } else { 3_600_000 };
        let world = World::start(directory.path(), START.plus(later_ms), latency_ms, scenario).await;
        scenario.check(&world, &about, line("answered "), is_done).await;
        world.app.stop().await;
    });
    verify(directory.path());
    has_died
}

fn die_everywhere(scenario: Scenario) {
    if told().is_some() {
        return;
    }
    let passes = std::env::var("REPHASE_CRASH_PASSES").map_or(1, |count| count.parse().expect("a number"));
    let (mut died_at, mut deaths) = (Vec::new(), 0);
    for point in Point::ALL {
        for pass in 0..passes {
            if !play(scenario, point, pass) {
                break;
            }
            deaths += 1;
            if pass == 0 {
                died_at.push(point);
            }
        }
    }
    println!("{scenario:?}: {deaths} deaths at {died_at:?}");
    let of_commits = [
        Point::CommitTaken,
        Point::CommitWritten,
        Point::CommitDurable,
        Point::CommitApplied,
        Point::CommitFed,
        Point::SettleFrozen,
        Point::SettleWritten,
        Point::SettleDurable,
    ];
    let missed: Vec<_> = of_commits.iter().chain(scenario.passes()).filter(|point| !died_at.contains(point)).collect();
    assert!(missed.is_empty(), "{scenario:?} was to die at {missed:?} too");
}

#[test]
fn while_a_batch_is_registered() {
    die_everywhere(Scenario::Register);
}

#[test]
fn while_essays_arrive() {
    die_everywhere(Scenario::Essays);
}

#[test]
fn while_a_pipeline_begins_and_runs() {
    die_everywhere(Scenario::Pipeline);
}

#[test]
fn while_an_outcome_arrives() {
    die_everywhere(Scenario::Outcome);
}

#[test]
fn while_a_phase_is_retried() {
    die_everywhere(Scenario::Retry);
}

#[test]
fn while_a_phase_is_tried_again_by_itself() {
    die_everywhere(Scenario::AutomaticRetry);
}

#[test]
fn while_a_pipeline_is_cancelled() {
    die_everywhere(Scenario::Cancel);
}

#[test]
fn while_a_bulk_retry_goes_from_batch_to_batch() {
    die_everywhere(Scenario::BulkJob);
}

#[test]
fn while_a_dead_letter_is_redriven() {
    die_everywhere(Scenario::Redrive);
}

#[test]
fn while_expired_keys_are_swept() {
    die_everywhere(Scenario::Sweep);
}

#[test]
fn while_a_worker_leases_and_completes() {
    die_everywhere(Scenario::Lease);
}

/// A server whose log has one event, so that whatever is committed while something is settled makes that too old.
async fn start_with_one_event(directory: &Path) -> App {
    let setup = Setup { data: kept(directory), journal_bytes: 1, retain_events: 1, ..Setup::default() };
    start_app(setup, ManualClock::new(START).clock()).await.expect("it starts")
}

/// The child under load: dies when it has settled many times and is about to settle what came in meanwhile.
#[tokio::test]
async fn child_under_load() {
    let Ok(directory) = std::env::var(LOADED) else { return };
    let app = start_with_one_event(Path::new(&directory)).await;
    println!("log {}", app.engine().newest_event().expect("there is a log").log);
    crash::arm(Point::SettleFrozen, 30);
    let client = Client::new(&format!("http://{}", app.address()));
    let registering = |client: Client| async move {
        for _ in 0..1_000 {
            client.registered_batch(1).await;
        }
    };
    let load: Vec<_> = (0..8).map(|_| tokio::spawn(registering(client.clone()))).collect();
    for client in load {
        client.await.expect("it is answered for as long as the process lives");
    }
}

#[test]
fn while_what_is_settled_gets_too_old() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "child_under_load", "--nocapture"]).env(LOADED, directory.path()).stderr(Stdio::null());
    let output = child.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code().is_none(), "it was to die: {said}");
    let log = said.lines().find_map(|line| line.strip_prefix("log ")).expect("it began");

    verify(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let app = start_with_one_event(directory.path()).await;
        let newest = app.engine().newest_event().expect("there is a log");
        assert_eq!(newest.log.to_string(), log, "another log began");
        assert!(newest.sequence >= 30, "{newest}");
        app.stop().await;
    });
    verify(directory.path());
}

#[test]
fn every_point_is_died_at_somewhere() {
    let all: BTreeSet<_> = SCENARIOS.into_iter().flat_map(Scenario::passes).map(|point| format!("{point:?}")).collect();
    let named = |point: Point| format!("{point:?}");
    let of_commits = |point: &Point| named(*point).starts_with("Commit") || named(*point).starts_with("Settle");
    for point in Point::ALL.into_iter().filter(|point| !of_commits(point)) {
        assert!(all.contains(&named(point)), "{point:?} belongs to no scenario");
    }
}
