//! Looking at a database file without changing it.

use std::path::Path;

use pushy_core::{Error, ErrorCode, Result};
use rusqlite::{Connection, OpenFlags};

use super::failed;
use crate::store::schema::MIGRATIONS;

/// What [`examine`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The version of its tables.
    pub schema: i64,
    /// The version that this program makes of it.
    pub expected: i64,
    /// What is wrong inside; nothing when it is whole.
    pub damage: Vec<String>,
}

/// Opens a database for reading, beside a server that may use it, and checks it.
///
/// # Errors
/// When it is not there, cannot be read, or is not a database.
pub fn examine(path: &Path) -> Result<Examined> {
    if !path.exists() {
        return Err(Error::new(ErrorCode::Storage, format!("{}: no such database", path.display())));
    }
    let look = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // A journal can only be read by those who may write beside it.
        let connection = Connection::open_with_flags(path, flags)
            .or_else(|_| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        connection.pragma_update(None, "query_only", true)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        let schema = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let mut check = connection.prepare("PRAGMA quick_check(5)")?;
        let lines = check.query_map([], |row| row.get::<_, String>(0))?;
        let lines: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
        let damage = lines.into_iter().filter(|line| line != "ok").collect();
        Ok(Examined { schema, expected: MIGRATIONS.len() as i64, damage })
    };
    look().map_err(|e: rusqlite::Error| failed(path, &e))
}
