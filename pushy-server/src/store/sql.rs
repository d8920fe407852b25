//! What both databases have in common: values that go in, columns that come out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pushy_core::ids::{JobId, NodeName, NodeRef, OrgId, OrgName};
use pushy_core::job::{Job, JobOptions, JobStatus, NodeStatus};
use pushy_core::reason::Reason;
use pushy_core::server::{Binding, CurveKey};
use pushy_core::time::Wall;
use pushy_core::wire::SessionKey;
use pushy_core::{Error, ErrorCode, Result};

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// No value.
    Null,
    /// Numbers, times, and flags as 0 and 1.
    Int(i64),
    /// Text; may hold any character, U+0000 too.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Value<'a> {
    pub(super) fn opt(text: Option<&'a str>) -> Value<'a> {
        text.map_or(Value::Null, Value::from)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Value<'a> {
        Value::Bytes(Cow::Borrowed(bytes))
    }
}

/// One statement with its values.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    /// Text with `?N`.
    pub(super) sql: &'static str,
    /// Its parameters.
    pub(super) values: Vec<Value<'a>>,
    /// Whether it is a failure when no row changes.
    pub(super) must_change: bool,
}

/// A row that was found.
pub(super) trait Columns {
    /// A number or NULL.
    fn int(&self, column: usize) -> Result<Option<i64>>;
    /// A text or NULL.
    fn text(&self, column: usize) -> Result<Option<String>>;
    /// Bytes or NULL.
    fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>>;

    /// A number of a column that is never NULL.
    fn number(&self, column: usize) -> Result<i64> {
        self.int(column)?.ok_or_else(|| unfit(column))
    }

    /// A text of a column that is never NULL.
    fn string(&self, column: usize) -> Result<String> {
        self.text(column)?.ok_or_else(|| unfit(column))
    }

    /// Bytes of a column that is never NULL.
    fn blob(&self, column: usize) -> Result<Vec<u8>> {
        self.bytes(column)?.ok_or_else(|| unfit(column))
    }

    /// A column as one of the core's names.
    fn id<T>(&self, column: usize, parse: impl Fn(&str) -> Result<T>) -> Result<T>
    where
        Self: Sized,
    {
        parse(&self.string(column)?).map_err(|e| storage(format!("column {column}: {}", e.message())))
    }
}

pub(super) fn storage(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::Storage, text)
}

pub(super) fn closed() -> Error {
    storage("the store is closed")
}

/// The database holds what this program never writes.
pub(super) fn unfit(column: usize) -> Error {
    storage(format!("column {column} holds something that does not belong there"))
}

fn code<T>(row: &impl Columns, column: usize, parse: impl Fn(i64) -> Option<T>) -> Result<T> {
    parse(row.number(column)?).ok_or_else(|| unfit(column))
}

fn u32_of(row: &impl Columns, column: usize) -> Result<u32> {
    u32::try_from(row.number(column)?).map_err(|_| unfit(column))
}

fn key_of(row: &impl Columns, column: usize) -> Result<[u8; 32]> {
    row.blob(column)?.try_into().map_err(|_| unfit(column))
}

/// A row of [`super::statements::JOB`], without nodes.
pub(super) fn read_job(row: &impl Columns) -> Result<Job> {
    let pairs = |column: usize| {
        let text = row.text(column)?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| unfit(column))
    };
    Ok(Job {
        id: row.id(0, JobId::new)?,
        org: row.id(1, OrgId::new)?,
        command: row.string(2)?,
        status: code(row, 3, JobStatus::from_code)?,
        run_timeout: u32_of(row, 4)?,
        quorum: u32_of(row, 5)?,
        requester: row.string(6)?,
        created_at: Wall(row.number(7)?),
        updated_at: Wall(row.number(8)?),
        deadline: row.int(9)?.map(Wall),
        options: JobOptions {
            user: row.text(10)?,
            dir: row.text(11)?,
            env: pairs(12)?,
            file: row.text(13)?,
            capture: row.int(14)?.unwrap_or(0) != 0,
            parameters: pairs(15)?,
        },
        nodes: Vec::new(),
        reasons: BTreeMap::new(),
    })
}

/// What [`super::statements::NODES`] says of one node of a job.
pub(super) type NodeRow = (NodeName, NodeStatus, Option<Reason>);

/// A row of [`super::statements::NODES`].
pub(super) fn read_node(row: &impl Columns) -> Result<NodeRow> {
    let text = row.text(3)?.unwrap_or_default();
    let reason = row.text(2)?.map(|code| Reason::of_peer(&code, &text));
    Ok((row.id(0, NodeName::new)?, code(row, 1, NodeStatus::from_code)?, reason))
}

/// Gives a job its nodes.
pub(super) fn put_nodes(job: &mut Job, rows: Vec<NodeRow>) {
    job.nodes = Vec::with_capacity(rows.len());
    for (node, status, reason) in rows {
        if let Some(reason) = reason {
            job.reasons.insert(node.clone(), reason);
        }
        job.nodes.push((node, status));
    }
}

/// A row of [`super::statements::BINDINGS`].
pub(super) fn read_binding(row: &impl Columns) -> Result<Binding> {
    Ok(Binding {
        node: NodeRef { org: row.id(0, OrgId::new)?, node: row.id(2, NodeName::new)? },
        org_name: row.id(1, OrgName::new)?,
        key: CurveKey(key_of(row, 3)?),
        session: SessionKey(key_of(row, 4)?),
        fetched_at: Wall(row.number(5)?),
        active: row.number(6)? != 0,
    })
}
