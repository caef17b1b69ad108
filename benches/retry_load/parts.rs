//! The parts: what is set up, driven and written down.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rephase::domain::BatchId;
use uuid::Uuid;

use super::load::{Act, Measured, Until, accept_rounds, drive};
use super::report::Report;
use super::seed::seed;
use super::server::{Server, fresh, size_of};
use super::{Options, Part};

/// How many connections are many.
const MANY: usize = 64;

/// How many batches there are where nothing else is said.
const BATCHES: usize = 1_000;

/// How many essays a batch has where nothing else is said.
const ESSAYS: u16 = 3;

/// How long a rate is measured.
const WHILE: Duration = Duration::from_secs(5);

/// Workers that take so long that accepting is measured and not them.
const SLOW: &[&str] = &["--latency-ms", "500"];

/// Workers that take no time.
const QUICK: &[&str] = &["--latency-ms", "0"];

/// What the figures are held against.
struct Yardstick {
    echo_one_ms: f64,
    echo_rate: f64,
    fdatasync_ms: f64,
}

pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let yardstick = measure_yardstick(options, &mut report).await?;
    if options.wants(Part::Accept) {
        accept(options, &yardstick, &mut report).await?;
    }
    if options.wants(Part::Complete) {
        complete(options, &yardstick, &mut report).await?;
    }
    if options.wants(Part::Mixed) {
        mixed(options, &yardstick, &mut report).await?;
    }
    if options.wants(Part::Ready) {
        ready(options, &mut report).await?;
    }
    if options.wants(Part::Space) {
        space(options, &mut report).await?;
    }
    if options.wants(Part::Growth) {
        growth(options, &mut report).await?;
    }
    if options.wants(Part::Overload) {
        overload(options, &mut report).await?;
    }
    fresh(&options.directory)?;
    Ok(report)
}

/// The one in the middle, by rate.
fn median(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    let middle = measured.len() / 2;
    measured.swap_remove(middle)
}

fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure_yardstick(options: &Options, report: &mut Report) -> anyhow::Result<Yardstick> {
    let echo = Server::echo().await?;
    let batches = Arc::new(vec![BatchId(Uuid::nil())]);
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        one.push(drive(echo.address, 1, &batches, Act::Echo, Until::Time(WHILE / 2)).await?);
        many.push(drive(echo.address, MANY, &batches, Act::Echo, Until::Time(WHILE / 2)).await?);
    }
    let (one, many) = (median(one), median(many));
    let fdatasync_ms = measure_fdatasync(&options.directory)?;
    let yardstick = Yardstick { echo_one_ms: one.percentile_ms(50.0), echo_rate: many.rate(), fdatasync_ms };
    report.say("echo, 1 connection, p50", yardstick.echo_one_ms, "ms");
    report.say("echo, 64 connections", yardstick.echo_rate, "1/s");
    report.say("write of 512 bytes with fdatasync, p50", yardstick.fdatasync_ms, "ms");
    Ok(yardstick)
}

/// Appends 512 bytes and syncs them, again and again.
fn measure_fdatasync(directory: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(fresh(directory)?.join("log"))?;
    let mut times = Histogram::<u64>::new(3)?;
    for _ in 0..1_000 {
        let began = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times.record(u64::try_from(began.elapsed().as_nanos())?)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^52 ns")]
    Ok(times.value_at_quantile(0.5) as f64 / 1e6)
}

/// A server on a store with so many batches.
async fn seeded(
    options: &Options,
    (count, essays): (usize, u16),
    with: &[&str],
) -> anyhow::Result<(Server, Arc<Vec<BatchId>>)> {
    let directory = fresh(&options.directory.join("store"))?;
    let batches = Arc::new(seed(&directory, count, essays).await?);
    let server = Server::start(&directory, with).await?;
    // Whatever is done once is done.
    let some = Arc::new(batches[..batches.len().min(200)].to_vec());
    drive(server.address, 8, &some, Act::Complete, Until::Through).await?;
    Ok((server, batches))
}

async fn accept(options: &Options, yardstick: &Yardstick, report: &mut Report) -> anyhow::Result<()> {
    let (server, batches) = seeded(options, (BATCHES, ESSAYS), SLOW).await?;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        one.push(accept_rounds(server.address, 1, &batches, 3).await?);
        many.push(accept_rounds(server.address, MANY, &batches, 5).await?);
    }
    let (one, many) = (median(one), median(many));
    let floor_ms = yardstick.echo_one_ms + yardstick.fdatasync_ms;
    report.say("accept, 1 connection", one.rate(), "1/s");
    report.say("accept, 1 connection, p50", one.percentile_ms(50.0), "ms");
    report.say("accept, 1 connection, p99", one.percentile_ms(99.0), "ms");
    report.at_most(2.0, "accept, 1 connection, p50 : (echo + fdatasync)", one.percentile_ms(50.0) / floor_ms, "");
    report.at_most(4.0, "accept, 1 connection, p99 : (echo + fdatasync)", one.percentile_ms(99.0) / floor_ms, "");
    report.say("accept, 64 connections", many.rate(), "1/s");
    report.say("accept, 64 connections, p50", many.percentile_ms(50.0), "ms");
    report.at_most(25.0, "accept, 64 connections, p99", many.percentile_ms(99.0), "ms");
    report.at_least(0.25, "accept, 64 connections : echo", many.rate() / yardstick.echo_rate, "");
    server.stop().await
}

async fn complete(options: &Options, yardstick: &Yardstick, report: &mut Report) -> anyhow::Result<()> {
    let (server, batches) = seeded(options, (BATCHES, ESSAYS), QUICK).await?;
    let (mut one, mut many, mut in_two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        one.push(drive(server.address, 1, &batches, Act::Complete, Until::Time(WHILE)).await?);
        many.push(drive(server.address, MANY, &batches, Act::Complete, Until::Time(WHILE)).await?);
        in_two.push(drive(server.address, MANY, &batches, Act::CompleteInTwo, Until::Time(WHILE)).await?);
    }
    let (one, many, in_two) = (median(one), median(many), median(in_two));
    report.say("complete, 1 at a time, p50", one.percentile_ms(50.0), "ms");
    report.say("complete, 64 in flight", many.rate(), "1/s");
    report.say("complete, 64 in flight, p50", many.percentile_ms(50.0), "ms");
    report.say("complete, 64 in flight, p99", many.percentile_ms(99.0), "ms");
    report.at_least(0.12, "complete, 64 in flight : echo", many.rate() / yardstick.echo_rate, "");
    report.say("complete, two requests for each, 64 in flight", in_two.rate(), "1/s");
    report.say("complete, two requests for each : echo", in_two.rate() / yardstick.echo_rate, "");
    server.stop().await
}

async fn mixed(options: &Options, yardstick: &Yardstick, report: &mut Report) -> anyhow::Result<()> {
    let (server, batches) = seeded(options, (BATCHES, ESSAYS), SLOW).await?;
    let mut all = Vec::new();
    for _ in 0..options.runs {
        let told = Arc::new(AtomicBool::new(false));
        let retries = {
            let (address, batches, until) = (server.address, Arc::clone(&batches), Until::Told(Arc::clone(&told)));
            tokio::spawn(async move { drive(address, MANY, &batches, Act::Complete, until).await })
        };
        let reads = drive(server.address, MANY, &batches, Act::Status, Until::Time(WHILE)).await?;
        told.store(true, Ordering::Relaxed);
        let retries = retries.await??;
        all.push((reads, retries.rate()));
    }
    all.sort_by(|a, b| a.0.rate().total_cmp(&b.0.rate()));
    let (reads, retries) = all.swap_remove(all.len() / 2);
    report.say("status, 64 connections, while 64 others retry", reads.rate(), "1/s");
    report.say("status while others retry, p99", reads.percentile_ms(99.0), "ms");
    report.say("retries completed meanwhile (workers take 500 ms)", retries, "1/s");
    report.at_least(0.5, "status while others retry : echo", reads.rate() / yardstick.echo_rate, "");
    server.stop().await
}

async fn ready(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for (count, bound_ms) in [(0, 30.0), (10_000, 100.0), (100_000, 1_000.0)] {
        let directory = fresh(&options.directory.join("store"))?;
        let batches = Arc::new(seed(&directory, count, ESSAYS).await?);
        let (mut stopped, mut killed) = (Vec::new(), Vec::new());
        for _ in 0..options.runs.max(3) {
            let server = Server::start(&directory, QUICK).await?;
            stopped.push(server.ready_after.as_secs_f64() * 1e3);
            if count > 0 {
                drive(server.address, MANY, &batches, Act::Complete, Until::Count(1_000)).await?;
            }
            server.kill().await?;
            let server = Server::start(&directory, QUICK).await?;
            killed.push(server.ready_after.as_secs_f64() * 1e3);
            if count == 0 {
                report_idle(&server, report).await?;
            }
            server.stop().await?;
        }
        report.at_most(bound_ms, format!("ready, {count} batches"), median_of(stopped), "ms");
        report.at_most(bound_ms, format!("ready after kill -9, {count} batches"), median_of(killed), "ms");
    }
    Ok(())
}

async fn report_idle(server: &Server, report: &mut Report) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    report.at_most(24.0, "memory, idle and empty", mib(server.resident()?), "MiB");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
async fn space(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (server, batches) = seeded(options, (BATCHES, ESSAYS), QUICK).await?;
    let directory = options.directory.join("store");
    let count = options.retries as f64;
    let (size, written) = (size_of(&directory)?, server.written()?);
    let ticks = server.ticks()?;
    let measured = drive(server.address, MANY, &batches, Act::Complete, Until::Count(options.retries)).await?;
    report.say(format!("{count} retries, 64 in flight"), measured.rate(), "1/s");
    report.say("processor time of the server for a retry", (server.ticks()? - ticks) as f64 / count * 10_000.0, "µs");
    report.at_most(160.0, format!("memory after {count} retries"), mib(server.resident()?), "MiB");
    report.say("bytes written for a retry", (server.written()? - written) as f64 / count, "B");
    report.say("bytes on disk for a retry, at once", size_of(&directory)?.saturating_sub(size) as f64 / count, "B");
    if options.soak > 0 {
        let soak = Duration::from_secs(options.soak);
        drive(server.address, MANY, &batches, Act::Complete, Until::Time(soak / 2)).await?;
        report.say("memory after half of the soak", mib(server.resident()?), "MiB");
        drive(server.address, MANY, &batches, Act::Complete, Until::Time(soak / 2)).await?;
        report.say("memory after the soak", mib(server.resident()?), "MiB");
    }
    server.stop().await?;
    let settled = size_of(&directory)?.saturating_sub(size) as f64 / count;
    if options.soak == 0 {
        report.at_most(1_536.0, "bytes on disk for a retry, once settled", settled, "B");
    }
    Ok(())
}

async fn growth(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let sizes: &[usize] = if options.full { &[1_000, 10_000, 100_000, 1_000_000] } else { &[1_000, 10_000, 100_000] };
    let mut small = None;
    for &count in sizes {
        let (server, batches) = seeded(options, (count, ESSAYS), SLOW).await?;
        let (rate, p50_ms) = spread(options, &server, &batches, report, format!("{count} batches")).await?;
        let small = *small.get_or_insert(rate);
        report.at_least(0.8, format!("accept, {count} batches : 1000 batches"), rate / small, "");
        let _ = p50_ms;
        server.stop().await?;
    }
    for essays in [3, 30, 100, 1_000] {
        let (server, batches) = seeded(options, (200, essays), QUICK).await?;
        let measured = drive(server.address, MANY, &batches, Act::Complete, Until::Time(WHILE)).await?;
        report.say(format!("complete, {essays} essays"), measured.rate(), "1/s");
        report.say(format!("complete, {essays} essays, p50"), measured.percentile_ms(50.0), "ms");
        server.stop().await?;
    }
    for connections in [1, 8, 64, 512] {
        let (server, batches) = seeded(options, (2_000, ESSAYS), QUICK).await?;
        let measured = drive(server.address, connections, &batches, Act::Complete, Until::Time(WHILE)).await?;
        report.say(format!("complete, {connections} connections"), measured.rate(), "1/s");
        report.say(format!("complete, {connections} connections, p50"), measured.percentile_ms(50.0), "ms");
        server.stop().await?;
    }
    Ok(())
}

/// Accepts retries of a thousand batches that lie all over the store.
async fn spread(
    options: &Options,
    server: &Server,
    batches: &[BatchId],
    report: &mut Report,
    name: String,
) -> anyhow::Result<(f64, f64)> {
    let mut all = Vec::new();
    for run in 0..options.runs {
        let every = batches.len() / BATCHES;
        let some: Vec<_> = batches.iter().skip(run % every).step_by(every).take(BATCHES).copied().collect();
        all.push(accept_rounds(server.address, MANY, &Arc::new(some), 3).await?);
    }
    let measured = median(all);
    report.say(format!("accept, {name}"), measured.rate(), "1/s");
    report.say(format!("accept, {name}, p50"), measured.percentile_ms(50.0), "ms");
    Ok((measured.rate(), measured.percentile_ms(50.0)))
}

/// Far more is asked than can be done. Those who are accepted do not wait longer for it.
async fn overload(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (server, batches) = seeded(options, (10_000, ESSAYS), QUICK).await?;
    for connections in [64, 512, 4_096] {
        let measured = drive(server.address, connections, &batches, Act::TryAccept, Until::Time(WHILE)).await?;
        report.say(format!("overload, {connections} connections, accepted"), measured.rate(), "1/s");
        report.say(format!("overload, {connections} connections, told to come back"), measured.refused_rate(), "1/s");
        report.say(
            format!("overload, {connections} connections, p50 of the accepted"),
            measured.percentile_ms(50.0),
            "ms",
        );
        report.say(
            format!("overload, {connections} connections, p99 of the accepted"),
            measured.percentile_ms(99.0),
            "ms",
        );
    }
    server.stop().await
}
