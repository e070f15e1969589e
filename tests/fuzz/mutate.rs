//! Real messages, damaged: bits flipped, pieces cut out, doubled and moved, words of the trade put in, long runs.

use ringway::base::rng::Rng;

/// Longest run of one byte or word: beyond every limit of a head.
const RUN_MAX: u64 = 40_000;
/// Most damages of one mutant.
const DAMAGES_MAX: u64 = 6;
/// A mutant does not grow beyond this.
const BYTES_MAX: usize = 256 * 1024;

/// Makes mutants.
pub(crate) struct Mutator<'a> {
    pub(crate) samples: &'a [&'a [u8]],
    /// What is put in whole, because no flip of bits makes it.
    pub(crate) words: &'a [&'a [u8]],
}

impl Mutator<'_> {
    /// Fills `out` with a mutant; one in sixteen is a sample as it is.
    pub(crate) fn mutate(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(pick(rng, self.samples));
        if rng.below(16) == 0 {
            return;
        }
        for _ in 0..=rng.below(DAMAGES_MAX) {
            self.damage(rng, out);
            out.truncate(BYTES_MAX);
        }
    }

    fn damage(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        let at = place(rng, out.len());
        match rng.below(10) {
            0 if !out.is_empty() => {
                let at = at.min(out.len() - 1);
                out[at] ^= 1 << rng.below(8);
            }
            1 if !out.is_empty() => {
                let at = at.min(out.len() - 1);
                out[at] = rng.below(256) as u8;
            }
            2 => out.truncate(at),
            3 => {
                let end = end(rng, at, out.len());
                out.drain(at..end);
            }
            4 => {
                let piece = out[at..end(rng, at, out.len())].to_vec();
                insert(out, place(rng, out.len()), &piece);
            }
            5 => {
                let other = pick(rng, self.samples);
                let from = place(rng, other.len());
                insert(out, at, &other[from..end(rng, from, other.len())]);
            }
            6 if rng.below(8) == 0 => {
                let word = if rng.below(2) == 0 { pick(rng, self.words) } else { b"a" };
                let times = rng.below(RUN_MAX / word.len().max(1) as u64) as usize;
                insert(out, at, &word.repeat(times));
            }
            7 => out.insert(at, rng.below(256) as u8),
            _ => insert(out, at, pick(rng, self.words)),
        }
    }
}

fn pick<'a>(rng: &mut Rng, from: &[&'a [u8]]) -> &'a [u8] {
    from[rng.below(from.len() as u64) as usize]
}

fn place(rng: &mut Rng, len: usize) -> usize {
    rng.below(len as u64 + 1) as usize
}

/// The end of a piece that begins at `at`: mostly a short one.
fn end(rng: &mut Rng, at: usize, len: usize) -> usize {
    let most = if rng.below(4) == 0 { len } else { 24 };
    (at + rng.below(most as u64 + 1) as usize).min(len)
}

fn insert(out: &mut Vec<u8>, at: usize, piece: &[u8]) {
    out.splice(at..at, piece.iter().copied());
}
