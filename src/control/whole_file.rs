//! A file that is replaced whole, or left as it is: whoever reads it after a crash finds the old text or the new one.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Puts a text in the place of the file, for nobody but us to read: what is kept may hold passwords and keys. Its folder is made
/// where it is not there. When this returns, the text is on the disk.
///
/// # Errors
/// What the system says; the file is as it was.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = Path::new(&aside);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(aside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(aside, path)?;
    File::open(folder)?.sync_all()
}
