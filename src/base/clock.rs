//! Time as values: the only file that asks the operating system what time it is.
//!
//! A [`Moment`] is monotonic and only good for differences; wall time ([`UnixMs`]) is derived from it by an
//! anchor that is renewed about once a second, so a jump of the wall clock moves dates but never a timer.
//!
//! A process that tries configurations [`hold`]s the clock: then time passes when it is told to, and at no other time.

#![allow(clippy::disallowed_methods)] // This is the file that may ask.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::decimal::three_digits;

/// A point in monotonic time: nanoseconds since the process first asked. Copy, comparable, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The first moment of the process; also the value of "never measured".
    pub const ZERO: Self = Self(0);

    /// Nanoseconds since the process first asked.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the process first asked.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the process first asked.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero when it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment moved forward.
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_nanos() as u64))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMs = u64;

/// Nanoseconds of the system's monotonic clock, which counts from its start. Straight from the vDSO: `Instant`
/// knows the difference of two readings only, and computes it with checks that cost more than the reading.
fn monotonic_ns() -> u64 {
    let reading = clock_gettime(ClockId::Monotonic);
    (reading.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(reading.tv_nsec as u64)
}

/// The reading that moments are counted from, 0 until somebody asks; with [`HELD`] in it, the moment that it is until told
/// otherwise. One word, so that a clock that may be held costs a reading nothing.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// The clock is held.
const HELD: u64 = 1 << 63;
/// Of a held clock: wall time less the moment, in milliseconds.
static HELD_WALL: AtomicU64 = AtomicU64::new(0);

/// Reads the monotonic clock.
pub fn now() -> Moment {
    let first = FIRST.load(Ordering::Relaxed);
    // Neither 0 nor held, in one comparison.
    if first.wrapping_sub(1) >= HELD - 1 {
        return unusual(first);
    }
    // One is added so that a real reading is never `Moment::ZERO`.
    Moment(monotonic_ns().saturating_sub(first) + 1)
}

#[cold]
fn unusual(first: u64) -> Moment {
    if first >= HELD {
        return Moment(first & !HELD);
    }
    let reading = monotonic_ns().max(1);
    match FIRST.compare_exchange(0, reading, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Moment(1),
        // Somebody else was first; their reading may be the later one.
        Err(_) => now(),
    }
}

/// Reads the wall clock.
pub fn wall() -> UnixMs {
    if is_held() {
        return HELD_WALL.load(Ordering::Relaxed).wrapping_add(now().as_millis());
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Stops the clock of this process, at this wall time; moments go on from where they were. From here on time passes by
/// [`advance`] alone. For a process that tries configurations and serves nobody.
pub fn hold(wall: UnixMs) {
    let at = now();
    HELD_WALL.store(wall.wrapping_sub(at.as_millis()), Ordering::Relaxed);
    FIRST.store(at.0 | HELD, Ordering::Relaxed);
}

/// Lets time pass on a held clock.
pub fn advance(by: Duration) {
    if is_held() {
        FIRST.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX).min(HELD >> 8), Ordering::Relaxed);
    }
}

/// Whether the clock is held.
pub fn is_held() -> bool {
    FIRST.load(Ordering::Relaxed) >= HELD
}

/// Translates moments to wall time without asking the system each time.
#[derive(Debug)]
pub struct WallAnchor {
    moment: Cell<Moment>,
    wall: Cell<UnixMs>,
}

impl WallAnchor {
    /// Anchored at the present.
    pub fn new() -> Self {
        let anchor = Self { moment: Cell::new(Moment::ZERO), wall: Cell::new(0) };
        anchor.renew();
        anchor
    }

    /// Asks the system once more; call it about once a second.
    pub fn renew(&self) {
        self.wall.set(wall());
        self.moment.set(now());
    }

    /// The wall time at `moment`.
    pub fn at(&self, moment: Moment) -> UnixMs {
        let (anchor, wall) = (self.moment.get(), self.wall.get());
        if moment >= anchor {
            wall + moment.since(anchor).as_millis() as u64
        } else {
            wall.saturating_sub(anchor.since(moment).as_millis() as u64)
        }
    }
}

impl Default for WallAnchor {
    fn default() -> Self {
        Self::new()
    }
}

/// The civil date and time of a wall reading, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u32,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub millis: u16,
    /// 0 is Sunday.
    pub weekday: u8,
}

/// Splits a wall reading into the calendar of UTC (Howard Hinnant's `civil_from_days`).
pub fn civil(at: UnixMs) -> Civil {
    let (days, rest) = (at / 86_400_000, at % 86_400_000);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    Civil {
        year: (year_of_era + era * 400 + u64::from(month <= 2)) as u32,
        month: month as u8,
        day: (day_of_year - (153 * month_shifted + 2) / 5 + 1) as u8,
        hour: (rest / 3_600_000) as u8,
        minute: (rest / 60_000 % 60) as u8,
        second: (rest / 1000 % 60) as u8,
        millis: (rest % 1000) as u16,
        weekday: ((days + 4) % 7) as u8,
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// Writes two decimal digits.
fn two(out: &mut Vec<u8>, value: u8) {
    out.extend_from_slice(&[b'0' + value / 10 % 10, b'0' + value % 10]);
}

/// Appends the `Date` form of RFC 9110 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn write_http_date(out: &mut Vec<u8>, at: UnixMs) {
    let civil = civil(at);
    out.extend_from_slice(WEEKDAYS[usize::from(civil.weekday)].as_bytes());
    out.extend_from_slice(b", ");
    two(out, civil.day);
    out.push(b' ');
    out.extend_from_slice(MONTHS[usize::from(civil.month) - 1].as_bytes());
    out.push(b' ');
    two(out, (civil.year / 100) as u8);
    two(out, (civil.year % 100) as u8);
    out.push(b' ');
    write_clock(out, civil);
    out.extend_from_slice(b" GMT");
}

fn write_clock(out: &mut Vec<u8>, civil: Civil) {
    two(out, civil.hour);
    out.push(b':');
    two(out, civil.minute);
    out.push(b':');
    two(out, civil.second);
}

/// Appends RFC 3339 with milliseconds: `1994-11-06T08:49:37.000Z`.
pub fn write_rfc3339(out: &mut Vec<u8>, at: UnixMs) {
    let civil = civil(at);
    two(out, (civil.year / 100) as u8);
    two(out, (civil.year % 100) as u8);
    out.push(b'-');
    two(out, civil.month);
    out.push(b'-');
    two(out, civil.day);
    out.push(b'T');
    write_clock(out, civil);
    out.push(b'.');
    out.push(b'0' + (civil.millis / 100) as u8);
    two(out, (civil.millis % 100) as u8);
    out.push(b'Z');
}

/// Bytes of a date and time down to the millisecond.
const STAMP_BYTES: usize = "1994-11-06T08:49:37.000Z".len();

/// Writes times as [`write_rfc3339`] does, one after the other: the date is worked out once a second.
#[derive(Debug, Default)]
pub struct Stamp {
    second: u64,
    /// A moment of that second; zeros before the first.
    text: [u8; STAMP_BYTES],
    /// What it was written into, kept for the next.
    written: Vec<u8>,
}

impl Stamp {
    /// A time.
    #[inline]
    pub fn text(&mut self, at: UnixMs) -> [u8; STAMP_BYTES] {
        let second = at / 1000;
        if self.second != second || self.text[0] == 0 {
            self.begin(at);
        }
        let mut text = self.text;
        let [.., hundreds, tens, ones, _] = &mut text;
        [*hundreds, *tens, *ones] = three_digits((at % 1000) as u16);
        text
    }

    /// Works out the date.
    #[cold]
    fn begin(&mut self, at: UnixMs) {
        self.written.clear();
        write_rfc3339(&mut self.written, at);
        self.second = at / 1000;
        self.text = *self.written.first_chunk().unwrap_or(&[b'0'; STAMP_BYTES]);
    }
}

/// Appends nginx's `time_local` in UTC: `06/Nov/1994:08:49:37 +0000`.
pub fn write_local(out: &mut Vec<u8>, at: UnixMs) {
    let civil = civil(at);
    two(out, civil.day);
    out.push(b'/');
    out.extend_from_slice(MONTHS[usize::from(civil.month) - 1].as_bytes());
    out.push(b'/');
    two(out, (civil.year / 100) as u8);
    two(out, (civil.year % 100) as u8);
    out.push(b':');
    write_clock(out, civil);
    out.extend_from_slice(b" +0000");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_says_what_is_said_without_one() {
        let mut stamp = Stamp::default();
        for at in [0, 5, 999, 1000, 784_111_777_040, 784_111_777_999, 784_111_778_000, 784_111_777_999] {
            assert_eq!(String::from_utf8_lossy(&stamp.text(at)), text(write_rfc3339, at));
        }
    }

    fn text(write: fn(&mut Vec<u8>, UnixMs), at: UnixMs) -> String {
        let mut out = Vec::new();
        write(&mut out, at);
        String::from_utf8(out).expect("dates are ASCII")
    }

    #[test]
    fn the_rfc_example_date_is_written_in_all_three_forms() {
        let at = 784_111_777_000;
        assert_eq!(text(write_http_date, at), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(write_rfc3339, at), "1994-11-06T08:49:37.000Z");
        assert_eq!(text(write_local, at), "06/Nov/1994:08:49:37 +0000");
    }

    #[test]
    fn leap_days_and_year_ends_are_split_rightly() {
        assert_eq!(text(write_rfc3339, 1_709_164_800_000), "2024-02-29T00:00:00.000Z");
        assert_eq!(text(write_rfc3339, 1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(text(write_rfc3339, 0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn differences_never_go_below_zero() {
        let early = Moment::from_nanos(5);
        assert_eq!(early.since(Moment::from_nanos(9)), Duration::ZERO);
        assert!(now() > Moment::ZERO);
    }
}
