//! One connection: statements prepared once, sent without waiting for each other, answered in order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use pushy_core::{Error, Result};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row};

use super::address::Address;
use crate::store::nothing_changed;
use crate::store::schema::for_postgres;
use crate::store::sql::{Columns, Statement, Value, unfit};
use crate::store::statements::NEW_NODE;

/// PostgreSQL keeps no U+0000 in texts: this character and `0` stand for it, this character and `1` for itself.
const ESCAPE: char = '\u{1a}';

const NEW_NODES: &str = "INSERT INTO job_nodes (job_id, node_name, position, status, updated_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) ON CONFLICT DO NOTHING";

/// An open connection.
pub(super) struct Session {
    pub(super) client: Client,
    prepared: Mutex<HashMap<String, tokio_postgres::Statement>>,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Fail {
    /// The database says no; the connection is good.
    Refused(Error),
    /// The connection is gone; `doubtful`: what was asked may have been committed all the same.
    Lost {
        /// What was seen of it.
        error: Error,
        /// Whether the commit was on its way.
        doubtful: bool,
    },
}

impl Fail {
    pub(super) fn error(self) -> Error {
        match self {
            Fail::Refused(error) | Fail::Lost { error, .. } => error,
        }
    }
}

/// Statements that go to the database in one message.
enum Op<'s, 'a> {
    One(&'s Statement<'a>),
    Nodes(&'s [Statement<'a>]),
}

enum Param<'s, 'a> {
    Value(&'s Value<'a>),
    Texts(Vec<&'s str>),
    Ints(Vec<i64>),
}

impl std::fmt::Debug for Param<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a parameter")
    }
}

/// What a statement that was sent will say.
type Answer<'f> = Pin<Box<dyn Future<Output = std::result::Result<u64, tokio_postgres::Error>> + Send + 'f>>;

impl Session {
    pub(super) async fn open(address: &Address, lock_timeout_ms: u128) -> Result<Session> {
        let client = address.connect().await?;
        let settings = format!(
            "SET lock_timeout = {lock_timeout_ms};
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        );
        client.batch_execute(&settings).await.map_err(|e| address.failed(&e))?;
        Ok(Session { client, prepared: Mutex::default() })
    }

    pub(super) fn fail(&self, address: &Address, error: &tokio_postgres::Error) -> Fail {
        let gone = match error.code() {
            // Also a standby, after the primary moved: another connection finds the new one.
            Some(code) => {
                code.code().starts_with("57P")
                    || code.code().starts_with("08")
                    || *code == SqlState::READ_ONLY_SQL_TRANSACTION
            }
            None => {
                error.is_closed() || self.client.is_closed() || error.to_string().contains("communicating")
            }
        };
        let error = address.failed(error);
        if gone { Fail::Lost { error, doubtful: false } } else { Fail::Refused(error) }
    }

    async fn prepared(
        &self,
        sql: &str,
    ) -> std::result::Result<tokio_postgres::Statement, tokio_postgres::Error> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let statement = self.client.prepare(&for_postgres(sql)).await?;
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Every row that a statement finds.
    pub(super) async fn rows(
        &self,
        sql: &str,
        values: &[Value<'_>],
    ) -> std::result::Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as &(dyn ToSql + Sync)).collect();
        self.client.query(&statement, &params).await
    }

    /// Runs one statement; answers how many rows changed.
    pub(super) async fn execute(
        &self,
        sql: &str,
        values: &[Value<'_>],
    ) -> std::result::Result<u64, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as &(dyn ToSql + Sync)).collect();
        self.client.execute(&statement, &params).await
    }

    /// Runs one statement for each row of values, without waiting in between.
    pub(super) async fn pipeline(
        &self,
        sql: &str,
        rows: &[Vec<Value<'_>>],
    ) -> std::result::Result<(), tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        let mut answers: Vec<Answer<'_>> = Vec::with_capacity(rows.len());
        for row in rows {
            answers.push(Box::pin(self.client.execute_raw(&statement, row.iter().map(Param::Value))));
        }
        in_order(answers).await.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }

    /// Runs all in one transaction, or none of them.
    pub(super) async fn transaction(
        &self,
        address: &Address,
        statements: &[Statement<'_>],
    ) -> std::result::Result<(), Fail> {
        let done = match self.send(address, statements).await {
            Ok(()) => self.client.batch_execute("COMMIT").await.map_err(|e| match self.fail(address, &e) {
                Fail::Lost { error, .. } => Fail::Lost { error, doubtful: true },
                refused => refused,
            }),
            Err(fail) => Err(fail),
        };
        if let Err(Fail::Refused(_)) = &done {
            self.client
                .batch_execute("ROLLBACK")
                .await
                .map_err(|e| Fail::Lost { error: address.failed(&e), doubtful: false })?;
        }
        done
    }

    async fn send(&self, address: &Address, statements: &[Statement<'_>]) -> std::result::Result<(), Fail> {
        let failed = |e: tokio_postgres::Error| self.fail(address, &e);
        let mut ops: Vec<(Op<'_, '_>, tokio_postgres::Statement)> = Vec::new();
        let mut rest = statements;
        while let Some(first) = rest.first() {
            let nodes = rest.iter().take_while(|s| s.sql == NEW_NODE).count();
            let (op, sql) = match nodes {
                0 => (Op::One(first), first.sql),
                _ => (Op::Nodes(&rest[..nodes]), NEW_NODES),
            };
            ops.push((op, self.prepared(sql).await.map_err(failed)?));
            rest = &rest[nodes.max(1)..];
        }
        let begin: Answer<'_> = Box::pin(async { self.client.batch_execute("BEGIN").await.map(|()| 1) });
        let mut answers = vec![begin];
        for (op, statement) in &ops {
            answers.push(Box::pin(self.client.execute_raw(statement, op.params())));
        }
        let answers = in_order(answers).await;
        let must_change = std::iter::once(false).chain(ops.iter().map(|(op, _)| match op {
            Op::One(statement) => statement.must_change,
            Op::Nodes(_) => false,
        }));
        for (answer, must_change) in answers.into_iter().zip(must_change) {
            if answer.map_err(failed)? == 0 && must_change {
                return Err(Fail::Refused(nothing_changed().context(&address.label)));
            }
        }
        Ok(())
    }
}

impl<'s, 'a> Op<'s, 'a> {
    fn params(&self) -> Vec<Param<'s, 'a>> {
        let statements = match self {
            Op::One(statement) => return statement.values.iter().map(Param::Value).collect(),
            Op::Nodes(statements) => *statements,
        };
        let columns = statements[0].values.len();
        (0..columns)
            .map(|column| {
                let values = || statements.iter().map(move |statement| &statement.values[column]);
                match statements[0].values[column] {
                    Value::Int(_) => Param::Ints(
                        values().map(|v| if let Value::Int(number) = v { *number } else { 0 }).collect(),
                    ),
                    _ => Param::Texts(
                        values()
                            .map(|v| if let Value::Text(text) = v { text.as_ref() } else { "" })
                            .collect(),
                    ),
                }
            })
            .collect()
    }
}

/// Polls each once in this order, which sends it, then waits for the answers.
async fn in_order<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        Poll::Ready(())
    })
    .await;
    let mut answers = Vec::with_capacity(done.len());
    for (future, done) in futures.into_iter().zip(done) {
        answers.push(match done {
            Some(value) => value,
            None => future.await,
        });
    }
    answers
}

fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', ESCAPE]) {
        Cow::Owned(text.replace(ESCAPE, "\u{1a}1").replace('\0', "\u{1a}0"))
    } else {
        Cow::Borrowed(text)
    }
}

fn unescaped(text: String) -> String {
    if text.contains(ESCAPE) { text.replace("\u{1a}0", "\0").replace("\u{1a}1", "\u{1a}") } else { text }
}

type Written = std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl ToSql for Value<'_> {
    fn to_sql(&self, ty: &Type, out: &mut bytes::BytesMut) -> Written {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(number) => number.to_sql(ty, out),
            Value::Text(text) => escaped(text).as_ref().to_sql(ty, out),
            Value::Bytes(bytes) => bytes.as_ref().to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::INT8 | Type::TEXT | Type::BYTEA)
    }

    to_sql_checked!();
}

impl ToSql for Param<'_, '_> {
    fn to_sql(&self, ty: &Type, out: &mut bytes::BytesMut) -> Written {
        match self {
            Param::Value(value) => value.to_sql(ty, out),
            Param::Texts(texts) => texts.to_sql(ty, out),
            Param::Ints(numbers) => numbers.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::INT8 | Type::TEXT | Type::BYTEA | Type::TEXT_ARRAY | Type::INT8_ARRAY)
    }

    to_sql_checked!();
}

impl Columns for Row {
    fn int(&self, column: usize) -> Result<Option<i64>> {
        self.try_get(column).map_err(|_| unfit(column))
    }

    fn text(&self, column: usize) -> Result<Option<String>> {
        let text: Option<String> = self.try_get(column).map_err(|_| unfit(column))?;
        Ok(text.map(unescaped))
    }

    fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>> {
        self.try_get(column).map_err(|_| unfit(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_whatever_is_in_them() {
        for text in ["", "plain", "a\0b", "\u{1a}", "\u{1a}0\0\u{1a}1", "\0\0"] {
            let written = escaped(text);
            assert!(!written.contains('\0'));
            assert_eq!(unescaped(written.into_owned()), text);
        }
    }
}
