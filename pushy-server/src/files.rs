//! Files of the server's directory: written whole or not at all, readable by their owner only.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use pushy_core::{Error, ErrorCode, Result};

/// An I/O failure that names the file.
pub(crate) fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Io, format!("{}: {error}", path.display()))
}

/// Writes a file of mode 0600 (`secret`) or 0644 in place of what was there, in one step.
///
/// # Errors
/// When the directory cannot be written.
pub(crate) fn write(path: &Path, text: &str, secret: bool) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let attempt = || {
        let mode = if secret { 0o600 } else { 0o644 };
        // A left-over of a crash would keep its own mode.
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    attempt().map_err(|e| io(path, &e))
}

/// Makes a directory of mode 0700 with its parents.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| io(path, &e))
}

/// The right to be the only program that changes a server's directory; ends with the value.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: nix::fcntl::Flock<File>,
}

impl DirLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another program has it, or the lock file cannot be made.
    pub(crate) fn take(dir: &Path) -> Result<DirLock> {
        DirLock::try_take(dir)?.ok_or_else(|| {
            let text = format!("{}: another pushy-server works in this directory", dir.display());
            Error::new(ErrorCode::InvalidState, text)
        })
    }

    /// Takes the lock; `None`: another program has it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub(crate) fn try_take(dir: &Path) -> Result<Option<DirLock>> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io(&path, &e))?;
        match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(DirLock { _file: file })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => Err(io(&path, &e.into())),
        }
    }
}
