//! The tables, once for both databases.
//!
//! Migrations are written for SQLite in words that PostgreSQL knows by another name: [`for_postgres`] translates.

/// Applied in this order; the number of applied ones is the database's version.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_jobs.sql"),
    include_str!("../../migrations/0002_directory.sql"),
    include_str!("../../migrations/0003_feeds.sql"),
    include_str!("../../migrations/0004_lists.sql"),
    include_str!("../../migrations/0005_nodes.sql"),
    include_str!("../../migrations/0006_reasons.sql"),
];

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// A number, time or flag.
    Int,
    /// Bytes.
    Bytes,
}

use Kind::{Bytes, Int, Text};

/// A table that a backup holds.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name.
    pub(super) name: &'static str,
    /// Its columns.
    pub(super) columns: &'static [(&'static str, Kind)],
    /// What its rows are sorted by.
    pub(super) key: &'static str,
}

/// Every table that a backup holds, those first that others refer to.
pub(super) const TABLES: &[Table] = &[
    Table { name: "organizations", columns: &[("name", Text), ("guid", Text)], key: "name" },
    Table {
        name: "principals",
        columns: &[("kind", Text), ("org", Text), ("name", Text)],
        key: "kind, org, name",
    },
    Table {
        name: "principal_keys",
        columns: &[("kind", Text), ("org", Text), ("name", Text), ("key_name", Text), ("public_key", Text)],
        key: "kind, org, name, key_name",
    },
    Table {
        name: "node_documents",
        columns: &[
            ("kind", Text),
            ("org", Text),
            ("name", Text),
            ("document", Text),
            ("published_at", Int),
            ("fixed", Text),
        ],
        key: "kind, org, name",
    },
    Table { name: "org_users", columns: &[("org", Text), ("user_name", Text)], key: "org, user_name" },
    Table { name: "org_groups", columns: &[("org", Text), ("group_name", Text)], key: "org, group_name" },
    Table {
        name: "group_members",
        columns: &[("org", Text), ("group_name", Text), ("kind", Text), ("member", Text)],
        key: "org, group_name, kind, member",
    },
    Table {
        name: "jobs",
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("command", Text),
            ("status", Int),
            ("run_timeout", Int),
            ("quorum", Int),
            ("requester", Text),
            ("created_at", Int),
            ("updated_at", Int),
            ("deadline", Int),
        ],
        key: "id",
    },
    Table {
        name: "job_nodes",
        columns: &[
            ("job_id", Text),
            ("node_name", Text),
            ("position", Int),
            ("status", Int),
            ("updated_at", Int),
            ("reason_code", Text),
            ("reason_text", Text),
        ],
        key: "job_id, node_name",
    },
    Table {
        name: "job_options",
        columns: &[
            ("job_id", Text),
            ("job_user", Text),
            ("dir", Text),
            ("env", Text),
            ("job_file", Text),
            ("capture", Int),
            ("parameters", Text),
        ],
        key: "job_id",
    },
    Table {
        name: "job_output",
        columns: &[("job_id", Text), ("node_name", Text), ("stdout", Bytes), ("stderr", Bytes)],
        key: "job_id, node_name",
    },
];

/// Tables that no backup holds: keys of sessions are secrets that nodes fetch anew (decision 43), the identity is the
/// database's own, and feeds are asked for while they are fresh.
#[cfg(test)]
const NOT_IN_BACKUPS: &[&str] = &["bindings", "identity", "job_feeds"];

impl Table {
    /// The statement that reads it.
    pub(super) fn select(&self) -> String {
        format!("SELECT {} FROM {} ORDER BY {}", self.names(), self.name, self.key)
    }

    /// The statement that fills it, with `?N`.
    pub(super) fn insert(&self) -> String {
        let values: Vec<String> = (1..=self.columns.len()).map(|n| format!("?{n}")).collect();
        format!("INSERT INTO {} ({}) VALUES ({})", self.name, self.names(), values.join(", "))
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }
}

/// The text of a migration or statement for PostgreSQL. Text is compared by its bytes, as in SQLite.
#[cfg(feature = "postgres")]
pub(super) fn for_postgres(sql: &str) -> String {
    let code: Vec<&str> = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    code.join("\n")
        .replace(" WITHOUT ROWID", "")
        .replace(" BLOB ", " BYTEA ")
        .replace(" INTEGER ", " BIGINT ")
        .replace(" TEXT ", " TEXT COLLATE \"C\" ")
        .replace(" TEXT,", " TEXT COLLATE \"C\",")
        .replace('?', "$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_holds_every_table_and_column() {
        let database = rusqlite::Connection::open_in_memory().unwrap();
        for migration in MIGRATIONS {
            database.execute_batch(migration).unwrap();
        }
        let list = |sql: &str| -> Vec<(String, String)> {
            let mut statement = database.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(|row| row.unwrap()).collect()
        };
        for (table, _) in
            list("SELECT name, type FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        {
            if NOT_IN_BACKUPS.contains(&table.as_str()) {
                continue;
            }
            let mut entries = TABLES.iter().filter(|t| t.name == table);
            let known = entries.next().unwrap_or_else(|| panic!("{table} is in no backup"));
            assert!(entries.next().is_none(), "{table} is in a backup twice");
            let columns = list(&format!("SELECT name, type FROM pragma_table_info('{table}')"));
            let known: Vec<(String, &str)> = known
                .columns
                .iter()
                .map(|(name, kind)| {
                    let kind = match kind {
                        Text => "TEXT",
                        Int => "BIGINT",
                        Bytes => "BLOB",
                    };
                    (name.to_string(), kind)
                })
                .collect();
            let found: Vec<(String, &str)> = columns
                .iter()
                .map(|(name, kind)| (name.clone(), if kind == "INTEGER" { "BIGINT" } else { kind.as_str() }))
                .collect();
            assert_eq!(found, known, "{table}");
        }
    }
}
