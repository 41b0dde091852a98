//! Which name was meant by one that nobody has. Start at [`nearest`].

/// Mistakes in typing that are still taken for a name, one for every so many letters of it: `q4_m` for `q4_k_m`, `ggfu` for `gguf`.
const LETTERS_A_MISTAKE: usize = 3;
/// Letters of the longest name that is looked at: no real one is nearly as long, and the time grows with the square.
const LONGEST: usize = 40;

/// The known name that is most like `name`, letters of either case being the same: with the fewest letters added, left out, exchanged or
/// swapped with their neighbours, if those are few for its length. Of several the first.
///
/// ```
/// use rwkv_forge_tensor::nearest;
/// assert_eq!(nearest("ggfu", ["pth", "gguf"]), Some("gguf"));
/// assert_eq!(nearest("Q4-K-M", ["q4_k", "q4_k_m"]), Some("q4_k_m"));
/// assert_eq!(nearest("word", ["pth", "gguf"]), None);
/// ```
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = name.to_lowercase().chars().take(LONGEST).collect();
    let allowed = |known: &str| known.chars().count().max(typed.len()).div_euclid(LETTERS_A_MISTAKE).max(1);
    let found = known.into_iter().map(|known| (mistakes(&typed, &known.chars().collect::<Vec<_>>()), known));
    found.filter(|(count, known)| *count <= allowed(known)).min_by_key(|(count, _)| *count).map(|(_, known)| known)
}

/// Letters to add, leave out, exchange or swap with their neighbours, to make one of the other.
fn mistakes(typed: &[char], known: &[char]) -> usize {
    // Rows of the usual table: what the beginnings of `typed` cost against all beginnings of `known`.
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=known.len()).collect());
    for (row, letter) in typed.iter().enumerate() {
        let mut now = vec![row.saturating_add(1)];
        for (column, wanted) in known.iter().enumerate() {
            let at = |row: &[usize], column: Option<usize>| column.and_then(|column| row.get(column)).copied().unwrap_or(usize::MAX);
            let exchanged = at(&last, Some(column)).saturating_add(usize::from(letter != wanted));
            let one_more = at(&last, column.checked_add(1)).min(at(&now, Some(column))).saturating_add(1);
            let is_swap = row > 0
                && column > 0
                && typed.get(row.wrapping_sub(1)) == Some(wanted)
                && known.get(column.wrapping_sub(1)) == Some(letter);
            let swapped = if is_swap { at(&before, column.checked_sub(1)).saturating_add(1) } else { usize::MAX };
            now.push(exchanged.min(one_more).min(swapped));
        }
        before = std::mem::replace(&mut last, now);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{mistakes, nearest};

    fn count(a: &str, b: &str) -> usize {
        mistakes(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
    }

    #[test]
    fn mistakes_are_counted() {
        for (a, b, want) in [
            ("", "", 0),
            ("", "gguf", 4),
            ("gguf", "", 4),
            ("ggfu", "gguf", 1),
            ("gguff", "gguf", 1),
            ("guf", "gguf", 1),
            ("q4km", "q4_k_m", 2),
            ("abc", "xyz", 3),
        ] {
            assert_eq!((count(a, b), count(b, a)), (want, want), "{a} {b}");
        }
    }

    #[test]
    fn what_is_like_nothing_is_nobody() {
        assert_eq!(nearest("", ["f16"]), None);
        assert_eq!(nearest(&"q".repeat(100_000), ["q4_k"]), None);
        assert_eq!(nearest("q4_k_x", ["q4_k", "q4_k_s", "q4_k_m"]), Some("q4_k_s"), "the first of the nearest");
    }
}
