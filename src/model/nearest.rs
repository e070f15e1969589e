//! The known word nearest to one that is not known, so that a message can ask "did you mean?".

/// The longest word that is compared: cost grows with the square, and nobody mistypes longer ones by a letter.
const WORD_BYTES_MAX: usize = 64;

/// The candidate nearest to `word`, if it is near enough to be what was meant: a third of its letters may differ.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let folded = fold(word);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_BYTES_MAX)
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| {
            // A word of which no letter is left is another word.
            let letters = candidate.len().max(word.len());
            *distance < letters && *distance <= (letters / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What a hint begins with.
pub const HINT: &str = "; did you mean ";

/// `; did you mean "x"?` or nothing, to put behind a message.
pub fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |found| format!("{HINT}\"{found}\"?"))
}

/// Case and the choice of hyphen are not what tells words apart.
fn fold(word: &str) -> Vec<u8> {
    word.bytes().map(|byte| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() }).collect()
}

/// Letters to insert, drop, change or swap with their neighbour to get from one word to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut rows = vec![vec![0_usize; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let changed = usize::from(from[i - 1] != to[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["host", "hosts", "uri", "upstream_id", "service_id", "plugins"];
        let check = |word, expected| assert_eq!(nearest(word, known), expected, "{word}");
        check("hots", Some("host"));
        check("Hosts", Some("hosts"));
        check("upstream-id", Some("upstream_id"));
        check("plugin", Some("plugins"));
        check("url", Some("uri"));
        check("colour", None);
        check("", None);
    }
}
