//! The file delivered with a job: 0600 in a directory of its own, gone with the job (D-49).

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pushy_core::ids::JobId;
use pushy_core::wire::decode_base64_leniently;

use super::os::{self, JobUser};

/// The content of option `file`: `raw:` text as it is, `base64:` decoded leniently (7.6).
pub(super) fn decode(option: &str) -> Result<Vec<u8>, String> {
    if let Some(text) = option.strip_prefix("raw:") {
        Ok(text.as_bytes().to_vec())
    } else if let Some(text) = option.strip_prefix("base64:") {
        Ok(decode_base64_leniently(text.as_bytes()))
    } else {
        Err("the file does not start with raw: or base64:".into())
    }
}

/// A file and its directory; both are removed on drop.
#[derive(Debug)]
pub(super) struct JobFile {
    dir: PathBuf,
    path: PathBuf,
}

impl JobFile {
    /// Writes the content where only the job's user can read it.
    pub(super) fn create(
        base: &Path,
        job: &JobId,
        content: &[u8],
        user: &JobUser,
    ) -> Result<JobFile, String> {
        prepare_base(base)?;
        os::check_reach(base, user)?;
        let template = base.join(format!("{job}-XXXXXX"));
        let dir = nix::unistd::mkdtemp(&template)
            .map_err(|error| format!("cannot make a directory in {}: {error}", base.display()))?;
        // From here on a failure removes what was made.
        let file = JobFile { path: dir.join("pushy_file"), dir };
        file.write(content, user).map_err(|error| format!("cannot write the job's file: {error}"))?;
        Ok(file)
    }

    fn write(&self, content: &[u8], user: &JobUser) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.write_all(content)?;
        os::give(&self.path, user)?;
        os::give(&self.dir, user)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for JobFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// Makes the directory if it is missing: passable for job users, writable for us alone. One that others can write is
/// refused, since they could put a file of their own in the place of a job's.
fn prepare_base(base: &Path) -> Result<(), String> {
    const STICKY: u32 = 0o1000;
    match DirBuilder::new().recursive(true).mode(0o711).create(base) {
        Ok(()) => {}
        Err(error) => return Err(format!("cannot make file_dir {}: {error}", base.display())),
    }
    let meta = fs::symlink_metadata(base)
        .map_err(|error| format!("cannot look at file_dir {}: {error}", base.display()))?;
    let ours = meta.uid() == nix::unistd::geteuid().as_raw() || meta.uid() == 0;
    let closed = meta.mode() & 0o022 == 0 || meta.mode() & STICKY != 0;
    if meta.is_dir() && ours && closed {
        Ok(())
    } else {
        Err(format!(
            "file_dir {} belongs to, or can be written by, somebody else; choose another",
            base.display()
        ))
    }
}
