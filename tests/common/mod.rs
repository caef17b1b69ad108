//! What several test files need: the contract's fixtures, and a batch that is driven through `step`.
//!
//! Every test file is a program of its own and uses only a part of this.
#![allow(dead_code, reason = "each test file uses another part")]

pub mod fixtures;
pub mod world;
