//! The process's own log: life events, and what an operator should look at. One line each.
//!
//! A global, because a line must be possible before settings are read and from the reports thread. Equal lines
//! in a row are folded to one and a count, so that a fault in a loop can not fill a disk. This is the only file
//! that writes to stderr. Nothing per request comes here.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::clock::{self, Moment, UnixMs};
use crate::base::text;
use crate::model::settings::{LogFormat, LogLevel, LogOutput, LogSettings};

pub use crate::link::outbox::Level;

/// Equal lines are counted rather than written for this long; then the count is.
pub const FOLD_FOR: Duration = Duration::from_secs(10);

/// Where lines go.
#[derive(Debug)]
enum Target {
    Off,
    Stderr,
    Stdout,
    File(PathBuf, File),
}

#[derive(Debug)]
struct Log {
    level: Level,
    format: LogFormat,
    target: Target,
    fold: Fold,
}

static LOG: Mutex<Log> = Mutex::new(Log {
    level: Level::Info,
    format: LogFormat::Text,
    // Tests look at what they made themselves.
    target: if cfg!(test) { Target::Off } else { Target::Stderr },
    fold: Fold { last: None, repeats: 0, since: Moment::ZERO },
});
static LOST: AtomicU64 = AtomicU64::new(0);

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does as settings say from here on.
///
/// # Errors
/// When the file can not be opened; the log then stays as it was.
pub fn set_up(settings: &LogSettings) -> io::Result<()> {
    let target = match &settings.output {
        LogOutput::Off => Target::Off,
        LogOutput::Stderr => Target::Stderr,
        LogOutput::Stdout => Target::Stdout,
        LogOutput::File(path) => Target::File(path.clone(), open(path)?),
    };
    let mut log = log();
    (log.level, log.format, log.target) = (level_of(settings.level), settings.format, target);
    Ok(())
}

const fn level_of(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Debug | LogLevel::Trace => Level::Debug,
    }
}

/// Opens the file anew, after a rotation. Does nothing for other places.
///
/// # Errors
/// When the file can not be opened; lines then go on into the old one.
pub fn reopen() -> io::Result<()> {
    let mut log = log();
    if let Target::File(path, file) = &mut log.target {
        *file = open(path)?;
    }
    Ok(())
}

/// Someone must act.
pub fn error(line: impl AsRef<str>) {
    write(Level::Error, line.as_ref());
}

/// Someone should look.
pub fn warn(line: impl AsRef<str>) {
    write(Level::Warn, line.as_ref());
}

/// Life events of the process and of its configuration.
pub fn info(line: impl AsRef<str>) {
    write(Level::Info, line.as_ref());
}

/// Per connection or finer.
pub fn debug(line: impl AsRef<str>) {
    write(Level::Debug, line.as_ref());
}

/// Writes a line of any level.
pub fn write(level: Level, line: &str) {
    log().line(clock::now(), clock::wall(), level, line);
}

/// Writes out a count of folded lines that has waited long enough. Call it about once a second.
pub fn tick() {
    log().tick(clock::now(), clock::wall());
}

/// Writes out what is folded, whatever its age: the last act of the process.
pub fn flush() {
    let mut log = log();
    if let Some((level, repeats)) = log.fold.end() {
        log.put(clock::wall(), level, &repeated(repeats));
    }
}

/// Lines that could not be written.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// A bare line on stderr: what the command line tells the person who typed it.
pub fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn repeated(times: u64) -> String {
    format!("last message repeated {times} times")
}

impl Log {
    fn line(&mut self, now: Moment, wall: UnixMs, level: Level, line: &str) {
        if level > self.level {
            return;
        }
        let passed = self.fold.line(now, level, line);
        if let Some((level, repeats)) = passed.before {
            self.put(wall, level, &repeated(repeats));
        }
        if passed.is_new {
            self.put(wall, level, line);
        }
    }

    fn tick(&mut self, now: Moment, wall: UnixMs) {
        if let Some((level, repeats)) = self.fold.due(now) {
            self.put(wall, level, &repeated(repeats));
        }
    }

    fn put(&mut self, wall: UnixMs, level: Level, line: &str) {
        let mut out = Vec::with_capacity(line.len() + 64);
        render(&mut out, self.format, wall, level, line);
        let written = match &mut self.target {
            Target::Off => Ok(()),
            Target::Stderr => io::stderr().lock().write_all(&out),
            Target::Stdout => io::stdout().lock().write_all(&out),
            Target::File(_, file) => file.write_all(&out),
        };
        if written.is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn render(out: &mut Vec<u8>, format: LogFormat, wall: UnixMs, level: Level, line: &str) {
    let (name, padded) = match level {
        Level::Error => ("error", "ERROR"),
        Level::Warn => ("warn", "WARN "),
        Level::Info => ("info", "INFO "),
        Level::Debug => ("debug", "DEBUG"),
    };
    match format {
        LogFormat::Text => {
            clock::write_rfc3339(out, wall);
            out.extend_from_slice(format!(" {padded} ").as_bytes());
            // A line stays one line, and a terminal is not steered by what a client sent.
            for char in line.chars() {
                if char.is_control() {
                    out.extend(char.escape_default().map(|c| c as u8));
                } else {
                    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        LogFormat::Json => {
            out.extend_from_slice(b"{\"ts\":\"");
            clock::write_rfc3339(out, wall);
            out.extend_from_slice(format!("\",\"level\":\"{name}\",\"message\":").as_bytes());
            text::write_json_string(out, line.as_bytes());
            out.push(b'}');
        }
    }
    out.push(b'\n');
}

/// Folds equal lines in a row. Pure: time is an argument.
#[derive(Debug, Default)]
struct Fold {
    last: Option<(Level, String)>,
    repeats: u64,
    since: Moment,
}

/// What to write for a line.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    /// How often the line before was repeated, if it was.
    before: Option<(Level, u64)>,
    /// Whether the line itself is written.
    is_new: bool,
}

impl Fold {
    fn line(&mut self, now: Moment, level: Level, line: &str) -> Passed {
        let due = self.due(now);
        if self.last.as_ref().is_some_and(|(l, text)| *l == level && text == line) {
            self.repeats += 1;
            return Passed { before: None, is_new: false };
        }
        let before = due.or_else(|| self.end());
        (self.last, self.since) = (Some((level, line.to_owned())), now);
        Passed { before, is_new: true }
    }

    /// The count, once the line it belongs to is old. The next equal line is then new again.
    fn due(&mut self, now: Moment) -> Option<(Level, u64)> {
        if now.since(self.since) < FOLD_FOR { None } else { self.end() }
    }

    fn end(&mut self) -> Option<(Level, u64)> {
        let (level, _) = self.last.take()?;
        let repeats = std::mem::take(&mut self.repeats);
        (repeats > 0).then_some((level, repeats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn rendered(format: LogFormat, line: &str) -> String {
        let mut out = Vec::new();
        render(&mut out, format, 784_111_777_000, Level::Warn, line);
        String::from_utf8(out).expect("lines are UTF-8")
    }

    #[test]
    fn equal_lines_in_a_row_are_counted_and_the_count_precedes_the_next_line() {
        let mut fold = Fold::default();
        assert_eq!(fold.line(at(1), Level::Warn, "full"), Passed { before: None, is_new: true });
        for _ in 0..3 {
            assert_eq!(fold.line(at(2), Level::Warn, "full"), Passed { before: None, is_new: false });
        }
        let other = fold.line(at(3), Level::Info, "well");
        assert_eq!(other, Passed { before: Some((Level::Warn, 3)), is_new: true });
    }

    #[test]
    fn a_line_of_another_level_is_another_line() {
        let mut fold = Fold::default();
        fold.line(at(1), Level::Warn, "full");
        assert!(fold.line(at(1), Level::Error, "full").is_new);
    }

    #[test]
    fn a_count_does_not_wait_for_another_line_forever() {
        let mut fold = Fold::default();
        fold.line(at(1), Level::Warn, "full");
        fold.line(at(2), Level::Warn, "full");
        assert_eq!(fold.due(at(10)), None);
        assert_eq!(fold.due(at(11)), Some((Level::Warn, 1)));
        assert_eq!(fold.due(at(30)), None);
        assert!(fold.line(at(31), Level::Warn, "full").is_new);
    }

    #[test]
    fn an_equal_line_long_after_is_written_again() {
        let mut fold = Fold::default();
        fold.line(at(1), Level::Warn, "full");
        fold.line(at(2), Level::Warn, "full");
        let again = fold.line(at(3600), Level::Warn, "full");
        assert_eq!(again, Passed { before: Some((Level::Warn, 1)), is_new: true });
    }

    #[test]
    fn a_line_stays_one_line_in_both_forms() {
        assert_eq!(
            rendered(LogFormat::Text, "a\nb\u{1b}[2Jé"),
            "1994-11-06T08:49:37.000Z WARN  a\\nb\\u{1b}[2Jé\n"
        );
        assert_eq!(
            rendered(LogFormat::Json, "a\n\"b\""),
            "{\"ts\":\"1994-11-06T08:49:37.000Z\",\"level\":\"warn\",\"message\":\"a\\n\\\"b\\\"\"}\n"
        );
    }

    #[test]
    fn a_file_is_found_again_after_rotation_and_quiet_levels_stay_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("error.log");
        let file = open(&path).expect("a file");
        let mut log = Log {
            level: Level::Warn,
            format: LogFormat::Text,
            target: Target::File(path.clone(), file),
            fold: Fold::default(),
        };
        log.line(at(1), 0, Level::Info, "quiet");
        log.line(at(1), 0, Level::Warn, "one");
        log.line(at(1), 0, Level::Warn, "one");
        log.tick(at(20), 0);
        let text = std::fs::read_to_string(&path).expect("readable");
        let lines: Vec<&str> = text.lines().map(|line| &line[31..]).collect();
        assert_eq!(lines, ["one", "last message repeated 1 times"]);
    }
}
