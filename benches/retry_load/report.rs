//! What was measured, as one table and as JSON.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

/// A figure, and what it is to be compared with.
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// The bound, and whether the value is to stay below it.
    bound: Option<(f64, bool)>,
}

/// All figures so far.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// A figure without a bound.
    pub fn say(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name.into(), value, unit, None);
    }

    /// A figure that is to be at most `bound`.
    pub fn at_most(&mut self, bound: f64, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name.into(), value, unit, Some((bound, true)));
    }

    /// A figure that is to be at least `bound`.
    pub fn at_least(&mut self, bound: f64, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name.into(), value, unit, Some((bound, false)));
    }

    fn push(&mut self, name: String, value: f64, unit: &'static str, bound: Option<(f64, bool)>) {
        let row = Row { name, value, unit, bound };
        eprintln!("{:<58} {:>12} {}", row.name, round(value), unit);
        self.rows.push(row);
    }

    /// Prints the table, and writes the same into a file.
    pub fn finish(&self, file: &Path) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(["what", "figure", "unit", "to reach", ""]);
        let mut figures = Map::new();
        for Row { name, value, unit, bound } in &self.rows {
            let (goal, verdict) = match bound {
                Some((bound, true)) => (format!("≤ {}", round(*bound)), if value <= bound { "yes" } else { "no" }),
                Some((bound, false)) => (format!("≥ {}", round(*bound)), if value >= bound { "yes" } else { "no" }),
                None => (String::new(), ""),
            };
            table.add_row([name, &round(*value), *unit, &goal, verdict]);
            let bound =
                bound.map(|(bound, is_most)| json!({ "at": if is_most { "most" } else { "least" }, "is": bound }));
            figures.insert(name.clone(), json!({ "value": value, "unit": unit, "bound": bound }));
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
        std::fs::write(file, serde_json::to_string_pretty(&Value::Object(figures))?)?;
        Ok(())
    }
}

/// Three digits.
fn round(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
