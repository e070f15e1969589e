//! The socket by which cores ask the control thread for what may be public, as if it were a node: the page of metrics.
//!
//! Its name has the process's id, so that two processes with one folder do not meet. What processes that are dead have left is
//! taken away at the next start.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::model::Settings;
use crate::model::settings::{PUBLIC_SOCKET_BEGINS, PUBLIC_SOCKET_ENDS};

/// Nobody but this process has anything to ask.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// The bound socket, until it is dropped.
#[derive(Debug)]
pub(crate) struct PublicSocket {
    path: PathBuf,
    /// Until somebody serves it.
    listener: Option<UnixListener>,
}

impl PublicSocket {
    /// Opens it in the folder of the process's state.
    ///
    /// # Errors
    /// When that folder can not be used.
    pub(super) fn open(settings: &Settings) -> io::Result<Self> {
        let path = settings.public_socket();
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
            sweep(folder);
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(MODE))?;
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener: Some(listener) })
    }

    pub(super) const fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for PublicSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the sockets of processes that are no more, and one of an earlier process with our id.
fn sweep(folder: &Path) {
    let Ok(files) = fs::read_dir(folder) else { return };
    for file in files.flatten() {
        let name = file.file_name();
        let id = name.to_str().and_then(|name| {
            name.strip_prefix(PUBLIC_SOCKET_BEGINS)?.strip_suffix(PUBLIC_SOCKET_ENDS)?.parse::<u32>().ok()
        });
        if id.is_some_and(|id| id == std::process::id() || !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_the_dead_are_swept_and_ours_goes_with_us() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings =
            Settings::parse(&format!("state_dir: {}", folder.path().display()), &|_| None).expect("valid");
        // No process has an id as large as that.
        for left in ["public-4294967295.sock", "public-1.sock", "public-x.sock", "other.sock"] {
            fs::write(folder.path().join(left), "").expect("written");
        }
        fs::write(settings.public_socket(), "").expect("written");
        let socket = PublicSocket::open(&settings).expect("a socket");
        assert!(std::os::unix::net::UnixStream::connect(settings.public_socket()).is_ok());
        drop(socket);
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|file| file.expect("a file").file_name().into_string().expect("a name"))
            .collect();
        left.sort();
        assert_eq!(left, ["other.sock", "public-1.sock", "public-x.sock"]);
    }
}
