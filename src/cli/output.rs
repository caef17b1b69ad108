//! What commands print. Whatever came from a server or a file is hostile to a terminal: every character that could steer
//! one is shown as its number, here, where everything passes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use comfy_table::{Attribute, Color, ColumnConstraint, ContentArrangement, Width, presets};
use serde_json::Value;

use super::failure::Failure;

/// How something is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Moving,
    Dim,
    Bold,
}

impl Tone {
    pub(super) const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Moving => AnsiColor::Cyan.on_default(),
            Self::Dim => Style::new().dimmed(),
            Self::Bold => Style::new().bold(),
        }
    }

    /// How the status of a phase or a batch is meant.
    pub(super) fn of_status(status: &str) -> Self {
        match status {
            "completed_successfully" | "ready" | "retried" | "redriven" | "succeeded" => Self::Good,
            "failed"
            | "completed_with_failures"
            | "completed_with_partial_success"
            | "skipped_due_to_dependency_failure"
            | "timed_out"
            | "refused"
            | "open" => Self::Bad,
            "processing" | "in_progress" | "dispatch_initiated" | "running" => Self::Moving,
            "cancelled" | "discarded" | "stopped" | "moved" => Self::Dim,
            _ => Self::Plain,
        }
    }
}

/// Whether a terminal would do something else than to show `character`, or show what follows it in another order.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` with everything hostile shown as its number, on one line.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let shown = |character: char| {
        let is_hostile = is_hostile(character);
        let escaped = is_hostile.then(|| character.escape_default()).into_iter().flatten();
        escaped.chain((!is_hostile).then_some(character))
    };
    Cow::Owned(text.chars().flat_map(shown).collect())
}

/// `value` on one line. Its strings alone can have anything hostile, and may have it escaped.
pub(super) fn json_line(value: &Value) -> String {
    let json = value.to_string();
    if !json.contains(is_hostile) {
        return json;
    }
    let mut line = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        if is_hostile(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(line, "\\u{unit:04x}");
            }
        } else {
            line.push(character);
        }
    }
    line
}

/// Standard output, for people or for machines.
pub(super) struct Output {
    pub(super) is_json: bool,
    /// The first write that failed.
    failed: Cell<Option<io::ErrorKind>>,
}

impl Output {
    pub(super) const fn new(is_json: bool) -> Self {
        Self { is_json, failed: Cell::new(None) }
    }

    /// Whether nobody reads on.
    pub(super) fn is_closed(&self) -> bool {
        self.failed.get().is_some()
    }

    pub(super) fn json(&self, value: &Value) {
        self.note(writeln!(io::stdout(), "{}", json_line(value)));
    }

    pub(super) fn line(&self, text: &str) {
        self.toned(Tone::Plain, text);
    }

    pub(super) fn toned(&self, tone: Tone, text: &str) {
        let style = tone.style();
        self.note(writeln!(anstream::stdout(), "{style}{}{style:#}", plain(text)));
    }

    /// A word with its meaning, and what there is to say to it.
    pub(super) fn marked(&self, tone: Tone, mark: &str, text: &str) {
        let style = tone.style();
        self.note(writeln!(anstream::stdout(), "{style}{}{style:#} {}", plain(mark), plain(text)));
    }

    pub(super) fn gap(&self) {
        self.note(writeln!(io::stdout()));
    }

    pub(super) fn table(&self, table: Table) {
        // Whether anybody sees colours is decided by the stream, which knows of terminals and of NO_COLOR.
        for line in table.fitted().lines() {
            self.note(writeln!(anstream::stdout(), "{}", line.trim_end()));
        }
    }

    /// Text that this program made itself, and that is whole as it is.
    pub(super) fn bytes(&self, bytes: &[u8]) {
        self.note(io::stdout().write_all(bytes));
    }

    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.set(self.failed.get().or(Some(error.kind())));
        }
    }

    /// Whoever stopped reading, as `head` does, has seen enough. A full disk is something else.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        self.note(io::stdout().flush());
        match self.failed.get() {
            None | Some(io::ErrorKind::BrokenPipe) => Ok(()),
            Some(kind) => Err(Failure::failed(format!("standard output cannot be written: {kind}"))),
        }
    }
}

/// A table for people.
pub(super) struct Table {
    table: comfy_table::Table,
    /// The longest word of each column, in characters.
    words: Vec<usize>,
}

/// Up to how many characters a word is not broken, where a table is too wide.
const WHOLE_WORD: usize = 13;

/// Below which width columns stand closer.
const NARROW: u16 = 110;

/// A cell of a table.
pub(super) struct Entry {
    tone: Tone,
    text: String,
    /// Where a line may be broken that is too long.
    breaks_at: char,
}

/// A cell that says nothing but its text.
pub(super) fn cell(text: impl Into<String>) -> Entry {
    toned(Tone::Plain, text)
}

/// A cell that means something.
pub(super) fn toned(tone: Tone, text: impl Into<String>) -> Entry {
    Entry { tone, text: text.into(), breaks_at: ' ' }
}

/// A cell with a status.
pub(super) fn status(status: &str) -> Entry {
    Entry { tone: Tone::of_status(status), text: status.to_owned(), breaks_at: '_' }
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).enforce_styling();
        table.set_header(header.iter().map(|name| comfy_table::Cell::new(name).add_attribute(Attribute::Bold)));
        table.style_text_only();
        Self { table, words: header.iter().map(|name| name.len()).collect() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Entry>) {
        let mut row = comfy_table::Row::new();
        for (Entry { tone, text, breaks_at }, longest) in cells.into_iter().zip(&mut self.words) {
            let text = plain(&text);
            let words = text.split(breaks_at).map(|word| word.chars().count());
            *longest = words.fold(*longest, usize::max);
            let cell = comfy_table::Cell::new(text).set_delimiter(breaks_at);
            row.add_cell(match tone {
                Tone::Plain => cell,
                Tone::Good => cell.fg(Color::DarkGreen),
                Tone::Bad => cell.fg(Color::DarkRed),
                Tone::Moving => cell.fg(Color::DarkCyan),
                Tone::Dim => cell.add_attribute(Attribute::Dim),
                Tone::Bold => cell.add_attribute(Attribute::Bold),
            });
        }
        self.table.add_row(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The table for the terminal as it is. What a row is about is copied from there, and is not broken over lines.
    fn fitted(mut self) -> comfy_table::Table {
        let gap = if self.table.width().is_some_and(|width| width < NARROW) { 1 } else { 2 };
        for (index, column) in self.table.column_iter_mut().enumerate() {
            column.set_padding((0, gap));
            let word = self.words[index].min(WHOLE_WORD);
            let least = Width::Fixed(u16::try_from(word).unwrap_or(u16::MAX).saturating_add(gap));
            column.set_constraint(match index {
                0 => ColumnConstraint::ContentWidth,
                _ => ColumnConstraint::LowerBoundary(least),
            });
        }
        self.table
    }
}

/// Says on standard error how a command ended, where it did not end well.
pub(super) fn conclude(is_json: bool, ended: Result<(), Failure>) -> ExitCode {
    let Err(failure) = ended else { return ExitCode::SUCCESS };
    // Where nobody can be told, the exit code says it.
    if is_json {
        let _ = writeln!(io::stderr(), "{}", json_line(&failure.to_json()));
    } else {
        let style = Tone::Bad.style();
        let _ = writeln!(anstream::stderr(), "{style}rephase:{style:#} {}", plain(&failure.to_string()));
        if let Some(hint) = failure.next() {
            let _ = writeln!(anstream::stderr(), "  {}", plain(hint));
        }
    }
    failure.exit_code()
}

/// Says something on standard error that is no failure.
pub(super) fn remark(is_json: bool, text: &str) {
    if !is_json {
        let style = Tone::Dim.style();
        let _ = writeln!(anstream::stderr(), "{style}{}{style:#}", plain(text));
    }
}
