//! The control socket: a Unix socket by which whoever may open it owns the gateway, as the command line does.
//!
//! Beside it stands a file with the process's id, locked as long as the process lives: the kernel gives the lock back
//! whatever ends it, so a socket without a lock was left by a process that is dead, and is replaced. Both files go
//! when the process ends in order.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::log;
use crate::model::Settings;

/// Owner and group may ask.
const MODE: u32 = 0o660;
/// As the socket: others must not be able to hold the lock in the gateway's place.
const PID_MODE: u32 = 0o640;
/// The command line tries the lock for a moment when it looks whether a process lives.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Who waits at the door while the control loop is busy with a change.
const BACKLOG: i32 = 128;

/// Where a socket's process id is.
pub fn pid_file(socket: &Path) -> PathBuf {
    socket.with_extension("pid")
}

/// A bound control socket, until it is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    pub(super) path: PathBuf,
    /// Until somebody serves it.
    listener: Option<UnixListener>,
    /// Held for its lock.
    _lock: File,
}

impl ControlSocket {
    /// Opens the socket of the settings, if they want one. Where nobody asked for it by name and its folder can not be
    /// used, we go on without.
    ///
    /// # Errors
    /// When another process listens on it, or it was asked for and can not be had.
    pub(super) fn open(settings: &Settings) -> io::Result<Option<Self>> {
        let Some(path) = settings.control_socket() else { return Ok(None) };
        let folder_mode = if path.parent() == Some(&settings.state_dir) { 0o700 } else { 0o755 };
        match Self::bind(&path, folder_mode) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if settings.control_socket.is_none() && error.kind() != io::ErrorKind::AddrInUse => {
                log::warn(format!("{error}; there is no control socket"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn bind(path: &Path, folder_mode: u32) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("control_socket {}: {error}", path.display()))
        };
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(folder_mode).create(folder).map_err(named)?;
        }
        let mut lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PID_MODE)
            // A link that somebody else put there would have another file emptied.
            .custom_flags(libc::O_NOFOLLOW)
            .open(pid_file(path))
            .map_err(named)?;
        take(&lock).map_err(named)?;
        remove_stale(path).map_err(named)?;
        let listener = listen(path).map_err(named)?;
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(named)?;
        Ok(Self { path: path.to_owned(), listener: Some(listener), _lock: lock })
    }

    /// The listener, once: for whoever serves it.
    pub(super) fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock is held to the end, so these are still ours.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(pid_file(&self.path));
    }
}

/// Locks a file, unless another process has it locked for good.
#[expect(
    clippy::disallowed_methods,
    reason = "at start, before there is a core, and only where it is locked"
)]
fn take(lock: &File) -> io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(in_use())
}

fn in_use() -> io::Error {
    let why = "another gateway listens there: end it (`ringway quit`), or give this one a control_socket of its \
               own, or `off`";
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

/// Takes away what a process left that did not end in order, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file in its place that is no socket",
        )),
        // Whoever it is, it does not lock as we do.
        Ok(_) if UnixStream::connect(path).is_ok() => Err(in_use()),
        Ok(_) => fs::remove_file(path),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before it has a name: what the file may be at most comes from here (and less the umask), so that there is no
    // moment in which others may connect.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(MODE))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(socket: &Path) -> Settings {
        Settings { control_socket: Some(socket.to_owned()), ..Settings::default() }
    }

    #[test]
    fn owner_and_group_may_open_it_and_it_goes_with_its_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/control.sock");
        let socket = ControlSocket::open(&settings(&path)).expect("bound").expect("wanted");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let pid = fs::read_to_string(pid_file(&path)).expect("written");
        assert_eq!(pid.trim(), std::process::id().to_string());
        drop(socket);
        assert_eq!(fs::read_dir(folder.path().join("run")).expect("readable").count(), 0);
    }

    #[test]
    fn a_living_one_is_named_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let first = ControlSocket::open(&settings(&path)).expect("bound").expect("wanted");
        let error = ControlSocket::open(&settings(&path)).expect_err("it is taken");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        // As after a power cut: the files are there, and nobody has them open.
        drop(first);
        drop(UnixListener::bind(&path).expect("bound"));
        fs::write(pid_file(&path), "1\n").expect("written");
        ControlSocket::open(&settings(&path)).expect("replaced").expect("wanted");
    }

    #[test]
    fn what_is_no_socket_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        fs::write(&path, "precious").expect("written");
        let error = ControlSocket::open(&settings(&path)).expect_err("it is a file");
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        fs::remove_file(&path).expect("removed");
        let other = UnixListener::bind(&path).expect("bound");
        let error = ControlSocket::open(&settings(&path)).expect_err("somebody listens");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(other);
    }
}
