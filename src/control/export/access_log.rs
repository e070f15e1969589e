//! Where finished access-log lines go: stdout, stderr, a file, or nowhere.
//!
//! Writes whole batches straight through, without a buffer of its own. A sink that fails loses lines and counts
//! them; it never makes anyone wait or end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::model::settings::{AccessLogSettings, LogOutput};

/// A place for lines.
#[derive(Debug)]
pub(crate) struct Sink {
    place: Place,
    /// The last write ended within a line; the next begins with a line end, so that only one line is broken.
    is_torn: bool,
}

#[derive(Debug)]
enum Place {
    Off,
    /// Stdout or stderr itself rather than Rust's handle on it.
    Stream(File),
    File(PathBuf, File),
}

impl Sink {
    /// The place that settings name.
    pub(crate) fn open(settings: &AccessLogSettings) -> io::Result<Self> {
        let place = match &settings.output {
            _ if !settings.enabled => Place::Off,
            LogOutput::Off => Place::Off,
            LogOutput::Stdout => Place::Stream(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            LogOutput::Stderr => Place::Stream(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
            LogOutput::File(path) => Place::File(path.clone(), open(path)?),
        };
        Ok(Self { place, is_torn: false })
    }

    /// Appends to that file, whatever settings say.
    pub(crate) fn to_file(path: &Path) -> io::Result<Self> {
        Ok(Self { place: Place::File(path.to_owned(), open(path)?), is_torn: false })
    }

    /// Appends to a file.
    #[cfg(test)]
    pub(crate) fn file(path: &Path) -> Self {
        let output = LogOutput::File(path.to_owned());
        Self::open(&AccessLogSettings { output, ..AccessLogSettings::default() }).expect("it opens")
    }

    /// Opens the file anew, after a rotation. On failure, lines go on into the old one.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Place::File(path, file) = &mut self.place {
            *file = open(path)?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Writes a batch of lines. The error comes with the number of lines lost.
    pub(crate) fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let file = match &mut self.place {
            Place::Off => return Ok(()),
            Place::Stream(file) | Place::File(_, file) => file,
        };
        if self.is_torn {
            file.write_all(b"\n").map_err(|error| (count(lines), error))?;
            self.is_torn = false;
        }
        let mut done = 0;
        while done < lines.len() {
            match file.write(&lines[done..]) {
                Ok(0) => return Err((count(&lines[done..]), io::ErrorKind::WriteZero.into())),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_torn = done > 0 && lines[done - 1] != b'\n';
                    return Err((count(&lines[done..]), error));
                }
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_the_file_after_a_rotation() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let mut sink = Sink::file(&path);
        sink.write(b"one\n").expect("written");
        std::fs::rename(&path, &rotated).expect("renamed");
        sink.write(b"two\n").expect("written");
        sink.reopen().expect("opened");
        sink.write(b"three\n").expect("written");
        assert_eq!(std::fs::read_to_string(&rotated).expect("readable"), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "three\n");
    }

    #[test]
    fn a_full_disk_costs_lines_and_says_how_many() {
        let mut sink = Sink::file(Path::new("/dev/full"));
        let (lost, error) = sink.write(b"one\ntwo\n").expect_err("it is full");
        assert_eq!((lost, error.kind()), (2, io::ErrorKind::StorageFull));
    }

    #[test]
    fn a_sink_that_is_off_takes_everything() {
        let off = AccessLogSettings { enabled: false, ..AccessLogSettings::default() };
        assert!(Sink::open(&off).expect("nothing to open").write(b"one\n").is_ok());
    }
}
