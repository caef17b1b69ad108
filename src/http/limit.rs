//! How many pipelines one user can request (contract, HTTP: the gateway's limit).

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::Problem;

/// From how many users on those who have not asked for a while are forgotten.
const MANY_USERS: usize = 10_000;

/// A limit for each user, or none.
#[derive(Clone)]
pub(super) struct PipelineLimit(Option<Arc<(NonZeroU32, DefaultKeyedRateLimiter<String>)>>);

impl PipelineLimit {
    pub(super) fn new(a_minute: u32) -> Self {
        let limiter = |quota| Arc::new((quota, RateLimiter::dashmap(Quota::per_minute(quota))));
        Self(NonZeroU32::new(a_minute).map(limiter))
    }

    /// Counts a request of `user`.
    pub(super) fn check(&self, user: &str) -> Result<(), Problem> {
        let Some(limit) = &self.0 else { return Ok(()) };
        let (quota, limiter) = &**limit;
        if limiter.len() > MANY_USERS {
            limiter.retain_recent();
        }
        limiter.check_key(&user.to_owned()).map_err(|refused| {
            let wait_ms = refused.wait_time_from(DefaultClock::default().now()).as_millis();
            let wait_ms = u64::try_from(wait_ms).unwrap_or(u64::MAX).max(1);
            let error = format!("{quota} pipelines a minute are the limit of one user");
            Problem::limited(error, "pipelines", quota.get(), Some(wait_ms))
        })
    }
}
