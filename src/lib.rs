//! rephase runs batches of essays through pipelines of phases, and re-runs a single phase when asked.
//!
//! One idea carries it: every change of a batch is one *step*, a pure function of its record and an input. The new
//! record, what it causes and what caused it are committed at once; only then is anybody told.
//!
//! | room | what it is |
//! | --- | --- |
//! | [`contract`] | what the full stack says on the wire |
//! | [`domain`] | batch, phase, pipelines, retry rules, [`domain::step()`] |
//! | [`store`] | the atomic commit on disk, and the only room that knows the database |
//! | [`bus`] | consumer groups on bounded channels |
//! | [`engine`] | partitions, outbox relay, timers, consumers |
//! | [`worker`] | who runs the phases |
//! | [`http`] | the gateway |
//! | [`app`] | composition: open, recover, serve, drain |
//! | [`cli`] | the command line |
//! | [`config`] | what is in force: flags, environment, one file |
//! | [`fixture`] | a server inside a Rust test |
//! | [`likeness`] | what was meant by a word that nobody knows |
//! | [`crash`] | the points at which a crash is interesting |
//! | [`clock`] | the system's clock and a manual one |
//! | [`tally`] | distributions that are cheap to observe |

pub mod app;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod crash;
pub mod domain;
pub mod engine;
pub mod fixture;
pub mod http;
pub mod likeness;
pub mod store;
pub mod tally;
pub mod worker;

pub use fixture::Fixture;
