//! When a certificate is asked for: arithmetic on given times, in milliseconds since 1970.

use std::time::Duration;

use crate::base::clock::UnixMs;

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Chance is given in so many parts.
pub(super) const PARTS: u64 = 1000;

/// When a certificate is to be renewed that holds between two moments, in seconds since 1970: when it has `share` percent of its
/// life left, or up to a tenth of that sooner.
pub(super) fn renew_at(not_before: i64, not_after: i64, share: u64, chance: u64) -> UnixMs {
    let (from, to) = (u64::try_from(not_before).unwrap_or(0), u64::try_from(not_after).unwrap_or(0));
    let left = to.saturating_sub(from) * 1000 * share.min(100) / 100;
    let sooner = left / 10 * chance.min(PARTS) / PARTS;
    (to * 1000).saturating_sub(left + sooner)
}

/// The pause after so many failures in a row: doubled with each, and up to a quarter longer, so that many that failed at once
/// do not come again at once.
pub(super) fn pause(first: Duration, failures: u32, chance: u64) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let pause = first.saturating_mul(doubled).min(PAUSE_MAX.max(first));
    pause + pause / 4 * u32::try_from(chance.min(PARTS)).unwrap_or(0) / PARTS as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_share_of_its_life_is_left() {
        let day = 86_400;
        assert_eq!(renew_at(0, 90 * day, 33, 0), (90 * day as u64 * 1000) * 67 / 100);
        let sooner = renew_at(0, 90 * day, 33, PARTS);
        let share = (90 * day as u64 * 1000) * 33 / 100;
        assert_eq!(sooner, 90 * day as u64 * 1000 - share - share / 10);
        assert_eq!(
            renew_at(100, 200, 90, PARTS),
            200_000 - 90_000 - 9_000,
            "after it was issued all the same"
        );
        assert_eq!((renew_at(-5, -1, 33, 0), renew_at(10, 5, 33, 0)), (0, 5000));
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let first = Duration::from_secs(60);
        let minutes = |failures, chance| pause(first, failures, chance).as_secs() / 60;
        assert_eq!([1, 2, 3, 4].map(|failures| minutes(failures, 0)), [1, 2, 4, 8]);
        assert_eq!((minutes(40, 0), minutes(u32::MAX, 0)), (360, 360));
        assert_eq!(minutes(40, PARTS), 450);
    }
}
