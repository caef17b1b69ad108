//! The families of metrics: their names, what they say, and where the numbers come from.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Scrape;
use crate::domain::{Millis, Phase};
use crate::engine::{Engine, Standings, Survey};
use crate::tally::Observed;

/// The labels of a sample.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Nanoseconds in a second.
const NS: f64 = 1e9;

/// Of what counts as it is.
const ONE: f64 = 1.0;

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.requests(&mut page)?;
        if let Some(engine) = &self.engine {
            steps(&mut page, engine)?;
            store(&mut page, engine)?;
            sweep(&mut page, engine)?;
        }
        if let Some(survey) = &self.survey {
            bus(&mut page, survey)?;
            work(&mut page, survey)?;
            sizes(&mut page, survey)?;
            stand(&mut page, &survey.standings)?;
        }
        Ok(())
    }
}

/// What families are written on.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// What was observed, in units of which there are so many in one of those that are shown.
    fn histograms<'a, const N: usize>(
        &mut self,
        (name, units): (&str, f64),
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, Observed)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, observed) in samples {
            let bounds = observed.bounds.iter().map(|bound| float(*bound) / units).chain([f64::INFINITY]);
            let classes: Vec<_> = bounds.zip(observed.classes.iter().copied()).collect();
            let (sum, count) = (float(observed.sum) / units, observed.count());
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &classes, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [([], value)])
    }

    fn counter(&mut self, name: &str, help: &str, counter: &AtomicU64) -> fmt::Result {
        self.counters(name, help, [([], counter.load(Ordering::Relaxed))])
    }

    fn histogram(&mut self, name: (&str, f64), help: &str, observed: Observed) -> fmt::Result {
        self.histograms(name, help, [([], observed)])
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is that large is large enough")]
fn float(number: u64) -> f64 {
    number as f64
}

fn size(number: usize) -> f64 {
    float(u64::try_from(number).unwrap_or(u64::MAX))
}

fn seconds(duration_ms: u64) -> f64 {
    float(duration_ms) / 1e3
}

impl Scrape {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("rephase_build_info", "The version that runs, as a label.", [(version, 1.0)])?;
        let engine = self.engine.as_ref();
        let is_ready = engine.is_some_and(|engine| !engine.failed().is_cancelled());
        page.gauge(
            "rephase_ready",
            "Whether recovery is done and the store takes commits.",
            f64::from(u8::from(is_ready)),
        )?;
        if let Some(Millis(since)) = engine.map(Engine::up_since) {
            page.gauge("process_start_time_seconds", "When the server was started, in Unix time.", seconds(since))?;
        }
        if let Some(bytes) = self.memory_bytes {
            page.gauge("process_resident_memory_bytes", "How much memory the process has in use.", float(bytes))?;
        }
        page.gauge(
            "rephase_notification_listeners",
            "Connections that listen for notifications.",
            size(self.listeners),
        )?;
        page.gauge("rephase_event_streams", "Open streams of events.", size(self.streams))
    }

    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let shown = self.requests.shown();
        let counts = shown.iter().flat_map(|shown| {
            let labels = |status| [("route", shown.route), ("method", shown.method), ("status", status)];
            shown.statuses.iter().map(move |(status, count)| (labels(status.as_str()), *count))
        });
        page.counters("rephase_http_requests", "Requests that were answered.", counts)?;
        let took =
            shown.iter().map(|shown| ([("route", shown.route), ("method", shown.method)], shown.took_ns.clone()));
        let help = "How long requests took until the head of their answer.";
        page.histograms(("rephase_http_request_duration_seconds", NS), help, took)
    }
}

fn steps(page: &mut Page<'_>, engine: &Engine) -> fmt::Result {
    let counters = engine.counters();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let outcomes =
        [("accepted", &counters.steps), ("refused", &counters.refused_steps), ("duplicate", &counters.repeated_steps)];
    let outcomes = outcomes.map(|(outcome, counter)| ([("outcome", outcome)], count(counter)));
    page.counters("rephase_steps", "Steps of batches, by what came of them.", outcomes)?;
    let messages = [
        ("duplicate", &counters.duplicates),
        ("late_outcome", &counters.late_outcomes),
        ("refused", &counters.refused_messages),
    ];
    let messages = messages.map(|(reason, counter)| ([("reason", reason)], count(counter)));
    let help = "Messages that had no effect; late outcomes are among the refused ones too.";
    page.counters("rephase_messages_without_effect", help, messages)?;
    let help = "Timers that were due for a batch that cannot be read.";
    page.counter("rephase_broken_timers", help, &counters.broken_timers)?;
    let attempts = counters.attempts.all().map(|(phase, trigger, outcome, count)| {
        let outcome = ("outcome", outcome.as_str());
        ([("phase", phase.name().as_str()), ("trigger", trigger.as_str()), outcome], count)
    });
    page.counters("rephase_attempts", "Attempts that have ended.", attempts)?;
    let depths = engine.partition_depths();
    let named: Vec<_> = (0_usize..).map(|number| number.to_string()).take(depths.len()).collect();
    let depths = named.iter().zip(depths).map(|(name, depth)| ([("partition", name.as_str())], size(depth)));
    page.gauges("rephase_partition_queue_depth", "Requests that wait for a partition of the batches.", depths)
}

fn store(page: &mut Page<'_>, engine: &Engine) -> fmt::Result {
    let numbers = engine.store_numbers();
    let flushes = AtomicU64::new(engine.flushes());
    page.counter("rephase_flushes", "How many times something was made durable.", &flushes)?;
    let help = "How many commits shared one flush.";
    page.histogram(("rephase_commit_group_size", ONE), help, numbers.commits.observed())?;
    let help = "How many keys one flush was for.";
    page.histogram(("rephase_commit_writes", ONE), help, numbers.writes.observed())?;
    let help = "How many bytes one flush was for.";
    page.histogram(("rephase_commit_size_bytes", ONE), help, numbers.bytes.observed())?;
    let help = "How long a group of commits took until it was durable and told.";
    page.histogram(("rephase_commit_duration_seconds", NS), help, numbers.commit_ns.observed())?;
    let help = "How long of that the disk took.";
    page.histogram(("rephase_flush_duration_seconds", NS), help, numbers.flush_ns.observed())
}

fn sweep(page: &mut Page<'_>, engine: &Engine) -> fmt::Result {
    let counters = engine.counters();
    let help = "How long sweeps took, with the rests in which they leave the disk to others.";
    page.histogram(("rephase_sweep_duration_seconds", NS), help, counters.sweeps_ns.observed())?;
    let help = "Idempotency keys that had expired and were removed.";
    page.counter("rephase_swept_keys", help, &counters.swept_keys)?;
    let help = "Batches, bulk retries and dead letters that were removed because they were old.";
    page.counter("rephase_removed_records", help, &counters.removed)
}

fn bus(page: &mut Page<'_>, survey: &Survey) -> fmt::Result {
    let depths = survey.groups.iter().map(|backlog| ([("group", backlog.group.name())], float(backlog.depth)));
    page.gauges("rephase_bus_depth", "Messages that a group has not consumed.", depths)?;
    let ages = survey
        .groups
        .iter()
        .map(|backlog| ([("group", backlog.group.name())], seconds(backlog.oldest_ms.unwrap_or(0))));
    let help =
        "How old the oldest message is that a group has not consumed, as its envelope says; 0 where there is none.";
    page.gauges("rephase_bus_oldest_message_seconds", help, ages)
}

fn work(page: &mut Page<'_>, survey: &Survey) -> fmt::Result {
    let ages = Phase::ALL.into_iter().zip(survey.oldest_running_ms);
    let ages = ages.map(|(phase, age_ms)| ([("phase", phase.name().as_str())], seconds(age_ms.unwrap_or(0))));
    let help = "For how long the oldest attempt that is in flight has been; 0 where there is none.";
    page.gauges("rephase_oldest_running_seconds", help, ages)?;
    page.gauge("rephase_leases", "Attempts that are leased to workers.", float(survey.leases))?;
    let help = "Whether more attempts are in flight than the oldest and the leases are taken from.";
    page.gauge("rephase_survey_cut_short", help, f64::from(u8::from(survey.is_cut_short)))
}

fn sizes(page: &mut Page<'_>, survey: &Survey) -> fmt::Result {
    page.gauge("rephase_store_size_bytes", "How large the database is on disk.", float(survey.store_bytes))?;
    page.gauge("rephase_journal_size_bytes", "How large the journal is on disk.", float(survey.journal_bytes))?;
    if let Some((oldest, next)) = survey.event_log {
        page.gauge("rephase_event_log_oldest", "The number of the oldest event that is retained.", float(oldest))?;
        page.gauge("rephase_event_log_next", "The number that the next event will have.", float(next))?;
    }
    Ok(())
}

fn stand(page: &mut Page<'_>, standings: &Standings) -> fmt::Result {
    let batches = standings.batches.iter().map(|(status, count)| ([("status", status.as_str())], float(*count)));
    page.gauges("rephase_batches", "Batches, by where they stand.", batches)?;
    let phases = standings
        .phases
        .iter()
        .map(|(phase, status, count)| ([("phase", phase.name().as_str()), ("status", status.as_str())], float(*count)));
    page.gauges("rephase_phases", "Phases of batches, by where they stand.", phases)?;
    let letters = standings.letters.iter().map(|(state, count)| ([("state", state.as_str())], float(*count)));
    page.gauges("rephase_dead_letters", "Messages that no consumer could handle.", letters)
}
