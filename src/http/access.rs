//! Who may use which routes: each audience has a rule, and every route is under the rule of its audience.
//!
//! Users show a token, or are believed ([`Access::tokens`]). Whoever runs the server, and the services around it, show a
//! bearer token of their own; the operator's opens everything of the others.

use std::fmt;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::browsers::{Browsers, Names};
use super::{Gateway, Problem, Tokens, identity};

/// Who may use what.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What a user's token has to be; none where a user's name is believed.
    pub tokens: Option<Tokens>,
    /// The tokens of those who run the server, and of services.
    pub bearers: Bearers,
    /// Pages of other origins that may ask, and the names of this one.
    pub browsers: Browsers,
}

/// Somebody who is no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whoever runs the server: everything below `/internal` and `/_test`.
    Operator,
    /// Workers that lease their work.
    Worker,
    /// Services that speak events.
    Events,
    /// Whoever watches: `/metrics`.
    Metrics,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Worker, Self::Events, Self::Metrics];

    /// The name of its token in options and variables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "admin",
            Self::Worker => "worker",
            Self::Events => "events",
            Self::Metrics => "metrics",
        }
    }

    /// What it opens, for people.
    #[must_use]
    pub const fn routes(self) -> &'static str {
        match self {
            Self::Operator => "/internal",
            Self::Worker => "/v1/workers",
            Self::Events => "/v1/events",
            Self::Metrics => "/metrics",
        }
    }
}

/// The tokens of those who are no users. Where a role has none, and the operator neither, its routes are open, or closed
/// to everybody.
#[derive(Debug, Clone, Default)]
pub struct Bearers {
    of: [Option<Secret>; Role::ALL.len()],
    is_closed: bool,
}

/// The hash of a secret: the same size for each, and of no use to whoever reads it.
#[derive(Clone)]
struct Secret(Arc<[u8; 32]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Bearers {
    /// With this token for `role`.
    #[must_use]
    pub fn with(mut self, role: Role, token: &[u8]) -> Self {
        self.of[role as usize] = Some(Secret(Arc::new(Sha256::digest(token).into())));
        self
    }

    /// Whatever has no token is closed, not open: others than the machine's own users reach it.
    #[must_use]
    pub fn closed(self) -> Self {
        Self { is_closed: true, ..self }
    }

    /// The tokens that open the routes of `role`.
    fn opening(&self, role: Role) -> impl Iterator<Item = &Secret> {
        let operator = self.of[Role::Operator as usize].as_ref().filter(|_| role != Role::Operator);
        self.of[role as usize].iter().chain(operator)
    }

    /// Whether nobody can use the routes of `role`.
    #[must_use]
    pub fn is_shut(&self, role: Role) -> bool {
        self.is_closed && self.opening(role).next().is_none()
    }

    /// Whether everybody may use the routes of `role`.
    fn is_open(&self, role: Role) -> bool {
        !self.is_closed && self.opening(role).next().is_none()
    }

    fn admit(&self, role: Role, headers: &HeaderMap) -> Result<(), Problem> {
        if self.opening(role).next().is_none() {
            let name = role.name();
            return Err(Problem::forbidden(format!(
                "this route is closed: the server listens beyond its own machine, and was started without --{name}-token-file"
            )));
        }
        let token = bearer(headers)?.ok_or_else(|| Problem::no_token("this route wants a token of its own"))?;
        let shown: [u8; 32] = Sha256::digest(token).into();
        // Each of them is compared, and each to its end.
        let is_known = self.opening(role).fold(Choice::from(0), |known, secret| known | secret.0.ct_eq(&shown));
        if is_known.into() { Ok(()) } else { Err(Problem::bad_token("this token does not open this route")) }
    }
}

/// The token of the header Authorization.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request("Authorization was sent more than once"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    if is_bearer { Ok(Some(token.trim())) } else { Err(Problem::bad_token("Authorization is no bearer token")) }
}

/// What is asked of whoever uses a route, before its handler is.
#[derive(Clone)]
pub(super) enum Rule {
    /// Nothing.
    Open,
    /// That the server is called by one of its names: the route is for whoever reaches it.
    Name(Names),
    /// A token that opens the routes of a role.
    Bearer(Role, Bearers),
    /// The token of a user.
    User(Gateway),
}

impl Rule {
    pub(super) fn of_role(role: Role, access: &Access) -> Self {
        if access.bearers.is_open(role) {
            return Self::of_all(access);
        }
        Self::Bearer(role, access.bearers.clone())
    }

    pub(super) fn of_users(gateway: &Gateway) -> Self {
        if gateway.access.tokens.is_some() { Self::User(gateway.clone()) } else { Self::of_all(&gateway.access) }
    }

    /// Of users whom the handler asks for their token.
    pub(super) fn of_listeners(access: &Access) -> Self {
        if access.tokens.is_some() { Self::Open } else { Self::of_all(access) }
    }

    fn of_all(access: &Access) -> Self {
        access.browsers.names().map_or(Self::Open, Self::Name)
    }

    /// Lets a request on, or says why not. One that shows whose it is says so to its handler.
    pub(super) fn admit(&self, request: &mut Request) -> Result<(), Problem> {
        match self {
            Self::Open => {}
            Self::Name(names) => names.admit(request.headers())?,
            Self::Bearer(role, bearers) => bearers.admit(*role, request.headers())?,
            Self::User(gateway) => {
                let caller = identity::shown(gateway, request.headers())?;
                request.extensions_mut().insert(caller);
            }
        }
        Ok(())
    }
}
