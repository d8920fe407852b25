//! Secrets are for their owner only.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Report;
use crate::config::Config;
use crate::{DATABASE, keys};

/// So many key files that were handed out are looked at.
const HANDED_OUT: usize = 10_000;

pub(super) fn look(report: &mut Report, config: &Config) {
    let dir = &config.dir;
    let mut open = Vec::new();
    let mut check = |path: &Path, allowed: u32, needed: bool| match std::fs::metadata(path) {
        Ok(about) if about.permissions().mode() & 0o777 & !allowed != 0 => {
            open.push((path.to_owned(), about.permissions().mode() & 0o777));
        }
        Ok(_) => {}
        Err(error) if needed => report.problem(
            "files",
            format!("{}: {error}", path.display()),
            "restore it from a backup, or run doctor as the server's user",
        ),
        Err(_) => {}
    };
    check(dir, 0o700, true);
    check(&dir.join(keys::FILE), 0o600, true);
    check(&dir.join(DATABASE), 0o600, false);
    for suffix in ["-wal", "-shm"] {
        check(&dir.join(format!("{DATABASE}{suffix}")), 0o600, false);
    }
    if let Some((_, key)) = &config.tls {
        // A group of its own may read it, as Debian's ssl-cert does.
        check(key, 0o640, true);
    }
    if let Some(chef) = &config.chef {
        check(&chef.client_key, 0o640, true);
    }
    if let Some(audit) = &config.operation.audit_log {
        check(audit, 0o640, false);
    }
    for key in handed_out(dir) {
        check(&key, 0o600, false);
    }
    if open.is_empty() {
        report.ok("files", "keys and database are readable for their owner only");
    }
    for (path, mode) in open {
        let wanted = if path.is_dir() { "700" } else { "600" };
        report.problem(
            "files",
            format!("{} has mode {mode:03o}: others can read secrets", path.display()),
            format!("chmod {wanted} {}; if others may have read it, replace what it holds", path.display()),
        );
    }
}

/// Private keys in `admin/.chef`, `users/NAME` and `nodes/NAME`.
fn handed_out(dir: &Path) -> Vec<PathBuf> {
    let list = |path: PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
    };
    let folders = ["users", "nodes"].into_iter().flat_map(|name| list(dir.join(name)));
    let folders = folders.flat_map(|folder| [folder.join(".chef"), folder]).chain([dir.join("admin/.chef")]);
    let files = folders.flat_map(list);
    files.filter(|path| path.extension().is_some_and(|e| e == "pem")).take(HANDED_OUT).collect()
}
