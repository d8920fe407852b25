//! The database opens, is whole, fits this program, and has room to grow.

use std::path::Path;

use super::Report;
use crate::config::Config;
use crate::store::{Place, examine};

/// Less free space than this is a problem, in bytes.
const FULL: u64 = 100 << 20;
/// Less than this is a warning.
const NEARLY_FULL: u64 = 1 << 30;

pub(super) fn look(report: &mut Report, config: &Config, runs: bool) {
    let path = match &config.database {
        Place::Sqlite(path) => path,
        Place::Postgres(_) => {
            // Opening it would bring its tables up to date, which is the next start's business.
            let state =
                if runs { "is in use by the running server" } else { "is looked at when the server starts" };
            return report.ok("database", format!("{} {state}", config.database.label()));
        }
    };
    match examine(path) {
        Err(error) => report.problem(
            "database",
            error.message(),
            "stop the server and restore the latest backup; keep the damaged file",
        ),
        Ok(found) if !found.damage.is_empty() => report.problem(
            "database",
            format!("{} is damaged: {}", path.display(), found.damage.join("; ")),
            "stop the server and restore the latest backup; keep the damaged file",
        ),
        Ok(found) if found.schema > found.expected => report.problem(
            "database",
            format!("has version {} of the tables, this program knows {}", found.schema, found.expected),
            "use the pushy-server that wrote it, or a newer one",
        ),
        Ok(found) if found.schema < found.expected => report.ok(
            "database",
            format!("is whole; the next start brings it from version {} to {}", found.schema, found.expected),
        ),
        Ok(found) => report.ok("database", format!("is whole, version {} of the tables", found.schema)),
    }
    space(report, &config.dir);
}

fn space(report: &mut Report, dir: &Path) {
    let Ok(about) = nix::sys::statvfs::statvfs(dir) else {
        return report.warning("disk", "cannot tell how much space is free", "look with df");
    };
    let free = about.blocks_available().saturating_mul(about.fragment_size());
    let text = format!("{} MB are free at {}", free >> 20, dir.display());
    match judge(free) {
        super::Level::Ok => report.ok("disk", text),
        super::Level::Warning => report.warning("disk", text, "make room, or let old jobs go sooner"),
        super::Level::Problem => {
            report.problem("disk", text, "make room now: without it no job can be started");
        }
    }
}

fn judge(free: u64) -> super::Level {
    match free {
        free if free < FULL => super::Level::Problem,
        free if free < NEARLY_FULL => super::Level::Warning,
        _ => super::Level::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::judge;

    #[test]
    fn how_full_is_too_full() {
        for (free, level) in [(0, Level::Problem), (100 << 20, Level::Warning), (1 << 30, Level::Ok)] {
            assert_eq!(judge(free), level, "{free}");
        }
    }
}
