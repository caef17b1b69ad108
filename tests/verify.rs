//! The checker: a store in the middle of everything is sound, and each kind of damage is found and named.

mod harness;

use std::path::Path;
use std::process::Command;

use harness::{database, fill, run, verify, violations};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The first key with this prefix that fits, and its value.
fn first(tree: &sled::Tree, prefix: &[u8], fits: impl Fn(&[u8]) -> bool) -> (sled::IVec, sled::IVec) {
    let mut entries = tree.scan_prefix(prefix).map(|entry| entry.expect("readable"));
    entries.find(|(key, _)| fits(key)).unwrap_or_else(|| panic!("there is no {prefix:?}"))
}

type Damage = fn(&sled::Tree);

/// What lies under a batch is told apart by the byte behind its id.
const DETAILS: u8 = 0;
const ESSAYS: u8 = 1;
const ATTEMPT: u8 = 3;

/// The first key of a batch's part of this kind, and its value.
fn first_part(tree: &sled::Tree, kind: u8) -> (sled::IVec, sled::IVec) {
    first(tree, b"b", |key| key.get(17) == Some(&kind))
}

/// Moves what lies under `key` to another key.
fn move_key(tree: &sled::Tree, (key, value): (sled::IVec, sled::IVec), change: fn(&mut Vec<u8>)) {
    let mut other = key.to_vec();
    change(&mut other);
    tree.remove(key).expect("removed");
    tree.insert(other, value).expect("inserted");
}

/// Removes the first key with this prefix.
fn remove(tree: &sled::Tree, prefix: &[u8]) {
    let (key, _) = first(tree, prefix, |_| true);
    tree.remove(key).expect("removed");
}

/// Moves what lies under the first key with this prefix to another key.
fn rename(tree: &sled::Tree, prefix: &[u8], change: fn(&mut Vec<u8>)) {
    move_key(tree, first(tree, prefix, |_| true), change);
}

const DAMAGES: [(&str, &str, Damage); 32] = [
    ("a record that does not decode", "a stored value cannot be read", |tree| {
        tree.insert(first(tree, b"b", |_| true).0, b"\x01damaged").expect("inserted");
    }),
    ("a record of an unknown version", "unknown version 9", |tree| {
        let (key, mut value) = first_part(tree, DETAILS);
        value[0] = 9;
        tree.insert(key, value).expect("inserted");
    }),
    ("essays that are gone", "a part of a batch's record is missing", |tree| {
        tree.remove(first_part(tree, ESSAYS).0).expect("removed");
    }),
    ("a record that is gone", "belongs to a batch that is not there", |tree| remove(tree, b"b")),
    ("a part of nobody's", "belongs to a batch that is not there", |tree| {
        let (mut key, value) = first_part(tree, ESSAYS);
        key[16] ^= 1;
        tree.insert(key, value).expect("inserted");
    }),
    ("a part that no batch has", "nothing under a batch has such a key", |tree| {
        let (mut key, value) = first_part(tree, ESSAYS);
        key[17] = 9;
        tree.insert(key, value).expect("inserted");
    }),
    ("an attempt that is gone", "attempts, and there are", |tree| {
        tree.remove(first_part(tree, ATTEMPT).0).expect("removed");
    }),
    ("an attempt under another number", "lies under another number", |tree| {
        move_key(tree, first_part(tree, ATTEMPT), |key| key[22] ^= 8);
    }),
    ("a timer that is gone", "is in flight and has no timer", |tree| remove(tree, b"t")),
    ("a timer at another time", "points nowhere", |tree| rename(tree, b"t", |key| key[8] ^= 1)),
    ("a listing that is gone", "is not listed under", |tree| remove(tree, b"i")),
    ("a listing too many", "listed under what is not true of it", |tree| {
        let (mut key, value) = first(tree, b"i", |_| true);
        key[30] ^= 1;
        tree.insert(key, value).expect("inserted");
    }),
    ("counts that are gone", "are said to stand where", |tree| remove(tree, b"C")),
    ("an expiry that is gone", "it would never expire", |tree| remove(tree, b"x")),
    ("a key that is gone", "it says when something expires that is not there", |tree| remove(tree, b"k")),
    ("a kept answer that is gone", "it says when something expires that is not there", |tree| remove(tree, b"h")),
    ("a message for somebody else", "is not for", |tree| rename(tree, b"o", |key| key[1] = (key[1] + 1) % 5)),
    ("a message that does not decode", "key o:", |tree| {
        tree.insert(first(tree, b"o", |_| true).0, b"\x01damaged").expect("inserted");
    }),
    ("a command that is sent twice", "is sent twice", |tree| {
        let (mut key, value) = first(tree, b"o", |_| true);
        key[9] ^= 1;
        tree.insert(key, value).expect("inserted");
    }),
    ("a job's batch that is gone", "has no batch in place", |tree| remove(tree, b"m")),
    ("a running job that no start finds", "no start would go on with it", |tree| remove(tree, b"q")),
    ("a job that is gone", "it says that a retry job runs, and it does not", |tree| remove(tree, b"j")),
    ("a dead letter that is gone", "messages are named as dead letters", |tree| remove(tree, b"z")),
    ("a dead letter without its message's name", "is not found by its message", |tree| remove(tree, b"w")),
    ("a text that nobody is named for", "is not named as one that refers to text", |tree| remove(tree, b"c")),
    ("something that is over and not marked", "is over and would never be removed", |tree| remove(tree, b"g")),
    ("something that is marked and not over", "things are marked as over", |tree| {
        let (mut key, value) = first(tree, b"g", |_| true);
        key[3] ^= 1;
        tree.insert(key, value).expect("inserted");
    }),
    ("a balance that is gone", "was charged and has no balance", |tree| remove(tree, b"s")),
    ("a balance that does not decode", "key s:", |tree| {
        tree.insert(first(tree, b"s", |_| true).0, b"\x01").expect("inserted");
    }),
    ("a charge for what was not yet", "was to be paid for then", |tree| rename(tree, b"p", |key| key[17] ^= 1)),
    ("a charge too many", "was charged less than its pipelines cost", |tree| {
        let (mut key, value) = first(tree, b"p", |_| true);
        key[24] ^= 1;
        tree.insert(key, value).expect("inserted");
    }),
    ("something else", "nothing is stored under such keys", |tree| {
        tree.insert(b"?", b"").expect("inserted");
    }),
];

#[tokio::test]
async fn a_store_in_the_middle_of_everything_is_sound_and_every_damage_is_named() {
    let whole = tempfile::tempdir().expect("a directory");
    fill(whole.path()).await;
    verify(whole.path());
    for (what, expected, damage) in DAMAGES {
        let damaged = tempfile::tempdir().expect("a directory");
        copy(whole.path(), damaged.path());
        {
            let tree = database(damaged.path()).open_tree("rephase").expect("a tree");
            damage(&tree);
            tree.flush().expect("flushed");
        }
        let found = violations(damaged.path());
        assert!(found.iter().any(|said| said.contains(expected)), "{what}: {found:#?}");
    }
    let damaged = tempfile::tempdir().expect("a directory");
    copy(whole.path(), damaged.path());
    {
        let tree = database(damaged.path()).open_tree("contents").expect("a tree");
        let (key, _) = first(&tree, b"", |_| true);
        tree.insert(key, b"something else").expect("inserted");
        tree.flush().expect("flushed");
    }
    let found = violations(damaged.path());
    assert!(found.len() == 1 && found[0].contains("is not what its name says"), "{found:#?}");

    let check = |directory: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
        command.arg("verify").arg("--data-dir").arg(directory);
        run(command)
    };
    let (code, output, _) = check(whole.path());
    assert_eq!((code, output.lines().count()), (0, 1), "{output}");
    assert!(output.starts_with("sound: 7 batches, "), "{output}");
    let (code, output, _) = check(damaged.path());
    assert_eq!((code, output.lines().count()), (1, 2), "{output}");
}

#[test]
fn what_is_no_store_is_not_made_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("nothing");
    for path in [directory.path(), &missing] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
        command.arg("verify").arg("--data-dir").arg(path);
        let (code, _, errors) = run(command);
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains("there is no store in it"), "{errors}");
    }
    assert!(!missing.exists());
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
}
