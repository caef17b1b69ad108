//! Requests, by the template of their route, method and status.
//!
//! A route is found by the hash of its template in a table of fixed size, and has its counters from its first request
//! on: counting one takes no lock and, but for the first, no memory.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};

use crate::tally::{Histogram, LATENCIES_NS, Observed};

/// How many routes have a place of their own; several times as many as there are.
const PLACES: usize = 256;

/// The template of a request that no route is for.
const UNMATCHED: &str = "unmatched";

/// What everything else is called.
const OTHER: &str = "other";

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", OTHER];

/// The statuses that this server answers with, in order.
const STATUSES: [u16; 27] = [
    101, 200, 201, 202, 204, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 408, 409, 412, 413, 415, 422,
    429, 500, 503, 504,
];

/// All requests that were answered. Its clones share them.
#[derive(Clone)]
pub(in crate::http) struct Requests(Arc<Table>);

struct Table {
    hasher: RandomState,
    places: [OnceLock<Box<Route>>; PLACES],
    unmatched: Route,
    /// Routes that found no place.
    others: Route,
}

/// Requests for one route.
pub(in crate::http) struct Route {
    template: Box<str>,
    /// By method.
    answers: [OnceLock<Box<Answers>>; METHODS.len()],
}

/// What requests of one method for one route were answered.
struct Answers {
    /// By status; the last is any other.
    statuses: [AtomicU64; STATUSES.len() + 1],
    took: Histogram,
}

/// What there is to show of one route and method.
pub(super) struct Shown<'a> {
    pub(super) route: &'a str,
    pub(super) method: &'static str,
    /// Those that there were.
    pub(super) statuses: Vec<(String, u64)>,
    pub(super) took_ns: Observed,
}

impl Default for Requests {
    fn default() -> Self {
        let places = [const { OnceLock::new() }; PLACES];
        let (unmatched, others) = (Route::new(UNMATCHED), Route::new(OTHER));
        Self(Arc::new(Table { hasher: RandomState::new(), places, unmatched, others }))
    }
}

impl Requests {
    /// The route of this template; none where no route fits.
    pub(in crate::http) fn route(&self, template: Option<&str>) -> &Route {
        let Self(table) = self;
        let Some(template) = template else { return &table.unmatched };
        let first = usize::try_from(table.hasher.hash_one(template) % PLACES as u64).unwrap_or(0);
        let (before, from) = table.places.split_at(first);
        let mut places = from.iter().chain(before).map(|place| place.get_or_init(|| Box::new(Route::new(template))));
        places.find(|route| *route.template == *template).map_or(&table.others, |route| &**route)
    }

    /// Everything that was counted, in the order of the templates.
    pub(super) fn shown(&self) -> Vec<Shown<'_>> {
        let Self(table) = self;
        let routes = table.places.iter().filter_map(|place| place.get().map(|route| &**route));
        let mut shown: Vec<_> = routes.chain([&table.unmatched, &table.others]).flat_map(Route::shown).collect();
        shown.sort_by_key(|shown| (shown.route, shown.method));
        shown
    }
}

impl Route {
    fn new(template: &str) -> Self {
        Self { template: template.into(), answers: [const { OnceLock::new() }; METHODS.len()] }
    }

    pub(in crate::http) fn template(&self) -> &str {
        &self.template
    }

    /// Counts a request of this method that was answered with `status` after so long.
    pub(in crate::http) fn count(&self, method: &'static str, status: StatusCode, took: Duration) {
        let place = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let answers = self.answers[place].get_or_init(Box::default);
        let status = STATUSES.binary_search(&status.as_u16()).unwrap_or(STATUSES.len());
        answers.statuses[status].fetch_add(1, Ordering::Relaxed);
        answers.took.observe_duration(took);
    }

    fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        METHODS.into_iter().zip(&self.answers).filter_map(|(method, answers)| {
            let answers = answers.get()?;
            let names = STATUSES.iter().map(u16::to_string).chain([OTHER.to_owned()]);
            let counts = answers.statuses.iter().map(|count| count.load(Ordering::Relaxed));
            let statuses = names.zip(counts).filter(|(_, count)| *count > 0).collect();
            Some(Shown { route: &self.template, method, statuses, took_ns: answers.took.observed() })
        })
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self { statuses: [const { AtomicU64::new(0) }; STATUSES.len() + 1], took: Histogram::new(LATENCIES_NS) }
    }
}

/// The name that a method is counted by.
pub(in crate::http) fn method_name(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Counted = (String, &'static str, Vec<(String, u64)>);

    fn counted(requests: &Requests) -> Vec<Counted> {
        let shown = requests.shown().into_iter();
        shown.map(|shown| (shown.route.to_owned(), shown.method, shown.statuses)).collect()
    }

    #[test]
    fn a_request_is_counted_under_what_it_is() {
        let requests = Requests::default();
        for (route, status) in [(Some("/a/{b}"), 200), (None, 404), (Some("/a/{b}"), 200), (Some("/a/{b}"), 299)] {
            let status = StatusCode::from_u16(status).expect("a status");
            requests.route(route).count(method_name(&Method::GET), status, Duration::from_millis(1));
        }
        let one = |status: &str, count| (status.to_owned(), count);
        let expected = [
            ("/a/{b}".to_owned(), "GET", vec![one("200", 2), one("other", 1)]),
            (UNMATCHED.to_owned(), "GET", vec![one("404", 1)]),
        ];
        assert_eq!(counted(&requests), expected);
    }

    #[test]
    fn whatever_comes_there_are_so_many_routes_and_methods_and_no_more() {
        let requests = Requests::default();
        for number in 0..2 * PLACES {
            let method = Method::from_bytes(format!("M{number}").as_bytes()).expect("a method");
            let route = requests.route(Some(&format!("/{number}")));
            route.count(method_name(&method), StatusCode::OK, Duration::ZERO);
        }
        let counted = counted(&requests);
        assert_eq!(counted.len(), PLACES + 1);
        assert!(counted.iter().all(|(_, method, _)| *method == OTHER));
        let others = counted.iter().find(|(route, ..)| route == OTHER).expect("those without a place");
        assert_eq!(others.2[0].1, u64::try_from(PLACES).expect("a number"));
    }
}
