//! The name somebody probably meant.
//!
//! Not for: values; only names of keys are guessed.
//! Called by: `file`, `environment`.

use super::keys::{KEYS, SHORTHANDS};

/// The known key nearest to `name`, a dotted path that is not one.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let shorthands = SHORTHANDS.iter().map(|(name, _)| *name);
    best(name, KEYS.iter().map(|key| key.name).chain(shorthands))
}

/// The known section nearest to `name`.
pub(super) fn nearest_section(name: &str) -> Option<&'static str> {
    best(
        name,
        KEYS.iter()
            .filter_map(|key| Some(key.name.rsplit_once('.')?.0)),
    )
}

/// `; did you mean ...?` or nothing.
pub(super) fn hint(known: Option<&'static str>) -> String {
    known
        .map(|known| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

fn best(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let last = name.rsplit('.').next();
    known
        .map(|known| {
            let whole = distance(name, known);
            // The right key in the wrong section is a likely mistake too.
            let same_leaf = known.rsplit('.').next() == last;
            (if same_leaf { whole.min(2) } else { whole }, whole, known)
        })
        .min()
        .filter(|(score, ..)| *score <= (name.len() / 3).max(2))
        .map(|(.., known)| known)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (diagonal + usize::from(x != *y))
                .min(above + 1)
                .min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_mistakes_wrong_sections_and_nothing_in_noise() {
        assert_eq!(nearest("listen.adress"), Some("listen.address"));
        assert_eq!(nearest("upstreams.url"), Some("upstream.url"));
        assert_eq!(nearest("subset_max"), Some("references.subset_max"));
        assert_eq!(nearest("tls.client_ca"), Some("listen.tls.client_ca"));
        // Keys without a section, written below one.
        assert_eq!(nearest("fetch.errors"), Some("errors"));
        assert_eq!(nearest("log.threads"), Some("threads"));
        assert_eq!(nearest("entirely.something_else"), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
