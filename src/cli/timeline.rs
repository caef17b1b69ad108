//! A timeline on standard output: for people, or one JSON object a line.

use std::io::Write as _;
use std::time::Instant;

use anstyle::Style;
use serde_json::{Value, json};

use super::output::{Tone, plain};
use super::values::counted;

/// What kind of line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Something went well.
    Done,
    /// Something failed.
    Failed,
    /// Something is on its way.
    Moving,
    /// Something to know.
    Note,
}

impl Mark {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Done => "✓",
            Self::Failed => "✗",
            Self::Moving => "…",
            Self::Note => "·",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Moving => "moving",
            Self::Note => "note",
        }
    }

    pub(super) const fn tone(self) -> Tone {
        match self {
            Self::Done => Tone::Good,
            Self::Failed => Tone::Bad,
            Self::Moving => Tone::Moving,
            Self::Note => Tone::Dim,
        }
    }
}

/// A move of a phase, with its essays.
pub(super) fn phase_move(status: &str, counts: &Value) -> (Mark, String) {
    let mark = match status {
        "completed_successfully" | "completed_with_partial_success" => Mark::Done,
        "failed" | "skipped_due_to_dependency_failure" => Mark::Failed,
        "dispatch_initiated" | "in_progress" => Mark::Moving,
        _ => Mark::Note,
    };
    let of_total = |part: &Value| format!("{part} of {}", counted(&counts["total"], "essay"));
    let text = match status {
        "completed_successfully" | "completed_with_partial_success" => {
            format!("{status}, {}", of_total(&counts["successful"]))
        }
        "failed" => format!("{status}, {}", of_total(&counts["failed"])),
        "in_progress" => format!("{status}, {}", counted(&counts["total"], "essay")),
        _ => status.to_owned(),
    };
    (mark, text)
}

/// Lines with the time since the first of them.
pub(super) struct Timeline {
    began: Instant,
    is_json: bool,
}

impl Timeline {
    pub(super) fn new(is_json: bool) -> Self {
        Self { began: Instant::now(), is_json }
    }

    pub(super) fn title(&self, title: &str, subtitle: &str) {
        if self.is_json {
            self.print(&json!({ "at_ms": self.at_ms(), "title": title, "detail": subtitle }).to_string());
        } else {
            let bold = Style::new().bold();
            self.print(&format!("{bold}{title}{bold:#}  ({subtitle})\n"));
        }
    }

    pub(super) fn gap(&self) {
        if !self.is_json {
            self.print("");
        }
    }

    pub(super) fn line(&self, mark: Mark, what: &str, text: &str) {
        let at_ms = self.at_ms();
        if self.is_json {
            self.print(&json!({ "at_ms": at_ms, "mark": mark.name(), "what": what, "text": text }).to_string());
        } else {
            let (style, text) = (mark.tone().style(), plain(text));
            self.print(&format!("{at_ms:>6} ms  {style}{} {what:<12}{style:#} {text}", mark.sign()));
        }
    }

    /// A move of a phase, with its essays.
    pub(super) fn phase(&self, phase: &str, status: &str, counts: &Value) {
        let (mark, text) = phase_move(status, counts);
        self.line(mark, phase, &text);
    }

    #[expect(clippy::unused_self, reason = "a timeline is what prints")]
    fn print(&self, line: &str) {
        // Whoever does not read on, as `head` does, has seen enough.
        let _ = writeln!(anstream::stdout(), "{line}");
    }

    fn at_ms(&self) -> u128 {
        self.began.elapsed().as_millis()
    }
}
