//! What was meant by a word that nobody knows: the known one that is most like it.

/// From how alike on two words are near. With less, nearly every word of a few letters is near to some other.
const NEAR: f64 = 0.5;

/// From how many letters on a part that two names have in common says something.
const TELLING: usize = 4;

/// The word that is most like `word`, where one is near.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&word, &known.to_lowercase());
    let alike = known.map(|known| (likeness(known), known)).filter(|(likeness, _)| *likeness >= NEAR);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// The same for the names of a long list, whose parts say what they are about: where none is near, the first that has the
/// longest part in common.
#[must_use]
pub fn nearest_name<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let upper = name.to_uppercase();
    let parts = upper.split(['_', '-', ' ']).filter(|part| part.len() >= TELLING);
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    let has = |known: &str, part: &str| known.to_uppercase().split(['_', '-']).any(|its| its == part);
    let having = |part: &str| known.iter().copied().find(|known| has(known, part));
    nearest(name, known.iter().copied()).or_else(|| parts.into_iter().find_map(having))
}

/// The question that goes with it, or nothing.
#[must_use]
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_found_and_what_is_not_is_not() {
        let known = ["QUOTA_EXCEEDED", "TIMEOUT", "NLP_SERVICE_ERROR"];
        let near = |name: &str| nearest(name, known.into_iter());
        assert_eq!((near("TIMEOT"), near("timeout"), near("BOGUS")), (Some("TIMEOUT"), Some("TIMEOUT"), None));
        let named = |name: &str| nearest_name(name, &known);
        assert_eq!(
            (named("AI_QUOTA"), named("NLP_SERVCE_ERROR"), named("BOGUS")),
            (Some("QUOTA_EXCEEDED"), Some("NLP_SERVICE_ERROR"), None)
        );
        assert_eq!(did_you_mean(near("TIMEOT")), "; did you mean TIMEOUT?");
    }
}
