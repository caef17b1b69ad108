//! Distributions that cost whoever observes two additions, and nobody a lock.
//!
//! Values are whole numbers: nanoseconds, bytes, counts. Whoever shows them knows the unit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bounds of classes for how long something took, in nanoseconds: from what an answer out of memory takes to what
/// clients give up on.
pub const LATENCIES_NS: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
];

/// Bounds of classes for how many there were.
pub const COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096];

/// Bounds of classes for how large something was, in bytes.
pub const SIZES: &[u64] = &[256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];

/// A distribution of values over classes.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bounds of the classes, each included; what is above the last has a class of its own.
    bounds: &'static [u64],
    classes: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a [`Histogram`] has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The upper bounds of the classes.
    pub bounds: &'static [u64],
    /// How many values there are in each class, and above the last.
    pub classes: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// A distribution of nothing over these classes.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let classes = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, classes, sum: AtomicU64::new(0) }
    }

    /// Adds a value.
    pub fn observe(&self, value: u64) {
        let class = self.bounds.partition_point(|bound| *bound < value);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds how long it has been since `began`, in nanoseconds.
    pub fn observe_since(&self, began: Instant) {
        self.observe_duration(began.elapsed());
    }

    /// Adds a duration, in nanoseconds.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds a count or a size.
    pub fn observe_size(&self, size: usize) {
        self.observe(u64::try_from(size).unwrap_or(u64::MAX));
    }

    /// What it has seen. Values that are being added may be in one of its parts and not yet in the other.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let classes = self.classes.iter().map(|class| class.load(Ordering::Relaxed)).collect();
        Observed { bounds: self.bounds, classes, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Observed {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_class_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 100, 101, 5_000] {
            histogram.observe(value);
        }
        let observed = histogram.observed();
        assert_eq!((observed.classes.as_slice(), observed.sum, observed.count()), (&[2, 2, 1, 2][..], 5_214, 7));
    }

    #[test]
    fn bounds_are_in_order() {
        for bounds in [LATENCIES_NS, COUNTS, SIZES] {
            assert!(bounds.is_sorted());
        }
    }
}
