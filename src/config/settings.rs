//! What is in force, and since when: shown to people as a file that would do the same, and to machines as JSON.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use serde_json::{Map, Value, json};

use super::FILE;
use super::file::{Entry, Wanted, wanted};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The file, in this line.
    File(PathBuf, usize),
    /// This variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl Source {
    /// How strong it is.
    const fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) => 1,
            Self::Environment(_) => 2,
            Self::Flag => 3,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// One option.
#[derive(Debug, Clone)]
pub struct Setting {
    name: String,
    wanted: Wanted,
    /// Whether there may be several.
    is_list: bool,
    /// None where it is not set.
    values: Vec<String>,
    source: Source,
}

/// All options. There are none where the command has none that can be configured.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    all: Vec<Setting>,
    /// Secrets that come from variables.
    secrets: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn of<'a>(
        options: impl Iterator<Item = &'a Arg>,
        matches: &ArgMatches,
        file: Option<(&PathBuf, &[Entry])>,
    ) -> Self {
        let setting = |arg: &Arg| {
            let (id, name) = (arg.get_id().as_str(), arg.get_long()?.to_owned());
            let entry = file.and_then(|(path, entries)| Some((path, entries.iter().find(|entry| entry.id == id)?)));
            let variable = || arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let source = match (matches.value_source(id), entry) {
                (Some(ValueSource::CommandLine), _) => Source::Flag,
                (Some(ValueSource::EnvVariable), _) => Source::Environment(variable()),
                (Some(_), Some((path, entry))) => Source::File(path.clone(), entry.line),
                _ => Source::Default,
            };
            let wanted = wanted(arg);
            let values = match wanted {
                // A variable has more words for it.
                Wanted::Boolean => vec![matches.get_flag(id).to_string()],
                Wanted::Number | Wanted::Text => {
                    let values = matches.get_raw(id).into_iter().flatten();
                    values.map(|value| value.to_string_lossy().into_owned()).collect()
                }
            };
            let is_list = matches!(arg.get_action(), clap::ArgAction::Append);
            Some(Setting { name, wanted, is_list, values, source })
        };
        Self { all: options.filter_map(setting).collect(), secrets: Vec::new() }
    }

    /// What is in force of an option that nobody said anything of, where it does not say so itself.
    pub fn note(&mut self, name: &str, value: &str, source: Source) {
        if let Some(setting) = self.all.iter_mut().find(|setting| setting.name == name && setting.values.is_empty()) {
            (setting.values, setting.source) = (vec![value.to_owned()], source);
        }
    }

    /// A secret that comes from a variable. It is not shown.
    pub fn note_secret(&mut self, name: &str, variable: &str) {
        self.secrets.push((name.to_owned(), variable.to_owned()));
    }

    /// Where the value of an option comes from.
    #[must_use]
    pub fn source(&self, name: &str) -> Source {
        let found = self.all.iter().find(|setting| setting.name == name);
        found.map_or(Source::Default, |setting| setting.source.clone())
    }

    /// Whether what is said of one option is said in a stronger place than what is said of another.
    #[must_use]
    pub fn outranks(&self, one: &str, other: &str) -> bool {
        self.source(one).rank() > self.source(other).rank()
    }

    /// As a file that says the same, with where each comes from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let (mut lines, mut notes) = (Vec::new(), Vec::new());
        for setting in &self.all {
            let (name, source) = (&setting.name, &setting.source);
            if setting.values.is_empty() {
                notes.push(format!("# {name} is not set"));
            } else if name == FILE {
                lines.insert(0, (format!("# {name} = {}", setting.in_toml()), source));
            } else {
                lines.push((format!("{name} = {}", setting.in_toml()), source));
            }
        }
        notes
            .extend(self.secrets.iter().map(|(name, variable)| format!("# {name} is in {variable}, and is not shown")));
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (line, source) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line:width$}  # {source}");
        }
        for note in notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    /// The same for machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let setting = |setting: &Setting| (setting.name.clone(), setting.in_json());
        let secret = |(name, variable): &(String, String)| {
            let shown = json!({ "value": "not shown", "source": "environment", "variable": variable });
            (name.clone(), shown)
        };
        Value::Object(self.all.iter().map(setting).chain(self.secrets.iter().map(secret)).collect::<Map<_, _>>())
    }
}

impl Setting {
    /// Its value or values, each as TOML and JSON have it.
    fn typed(&self) -> Value {
        let typed = |text: &String| match self.wanted {
            Wanted::Boolean => json!(text == "true"),
            Wanted::Number => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
            Wanted::Text => json!(text),
        };
        if self.is_list {
            return self.values.iter().map(typed).collect();
        }
        self.values.last().map_or(Value::Null, typed)
    }

    fn in_toml(&self) -> String {
        // A string of JSON is one of TOML, but for a character that the one may leave as it is and the other may not.
        self.typed().to_string().replace('\u{7f}', "\\u007f")
    }

    fn in_json(&self) -> Value {
        let mut shown = json!({ "value": self.typed() });
        match &self.source {
            Source::Default => shown["source"] = "default".into(),
            Source::Flag => shown["source"] = "flag".into(),
            Source::Environment(variable) => {
                shown["source"] = "environment".into();
                shown["variable"] = variable.as_str().into();
            }
            Source::File(path, line) => {
                shown["source"] = "file".into();
                shown["file"] = path.to_string_lossy().into();
                shown["line"] = (*line).into();
            }
        }
        shown
    }
}
