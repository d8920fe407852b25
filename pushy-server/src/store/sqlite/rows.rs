//! Rows of SQLite, and what can go wrong with them.

use std::path::Path;

use pushy_core::ids::OrgId;
use pushy_core::job::Job;
use pushy_core::{Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, ToSql, params_from_iter};

use super::failed;
use crate::store::sql::{Columns, Statement, Value, put_nodes, read_job, read_node, unfit};
use crate::store::{JobFilter, nothing_changed, statements};

/// What goes wrong here: SQLite's failures, and rows that hold what they must not.
pub(in crate::store) enum Wrong {
    Sqlite(rusqlite::Error),
    Row(Error),
}

impl Wrong {
    pub(in crate::store) fn of(self, path: &Path) -> Error {
        match self {
            Wrong::Sqlite(e) => failed(path, &e),
            Wrong::Row(e) => e.context(path.display()),
        }
    }
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Wrong {
        Wrong::Sqlite(error)
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        Wrong::Row(error)
    }
}

pub(in crate::store) type Answer<T> = std::result::Result<T, Wrong>;

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Columns for Row<'_> {
    fn int(&self, column: usize) -> Result<Option<i64>> {
        self.get(column).map_err(|_| unfit(column))
    }

    fn text(&self, column: usize) -> Result<Option<String>> {
        self.get(column).map_err(|_| unfit(column))
    }

    fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>> {
        self.get(column).map_err(|_| unfit(column))
    }
}

/// A row that outlives its statement.
pub(in crate::store) struct Owned(Vec<rusqlite::types::Value>);

impl Owned {
    pub(in crate::store) fn read(row: &Row<'_>) -> Result<Owned> {
        let count = row.as_ref().column_count();
        (0..count).map(|i| row.get(i).map_err(|_| unfit(i))).collect::<Result<_>>().map(Owned)
    }
}

impl Columns for Owned {
    fn int(&self, column: usize) -> Result<Option<i64>> {
        match self.0.get(column) {
            Some(rusqlite::types::Value::Integer(number)) => Ok(Some(*number)),
            Some(rusqlite::types::Value::Null) => Ok(None),
            _ => Err(unfit(column)),
        }
    }

    fn text(&self, column: usize) -> Result<Option<String>> {
        match self.0.get(column) {
            Some(rusqlite::types::Value::Text(text)) => Ok(Some(text.clone())),
            Some(rusqlite::types::Value::Null) => Ok(None),
            _ => Err(unfit(column)),
        }
    }

    fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>> {
        match self.0.get(column) {
            Some(rusqlite::types::Value::Blob(bytes)) => Ok(Some(bytes.clone())),
            Some(rusqlite::types::Value::Null) => Ok(None),
            _ => Err(unfit(column)),
        }
    }
}

pub(in crate::store) fn rows<T>(
    c: &Connection,
    sql: &str,
    values: &[Value<'_>],
    read: impl Fn(&Row<'_>) -> Result<T>,
) -> Answer<Vec<T>> {
    let mut statement = c.prepare_cached(sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut list = Vec::new();
    while let Some(row) = found.next()? {
        list.push(read(row)?);
    }
    Ok(list)
}

pub(in crate::store) fn execute(c: &Connection, statement: &Statement<'_>) -> Answer<usize> {
    let changed = c.prepare_cached(statement.sql)?.execute(params_from_iter(&statement.values))?;
    if changed == 0 && statement.must_change {
        return Err(Wrong::Row(nothing_changed()));
    }
    Ok(changed)
}

pub(in crate::store) fn read_nodes(c: &Connection, job: &mut Job) -> Answer<()> {
    let found = rows(c, statements::NODES, &[job.id.as_str().into()], |row| read_node(row))?;
    put_nodes(job, found);
    Ok(())
}

pub(in crate::store) fn place(row: &Row<'_>) -> Result<(i64, String)> {
    Ok((row.number(0)?, row.string(1)?))
}

pub(in crate::store) fn jobs(c: &Connection, org: &OrgId, filter: &JobFilter) -> Answer<Option<Vec<Job>>> {
    let before = match &filter.before {
        Some(id) => {
            let found = rows(c, statements::PLACE, &[id.as_str().into(), org.as_str().into()], place)?.pop();
            let Some(found) = found else { return Ok(None) };
            Some(found)
        }
        None => None,
    };
    let (sql, values) = statements::list(org, filter, before.as_ref());
    let mut jobs = rows(c, &sql, &values, |row| read_job(row))?;
    if filter.limit.is_some() {
        jobs.reverse();
    }
    Ok(Some(jobs))
}
