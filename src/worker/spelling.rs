//! The simulated spellcheck: puts right the misspellings it knows and leaves everything else as it is.

use std::collections::HashMap;
use std::sync::LazyLock;

static CORRECTIONS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let lines = include_str!("../../data/misspellings.txt").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect()
});

/// `text` with its known misspellings put right, and how many there were. Capitals at the beginning of a word stay.
pub(super) fn correct(text: &str) -> (String, u32) {
    let mut corrected = String::with_capacity(text.len());
    let mut corrections = 0;
    for piece in text.split_inclusive(|character: char| !character.is_alphabetic()) {
        let word = piece.trim_end_matches(|character: char| !character.is_alphabetic());
        match CORRECTIONS.get(word.to_lowercase().as_str()) {
            Some(right) => {
                corrections += 1;
                corrected.push_str(&with_case_of(word, right));
                corrected.push_str(&piece[word.len()..]);
            }
            None => corrected.push_str(piece),
        }
    }
    (corrected, corrections)
}

fn with_case_of(word: &str, right: &str) -> String {
    let mut characters = right.chars();
    match characters.next() {
        Some(first) if word.starts_with(char::is_uppercase) => first.to_uppercase().chain(characters).collect(),
        Some(_) | None => right.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::correct;

    #[test]
    fn known_misspellings_are_put_right_and_the_rest_stays() {
        let (text, corrections) = correct("Recieve it, and\ndefinately recieve-d å \"xyzzy\"!  ");
        assert_eq!(text, "Receive it, and\ndefinitely receive-d å \"xyzzy\"!  ");
        assert_eq!(corrections, 3);
        assert_eq!(correct(""), (String::new(), 0));
    }
}
