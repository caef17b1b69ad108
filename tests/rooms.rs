//! The design's rooms: which of them may use which. Reads the `use crate::` lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may use besides itself. `domain` is the vocabulary of all but `contract`; `store` is used by `engine`
/// and by composition alone.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("contract", &[]),
    ("domain", &["contract"]),
    ("clock", &["domain"]),
    ("crash", &[]),
    ("tally", &[]),
    ("store", &["contract", "crash", "domain", "tally"]),
    ("bus", &["contract", "domain", "clock"]),
    ("engine", &["contract", "crash", "domain", "store", "bus", "clock", "tally"]),
    ("worker", &["contract", "crash", "domain", "bus", "clock", "engine"]),
    ("http", &["contract", "domain", "engine", "likeness", "tally"]),
    ("app", &["clock", "domain", "store", "engine", "http", "worker"]),
    ("cli", &["app", "clock", "config", "contract", "domain", "likeness", "worker"]),
    ("config", &["likeness"]),
    ("likeness", &[]),
    ("fixture", &["app", "clock", "contract", "domain", "engine", "http"]),
];

/// Libraries that only one room may name.
const PRIVATE: [(&str, &str); 5] =
    [("sled", "store"), ("bincode", "store"), ("axum", "http"), ("hyper", "http"), ("prometheus_client", "http")];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

/// Each room with the lines of its files.
fn rooms() -> BTreeMap<String, Vec<String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let mut rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let inside = file.strip_prefix(&source).expect("below src");
        let room = inside.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).expect("text");
        rooms.entry(room).or_default().extend(text.lines().map(str::to_owned));
    }
    rooms.remove("main");
    rooms.remove("lib");
    rooms
}

#[test]
fn no_room_uses_one_it_must_not() {
    let rooms = rooms();
    let named: BTreeSet<_> = rooms.keys().map(String::as_str).collect();
    assert_eq!(named, ALLOWED.iter().map(|(room, _)| *room).collect(), "a room has come or gone");
    for (room, allowed) in ALLOWED {
        for line in &rooms[room] {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let is_allowed = used == room || allowed.contains(&used.as_str());
                assert!(is_allowed || used.is_empty(), "{room} uses {used}: {line}");
            }
            assert!(!line.contains("use crate::{"), "name the rooms one by one, so that they can be told: {line}");
        }
    }
}

#[test]
fn the_database_and_the_framework_stay_in_their_rooms() {
    for (room, lines) in rooms() {
        for (library, home) in PRIVATE {
            let names = |line: &&String| line.contains(&format!("{library}::"));
            let found = lines.iter().find(names).filter(|_| room != home);
            assert_eq!(found, None, "{room} names {library}");
        }
        for library in ["tokio", "sled", "axum"] {
            let is_pure = room == "domain" || room == "contract";
            let found = lines.iter().find(|line| is_pure && line.contains(&format!("{library}::")));
            assert_eq!(found, None, "{room} names {library}");
        }
    }
}
