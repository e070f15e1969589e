//! A disk of a few megabytes, which can be filled and be made read-only.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// A `tmpfs` of its own, mounted in a folder of its own while it lives. Needs root.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of so many bytes.
    #[track_caller]
    pub(crate) fn of(bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=0700");
        mount(&["-t", "tmpfs", "-o", &options, "ringway-test", &dir.path().display().to_string()]);
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room for anything.
    #[track_caller]
    pub(crate) fn fill(&self) {
        let mut filler =
            OpenOptions::new().create(true).append(true).open(self.path().join("filler")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Takes away what [`Self::fill`] left.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }

    /// Nothing can be written from here on.
    #[track_caller]
    pub(crate) fn make_read_only(&self) {
        self.remount("ro");
    }

    /// It can again.
    #[track_caller]
    pub(crate) fn make_writable(&self) {
        self.remount("rw");
    }

    #[track_caller]
    fn remount(&self, how: &str) {
        mount(&["-o", &format!("remount,{how}"), &self.path().display().to_string()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file there keeps it until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[track_caller]
fn mount(arguments: &[&str]) {
    let done = Command::new("mount").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "mount {arguments:?} (needs root): {said}");
}
