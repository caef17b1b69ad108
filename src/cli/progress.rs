//! Progress of what takes long, on standard error, where that is a terminal. Elsewhere nothing is drawn.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output::plain;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Bars below one another.
pub(super) struct Bars(MultiProgress);

fn style(template: &str) -> ProgressStyle {
    // The templates are of this file and are well formed.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

impl Bars {
    pub(super) fn new() -> Self {
        // Standard error; hidden where that is no terminal.
        Self(MultiProgress::new())
    }

    /// A bar for so many of something.
    pub(super) fn bar(&self, name: &str, length: u64) -> ProgressBar {
        let bar = self.0.add(ProgressBar::new(length));
        bar.set_style(style("{prefix:>14} {bar:30} {pos}/{len} {wide_msg}"));
        bar.set_prefix(plain(name).into_owned());
        bar
    }

    /// Something whose end nobody knows.
    pub(super) fn spinner(&self, what: &str) -> ProgressBar {
        let spinner = self.0.add(ProgressBar::new_spinner());
        spinner.set_style(style("{spinner} {wide_msg} {elapsed}"));
        spinner.set_message(plain(what).into_owned());
        spinner.enable_steady_tick(TICK);
        spinner
    }

    /// So many bytes of nobody knows how many.
    pub(super) fn bytes(&self, what: &str) -> ProgressBar {
        let bytes = self.0.add(ProgressBar::new_spinner());
        bytes.set_style(style("{spinner} {prefix} {binary_bytes} {binary_bytes_per_sec} {elapsed}"));
        bytes.set_prefix(plain(what).into_owned());
        bytes.enable_steady_tick(TICK);
        bytes
    }

    /// Takes the bars away while something is printed.
    pub(super) fn aside(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    pub(super) fn clear(&self) {
        // A terminal that is gone shows nothing anyway.
        let _ = self.0.clear();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
    }
}
