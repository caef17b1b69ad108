//! How many pipelines one user can request (contract, HTTP: the gateway's limit).

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock as _, DefaultClock};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::{DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};

use super::Problem;
use super::problem::PIPELINES;
use crate::domain::DenialReason;

/// From how many users on those who have not asked for a while are forgotten.
const MANY_USERS: usize = 10_000;

/// A limit for each user, or none.
#[derive(Clone)]
pub(super) struct PipelineLimit(Option<Arc<Limiters>>);

struct Limiters {
    quota: NonZeroU32,
    pipelines: RateLimiter<String, Counted, DefaultClock>,
    /// The same, to look at.
    glimpses: RateLimiter<String, Glimpsed, DefaultClock>,
    /// How many denials are told: as many again, so that whoever never stops asking fills no disk.
    denials: DefaultKeyedRateLimiter<String>,
}

/// A user has asked for too many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exceeded {
    /// How many there can be in a minute.
    pub(super) limit: u32,
    /// When the next can be, in milliseconds.
    pub(super) wait_ms: u64,
    /// Whether the user is told beside the answer.
    pub(super) is_told: bool,
}

impl PipelineLimit {
    pub(super) fn new(a_minute: u32) -> Self {
        let limiters = |quota| {
            let (each, clock, users) = (Quota::per_minute(quota), DefaultClock::default(), Arc::default());
            let pipelines = RateLimiter::new(each, Counted(Arc::clone(&users)), clock.clone());
            let glimpses = RateLimiter::new(each, Glimpsed(users), clock);
            Arc::new(Limiters { quota, pipelines, glimpses, denials: RateLimiter::dashmap(each) })
        };
        Self(NonZeroU32::new(a_minute).map(limiters))
    }

    /// Counts a request of `user`.
    pub(super) fn check(&self, user: &str) -> Result<(), Exceeded> {
        let Some(limiters) = self.0.as_deref() else { return Ok(()) };
        let user = user.to_owned();
        limiters.forget();
        limiters.pipelines.check_key(&user).map_err(|refused| {
            let is_told = limiters.denials.check_key(&user).is_ok();
            limiters.exceeded(&refused, is_told)
        })
    }

    /// Whether a request of `user` would be one too many. It counts as none.
    pub(super) fn glimpse(&self, user: &str) -> Option<DenialReason> {
        let limiters = self.0.as_deref()?;
        limiters.forget();
        let refused = limiters.glimpses.check_key(&user.to_owned()).err()?;
        let Exceeded { limit, wait_ms, .. } = limiters.exceeded(&refused, false);
        Some(DenialReason::RateLimitExceeded { limit, wait_ms })
    }
}

impl Limiters {
    fn forget(&self) {
        if self.pipelines.len() > MANY_USERS {
            self.pipelines.retain_recent();
        }
        if self.denials.len() > MANY_USERS {
            self.denials.retain_recent();
        }
    }

    fn exceeded(&self, refused: &NotUntil<governor::clock::QuantaInstant>, is_told: bool) -> Exceeded {
        let wait_ms = refused.wait_time_from(DefaultClock::default().now()).as_millis();
        let wait_ms = u64::try_from(wait_ms).unwrap_or(u64::MAX).max(1);
        Exceeded { limit: self.quota.get(), wait_ms, is_told }
    }
}

impl From<Exceeded> for Problem {
    fn from(Exceeded { limit, wait_ms, is_told: _ }: Exceeded) -> Self {
        let error = format!("{limit} pipelines a minute are the limit of one user");
        Self::limited(error, PIPELINES, limit, Some(wait_ms))
    }
}

type Users = Arc<DashMapStateStore<String>>;

/// Requests count.
struct Counted(Users);

impl StateStore for Counted {
    type Key = String;

    fn measure_and_replace<T, F, E>(&self, user: &String, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(user, measure)
    }
}

impl ShrinkableKeyedStateStore<String> for Counted {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What would come of a request is measured, and never replaces anything.
struct Glimpsed(Users);

impl StateStore for Glimpsed {
    type Key = String;

    fn measure_and_replace<T, F, E>(&self, user: &String, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // An error leaves the store as it is.
        let Err(measured) = self.0.measure_and_replace(user, |state| Err::<(Infallible, Nanos), _>(measure(state)));
        measured.map(|(outcome, _)| outcome)
    }
}
