//! Unix sockets to listen on: the file of one, which is made with the mode that was asked for, replaced where it was left
//! behind, and taken away at the end.
//!
//! All cores accept on one socket: what is bound to a path can not be bound to it again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};

use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use super::listener::BACKLOG;
use crate::base::address::UnixPath;

/// The file of a socket that is listened on. Dropping it takes it away, if it still is ours.
#[derive(Debug)]
pub struct SocketFile {
    path: UnixPath,
    /// As long as it is held, no other file can have its number.
    held: fs::File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = self.path.path();
        let Ok(ours) = self.held.metadata() else { return };
        let is_ours = |found: &fs::Metadata| found.dev() == ours.dev() && found.ino() == ours.ino();
        if fs::symlink_metadata(path).is_ok_and(|found| is_ours(&found)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens the socket, with a handle for each core.
///
/// # Errors
/// Names the path that can not be had.
pub fn bind(path: UnixPath, mode: u32, cores: usize) -> io::Result<(Vec<UnixListener>, SocketFile)> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("can not listen on unix:{}: {error}", path.path()))
    };
    let (first, file) = open(path, mode).map_err(named)?;
    let others = (1..cores).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>().map_err(named)?;
    Ok((std::iter::once(first).chain(others).collect(), file))
}

fn open(path: UnixPath, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path.path())?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        clear(path)?;
        socket.bind(&address)?;
    }
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let held = fs::OpenOptions::new().read(true).custom_flags(flags).open(path.path())?;
    let file = SocketFile { path, held };
    // Nobody can connect before it listens, so nobody comes in by the mode that the file was made with.
    fs::set_permissions(path.path(), fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// Takes away what a process left behind that is no more.
fn clear(path: UnixPath) -> io::Result<()> {
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    if !fs::symlink_metadata(path.path())?.file_type().is_socket() {
        return refused("a file is there that is no socket");
    }
    match UnixStream::connect(path.path()) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path.path()),
        Err(error) => Err(error),
        Ok(_) => refused("another process listens there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &tempfile::TempDir) -> UnixPath {
        UnixPath::of(&format!("unix:{}", folder.path().join("a.sock").display())).expect("a path")
    }

    #[test]
    fn a_socket_has_its_mode_serves_all_cores_and_is_taken_away_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = place(&folder);
        let (listeners, file) = bind(path, 0o600, 3).expect("bound");
        assert_eq!(listeners.len(), 3);
        let mode = fs::metadata(path.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for listener in &listeners {
            let _near = UnixStream::connect(path.path()).expect("somebody listens");
            listener.accept().expect("each accepts");
        }
        drop(file);
        assert!(fs::symlink_metadata(path.path()).is_err());
    }

    #[test]
    fn what_was_left_behind_is_replaced_and_what_is_in_use_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = place(&folder);
        let (left, file) = bind(path, 0o660, 1).expect("bound");
        let error = bind(path, 0o660, 1).expect_err("somebody listens");
        let expected = format!("can not listen on unix:{}: another process listens there", path.path());
        assert_eq!(error.to_string(), expected);
        drop(left);
        let (_listeners, newer) = bind(path, 0o660, 1).expect("nobody listens any more");
        drop(file);
        UnixStream::connect(path.path())
            .expect("the file of the newer one is not the older one's to take away");
        drop(newer);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = place(&folder);
        fs::write(path.path(), "precious").expect("written");
        let error = bind(path, 0o660, 1).expect_err("it is in the way").to_string();
        assert!(error.ends_with("a file is there that is no socket"), "{error}");
        assert_eq!(fs::read_to_string(path.path()).expect("it is there"), "precious");
    }
}
