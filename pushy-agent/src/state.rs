//! What an agent keeps on disk: results that no server has acknowledged (decision 2) and the server's public key
//! (D-66). Everything is optional: an agent that cannot write works, and says so once.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pushy_core::ids::JobId;
use pushy_core::node::{KeptResult, Restored};

/// The agent's directory for its state.
#[derive(Debug)]
pub(crate) struct StateDir {
    results: PathBuf,
    pin: PathBuf,
    usable: bool,
}

impl StateDir {
    /// Makes the directory, if need be, and reads what an earlier life left. `server` names the server whose key
    /// is pinned.
    pub(crate) fn open(dir: &Path, server: &str) -> (StateDir, Restored) {
        let digest = openssl::sha::sha256(server.as_bytes());
        let name: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut state = StateDir {
            results: dir.join("results"),
            pin: dir.join(format!("server_public_key-{name}.pem")),
            usable: true,
        };
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(&state.results));
        if let Err(error) = made {
            tracing::warn!(
                "cannot use state directory {}: {error}; results are not kept over a restart of this agent",
                dir.display()
            );
            state.usable = false;
            return (state, Restored::default());
        }
        let restored = Restored { results: state.read_results(), pinned: read_if_there(&state.pin) };
        (state, restored)
    }

    fn read_results(&self) -> Vec<KeptResult> {
        let mut found: Vec<(std::time::SystemTime, KeptResult)> = Vec::new();
        let entries = fs::read_dir(&self.results).into_iter().flatten().flatten();
        for path in
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"))
        {
            let result = fs::read_to_string(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| KeptResult::from_text(&text).map_err(|error| error.to_string()));
            match result {
                Ok(result) => {
                    let at = fs::metadata(&path).and_then(|meta| meta.modified());
                    found.push((at.unwrap_or(std::time::UNIX_EPOCH), result));
                }
                Err(error) => tracing::warn!("skipped {}: {error}", path.display()),
            }
        }
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, result)| result).collect()
    }

    /// Where the server's key is pinned.
    pub(crate) fn pin_path(&self) -> &Path {
        &self.pin
    }

    /// Keeps the server's public key.
    pub(crate) fn pin(&self, pem: &str) {
        self.write(&self.pin, pem);
    }

    /// Keeps a result.
    pub(crate) fn spool(&self, result: &KeptResult) {
        self.write(&self.result_path(&result.job), &result.to_text());
    }

    /// Lets go of a result.
    pub(crate) fn unspool(&self, job: &JobId) {
        let path = self.result_path(job);
        match fs::remove_file(&path) {
            Err(error) if self.usable && error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
            _ => {}
        }
    }

    fn result_path(&self, job: &JobId) -> PathBuf {
        self.results.join(format!("{job}.json"))
    }

    fn write(&self, path: &Path, text: &str) {
        if !self.usable {
            return;
        }
        if let Err(error) = write_whole(path, text) {
            tracing::warn!("cannot write {}: {error}", path.display());
        }
    }
}

fn read_if_there(path: &Path) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("cannot read {}: {error}", path.display());
            }
            None
        }
    }
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_gone_after_its_acknowledgement() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("state");
        let (state, restored) = StateDir::open(&at, "http://a/organizations/o");
        assert!(restored.results.is_empty() && restored.pinned.is_none());
        let job = JobId::new("4be1d6f0a9c30123456789abcdef0123").expect("an id");
        let result = KeptResult {
            job: job.clone(),
            succeeded: true,
            stdout: Some("ok".into()),
            stderr: None,
            reason: None,
        };
        state.spool(&result);
        state.pin("PEM");
        let path = at.join("results").join(format!("{job}.json"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::write(at.join("results/broken.json"), "{").expect("written");

        let (state, restored) = StateDir::open(&at, "http://a/organizations/o");
        assert_eq!(restored.results, [result]);
        assert_eq!(restored.pinned.as_deref(), Some("PEM"));
        state.unspool(&job);
        let (_, restored) = StateDir::open(&at, "http://b/organizations/o");
        assert!(restored.results.is_empty());
        assert_eq!(restored.pinned, None, "another server has its own key");
    }
}
