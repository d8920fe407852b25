//! News from the kernel that something in a folder has changed, without waking up for anything else.

use std::io;
use std::path::PathBuf;

/// Folders that are watched; not those in them.
#[derive(Debug)]
pub(crate) struct Watches {
    #[cfg(target_os = "linux")]
    events: tokio::io::unix::AsyncFd<Descriptor>,
}

/// The kernel's end under the trait that tokio asks for.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Descriptor(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl std::os::fd::AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Watches {
    /// Must be made inside of a tokio runtime. Folders that are not there are left out.
    ///
    /// # Errors
    /// When the system has no such service, or gives no more of it.
    #[cfg(target_os = "linux")]
    pub(crate) fn new(folders: &[PathBuf]) -> io::Result<Watches> {
        use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
        use std::os::unix::ffi::OsStrExt;

        const WHAT: u32 = libc::IN_CLOSE_WRITE
            | libc::IN_MODIFY
            | libc::IN_ATTRIB
            | libc::IN_CREATE
            | libc::IN_DELETE
            | libc::IN_MOVED_FROM
            | libc::IN_MOVED_TO
            | libc::IN_DELETE_SELF
            | libc::IN_MOVE_SELF
            | libc::IN_ONLYDIR;
        // SAFETY: opens a descriptor or fails.
        let opened = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if opened == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just opened and is nobody else's.
        let descriptor = Descriptor(unsafe { OwnedFd::from_raw_fd(opened) });
        for folder in folders {
            let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { continue };
            // SAFETY: the path ends in NUL and outlives the call.
            let added = unsafe { libc::inotify_add_watch(descriptor.as_raw_fd(), path.as_ptr(), WHAT) };
            if added == -1 {
                let error = io::Error::last_os_error();
                // The user's share of watches is used up; anything else is the folder's fault.
                if error.raw_os_error() == Some(libc::ENOSPC) {
                    return Err(error);
                }
            }
        }
        // SAFETY: the descriptor is owned by the value, open until it is dropped, and always the same.
        let events = unsafe { tokio::io::unix::AsyncFd::register(descriptor) }?;
        Ok(Watches { events })
    }

    /// Waits for something to happen and takes note of all of it. Cancel-safe.
    #[cfg(target_os = "linux")]
    pub(crate) async fn changed(&mut self) {
        let mut buffer = [0; 4096];
        let mut any = false;
        while let Ok(mut ready) = self.events.readable().await {
            while matches!(nix::unistd::read(&ready.get_inner().0, &mut buffer), Ok(1..)) {
                any = true;
            }
            ready.clear_ready();
            if any {
                return;
            }
        }
        // The runtime ends.
        std::future::pending().await
    }

    /// # Errors
    /// Always: there is no such service here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new(_folders: &[PathBuf]) -> io::Result<Watches> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never.
    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn changed(&mut self) {
        std::future::pending().await
    }
}
