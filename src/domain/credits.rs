//! Credits: what a pipeline costs, who pays for it, and why one is denied (contract, Phases and pipelines).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::batch::{Batch, BatchDetails};
use super::phase::Phase;
use super::pipeline::with_dependencies;
use super::time::Millis;
use crate::contract::PhaseName;
use crate::contract::requests::ClientId;

/// The most credits that a balance can have: as many as every JSON reader can count. It is also what is said to be there
/// where nothing is limited.
pub const MAX_CREDITS: u64 = 1_000_000_000_000;

/// The most balances there can be. All of them are kept in memory, some hundred bytes each.
pub const MAX_BALANCES: usize = 100_000;

/// Whose credits they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// A user's own.
    User(String),
    /// An organisation's, for all of its users.
    Organisation(String),
}

impl Account {
    /// Who may pay for a batch: the first of them that has a balance does, and where none has, nobody has to.
    pub fn payers(details: &BatchDetails) -> impl Iterator<Item = Self> + use<> {
        let organisation = details.org_id.clone().filter(|id| !id.is_empty()).map(Self::Organisation);
        organisation.into_iter().chain([Self::User(details.user_id.clone())])
    }

    /// The user or organisation.
    #[must_use]
    pub fn id(&self) -> &str {
        let (Self::User(id) | Self::Organisation(id)) = self;
        id
    }
}

/// What there is to pay with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Funds {
    /// As much as it takes.
    Unlimited,
    /// So many credits.
    Limited(u64),
}

impl Funds {
    /// How many credits there are, as far as that can be said in a number.
    #[must_use]
    pub const fn available(self) -> u64 {
        match self {
            Self::Unlimited => MAX_CREDITS,
            Self::Limited(credits) => credits,
        }
    }
}

/// What a pipeline costs, in credits, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Comparisons: every essay with every other.
    pub cj_comparisons: u64,
    /// Feedback, for every essay.
    pub ai_feedback: u64,
}

impl Cost {
    /// What it costs to run these phases on so many essays.
    #[must_use]
    pub fn of(phases: &[Phase], essays: usize) -> Self {
        let essays = u64::try_from(essays).unwrap_or(u64::MAX);
        let mut cost = Self::default();
        for phase in phases {
            match phase {
                Phase::CjAssessment => cost.cj_comparisons = essays.saturating_mul(essays.saturating_sub(1)) / 2,
                Phase::AiFeedback => cost.ai_feedback = essays,
                Phase::Spellcheck | Phase::Nlp => {}
            }
        }
        cost
    }

    /// All of it.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.cj_comparisons.saturating_add(self.ai_feedback)
    }

    /// By the names that the contract has for what is paid for; what costs nothing is left out.
    #[must_use]
    pub fn breakdown(self) -> BTreeMap<String, i64> {
        let parts = [("cj_comparison", self.cj_comparisons), ("ai_feedback_generation", self.ai_feedback)];
        let parts = parts.into_iter().filter(|(_, credits)| *credits > 0);
        parts.map(|(name, credits)| (name.to_owned(), in_json(credits))).collect()
    }
}

/// Credits as they are written on the wire.
pub(super) fn in_json(credits: u64) -> i64 {
    i64::try_from(credits).unwrap_or(i64::MAX)
}

/// What a pipeline would run, and its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The phases that are going to run, in order.
    pub phases: Vec<Phase>,
    /// The phases that it has and that are complete.
    pub completed: Vec<Phase>,
    /// What those that run cost.
    pub cost: Cost,
}

impl Batch {
    /// What the pipeline that ends with `last` would run now, and its price.
    #[must_use]
    pub fn quote(&self, last: Phase) -> Quote {
        let (completed, phases): (Vec<_>, Vec<_>) =
            with_dependencies(last).into_iter().partition(|&phase| self.has_completed(phase));
        let cost = Cost::of(&phases, self.essays.len());
        Quote { phases, completed, cost }
    }
}

/// Why a pipeline is denied to somebody who may ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// It costs more than there is.
    InsufficientCredits,
    /// Its user asks for too many.
    RateLimitExceeded {
        /// How many there can be.
        limit: u32,
        /// When the next can be, in milliseconds from now.
        wait_ms: u64,
    },
}

impl DenialReason {
    /// As it is spelled on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientCredits => "insufficient_credits",
            Self::RateLimitExceeded { .. } => "rate_limit_exceeded",
        }
    }
}

/// A pipeline that was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// The phase asked for.
    pub requested: Phase,
    /// Why.
    pub reason: DenialReason,
    /// What it would have cost.
    pub cost: Cost,
    /// What there was.
    pub funds: Funds,
}

impl Denial {
    /// How many credits are missing.
    #[must_use]
    pub const fn deficit(&self) -> u64 {
        self.cost.total().saturating_sub(self.funds.available())
    }

    /// What a person reads.
    #[must_use]
    pub fn message(&self) -> String {
        let (requested, required, available) = (self.requested, self.cost.total(), self.funds.available());
        match self.reason {
            DenialReason::InsufficientCredits => {
                format!("the pipeline {requested} costs {required} credits, and {available} are left")
            }
            DenialReason::RateLimitExceeded { limit, .. } => {
                format!("{limit} pipelines a minute are the limit of one user")
            }
        }
    }
}

/// The balance of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// The credits that are left, where that counts. It may be below zero only where it does not.
    pub credits: i64,
    /// Whether it does not.
    pub is_unlimited: bool,
    /// What was charged since there is a balance.
    pub charged: u64,
    /// When it was last changed.
    pub changed_at: Millis,
}

impl Balance {
    /// The credits that are left; none where they are unlimited.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        (!self.is_unlimited).then(|| u64::try_from(self.credits).unwrap_or(0))
    }
}

/// What an accepted pipeline was charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Who paid.
    pub account: Account,
    /// The phase asked for.
    pub requested: Phase,
    /// How much.
    pub cost: Cost,
    /// When.
    pub at: Millis,
}

/// The balances that a server begins with. An account that has one already keeps that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balances(pub BTreeMap<Account, Option<u64>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    users: BTreeMap<ClientId, Option<u64>>,
    #[serde(default)]
    organisations: BTreeMap<ClientId, Option<u64>>,
}

impl Balances {
    /// Reads `{"users": {ID: CREDITS}, "organisations": {ID: CREDITS}}`; `null` is unlimited.
    ///
    /// # Errors
    /// Where it is not that, in words for people.
    pub fn parse(json: &str) -> Result<Self, String> {
        // A struct would also be read from an array of its members, which nobody means.
        if !json.trim_ascii_start().starts_with('{') {
            return Err("it is no JSON object".to_owned());
        }
        let File { users, organisations } = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let users = users.into_iter().map(|(id, credits)| (Account::User(id.into_string()), credits));
        let organisations =
            organisations.into_iter().map(|(id, credits)| (Account::Organisation(id.into_string()), credits));
        let balances: BTreeMap<_, _> = users.chain(organisations).collect();
        if let Some((account, _)) = balances.iter().find(|(_, credits)| credits.is_some_and(|it| it > MAX_CREDITS)) {
            return Err(format!("{} has more than {MAX_CREDITS} credits", account.id()));
        }
        if balances.len() > MAX_BALANCES {
            return Err(format!("there are more than {MAX_BALANCES} balances"));
        }
        Ok(Self(balances))
    }
}

/// What a preflight says of a pipeline: what the request for it would be answered, as far as limits go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The phase asked for.
    pub requested: Phase,
    /// What would run.
    pub quote: Quote,
    /// What there is to pay with.
    pub funds: Funds,
}

impl Preflight {
    /// Why it would be denied, if it would be. `limited` is the limit of its user, where that is reached.
    #[must_use]
    pub fn denial(&self, limited: Option<DenialReason>) -> Option<Denial> {
        let Self { requested, quote: Quote { cost, .. }, funds } = *self;
        let is_short = cost.total() > funds.available();
        let reason = limited.or_else(|| is_short.then_some(DenialReason::InsufficientCredits))?;
        Some(Denial { requested, reason, cost, funds })
    }

    /// The names of the phases that would run.
    #[must_use]
    pub fn resolved(&self) -> Vec<PhaseName> {
        self.quote.phases.iter().map(|phase| phase.name()).collect()
    }
}
