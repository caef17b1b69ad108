//! `rephase health`: a container can use its exit code.

use clap::Args;

use super::common::Common;
use super::failure::{EXIT_CODES, Failure};
use super::output::Tone;
use super::values::text;

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct HealthArguments {
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(arguments: HealthArguments) -> Result<(), Failure> {
    let session = arguments.common.session()?;
    let answer = session.client.ask_once("/healthz").await?;
    let (status, message) = (text(&answer.body["status"]), text(&answer.body["message"]));
    let is_healthy = answer.status == 200 && status == "healthy";
    // What else is there, as a proxy, has no such status.
    let is_known = answer.body["status"].is_string();
    let output = &session.output;
    if output.is_json && is_known {
        output.json(&answer.body);
    } else if is_known {
        let tone = if is_healthy { Tone::Good } else { Tone::Bad };
        output.marked(tone, &format!("{status}:"), &format!("{message}, version {}", text(&answer.body["version"])));
        for (name, count) in answer.body["counters"].as_object().into_iter().flatten() {
            output.line(&format!("  {name:<20} {}", text(count)));
        }
    }
    if is_healthy {
        return output.finish();
    }
    let url = arguments.common.url()?;
    let said = if is_known { message } else { format!("answered with {}", answer.status) };
    Err(Failure::failed(format!("the server at {url} is not healthy: {said}")).hint("its log says more"))
}
