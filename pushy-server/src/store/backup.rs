//! A backup: every table in one file of lines, the same for each kind of database.
//!
//! The first line says what it is, a line `{"table":…}` comes before the rows of a table, each row is a JSON array,
//! and the last line counts them and holds the SHA-256 of all lines before. Bytes are in Base64. Session keys and the
//! server's own keys are not in it (decision 43); commands, options and output are.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use openssl::sha::Sha256;
use pushy_core::job::{JobStatus, NodeStatus};
use pushy_core::reason::ReasonCode;
use pushy_core::{Error, ErrorCode, Result};
use serde_json::{Value as Json, json};

use super::schema::{Kind, MIGRATIONS, TABLES, Table};
use super::sql::{Columns, Statement, Value};
use super::{Place, sqlite};

/// The format of the file.
const FORMAT: u64 = 1;
/// So many rows go to the database together.
const CHUNK: usize = 500;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Rows of all tables.
    pub rows: u64,
    /// Jobs among them.
    pub jobs: u64,
    /// The text of `server.toml`, without the database.
    pub settings: String,
}

/// A file that is being written.
pub(crate) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    hash: Sha256,
    rows: u64,
    jobs: u64,
}

impl Writer {
    fn line(&mut self, document: &Json) -> Result<()> {
        let mut line = document.to_string();
        line.push('\n');
        self.hash.update(line.as_bytes());
        self.file.write_all(line.as_bytes()).map_err(|e| io(&self.path, &e))
    }

    /// Says whose rows come next.
    pub(super) fn table(&mut self, table: &Table) -> Result<()> {
        self.line(&json!({ "table": table.name }))
    }

    /// Writes a row of a table.
    pub(super) fn row(&mut self, table: &Table, row: &impl Columns) -> Result<()> {
        let mut values = Vec::with_capacity(table.columns.len());
        for (column, (_, kind)) in table.columns.iter().enumerate() {
            values.push(match kind {
                Kind::Text => row.text(column)?.map_or(Json::Null, Json::from),
                Kind::Int => row.int(column)?.map_or(Json::Null, Json::from),
                Kind::Bytes => row.bytes(column)?.map_or(Json::Null, |b| BASE64.encode(b).into()),
            });
        }
        self.rows += 1;
        self.jobs += u64::from(table.name == "jobs");
        self.line(&Json::Array(values))
    }

    fn finish(mut self) -> Result<(u64, u64)> {
        let hash = self.hash.clone().finish();
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let end = json!({ "rows": self.rows, "sha256": hash });
        let mut attempt = || {
            writeln!(self.file, "{end}")?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        attempt().map_err(|e| io(&self.path, &e))?;
        Ok((self.rows, self.jobs))
    }
}

/// Writes everything of a database into a new file, 0600, as it was at one moment. A server may go on working with it.
///
/// # Errors
/// When there is a file of that name, or something cannot be read or written.
pub fn save(place: &Place, settings: &str, path: &Path) -> Result<Summary> {
    if path.exists() {
        return Err(Error::new(ErrorCode::Io, format!("{}: exists already", path.display())));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let made = save_as(place, settings, &temporary);
    match &made {
        Ok(_) => std::fs::rename(&temporary, path).map_err(|e| io(path, &e))?,
        // Nobody should take it for a backup.
        Err(_) => drop(std::fs::remove_file(&temporary)),
    }
    made
}

fn save_as(place: &Place, settings: &str, path: &Path) -> Result<Summary> {
    // A left-over may be somebody else's, or a link: what is written here is for nobody but its owner.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(path, &e)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|e| io(path, &e))?;
    let mut out =
        Writer { file: BufWriter::new(file), path: path.to_owned(), hash: Sha256::new(), rows: 0, jobs: 0 };
    // The database is where it is; what is restored may go elsewhere.
    let is_database = |line: &&str| {
        line.trim_start().strip_prefix("database").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let settings: String =
        settings.lines().filter(|line| !is_database(line)).flat_map(|l| [l, "\n"]).collect();
    out.line(&json!({
        "pushy_backup": FORMAT,
        "schema": MIGRATIONS.len(),
        "program": env!("CARGO_PKG_VERSION"),
        "at": crate::clock::wall().iso8601(),
        "settings": settings,
    }))?;
    match place {
        Place::Sqlite(path) => sqlite::export(path, &mut out)?,
        #[cfg(feature = "postgres")]
        Place::Postgres(url) => super::postgres::copy::export(url, &mut out)?,
        #[cfg(not(feature = "postgres"))]
        Place::Postgres(_) => return Err(super::place::without()),
    }
    let (rows, jobs) = out.finish()?;
    Ok(Summary { rows, jobs, settings })
}

/// A backup that was found whole.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    summary: Summary,
}

impl Backup {
    /// Reads a backup through and compares its checksum.
    ///
    /// # Errors
    /// When it cannot be read, is none, is damaged or cut short, or was made by a newer program.
    pub fn check(path: &Path) -> Result<Backup> {
        let bad = |what: &str| Error::new(ErrorCode::Malformed, format!("{}: {what}", path.display()));
        let mut lines = Lines::open(path)?;
        let head =
            lines.next()?.and_then(|line| serde_json::from_slice::<Json>(line).ok()).unwrap_or_default();
        let format = head["pushy_backup"].as_u64().ok_or_else(|| bad("not a backup of pushy-server"))?;
        let schema = head["schema"].as_u64().unwrap_or(0);
        if format > FORMAT || schema > MIGRATIONS.len() as u64 {
            return Err(bad("made by a newer program; restore it with that one"));
        }
        let mut hash = Sha256::new();
        hash.update(&lines.last);
        let (mut rows, mut jobs, mut in_jobs) = (0, 0, false);
        let end = loop {
            let line = lines.next()?.ok_or_else(|| bad("cut short"))?;
            match line.first() {
                Some(b'[') => {
                    rows += 1;
                    jobs += u64::from(in_jobs);
                }
                _ if line.starts_with(b"{\"table\"") => in_jobs = line.starts_with(b"{\"table\":\"jobs\"}"),
                _ => break serde_json::from_slice::<Json>(line).map_err(|_| bad("damaged"))?,
            }
            hash.update(line);
        };
        let hash: String = hash.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        if end["sha256"].as_str() != Some(&hash) || end["rows"].as_u64() != Some(rows) {
            return Err(bad("damaged: the checksum is another"));
        }
        let settings = head["settings"].as_str().unwrap_or_default().to_owned();
        Ok(Backup { path: path.to_owned(), summary: Summary { rows, jobs, settings } })
    }

    /// What it holds.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Puts everything into an empty database, in one transaction. Jobs that were unfinished are `crashed`: nobody
    /// knows what became of them, and nobody may run them again.
    ///
    /// # Errors
    /// When the database cannot be written, or is not empty.
    pub fn fill(&self, place: &Place) -> Result<()> {
        match place {
            Place::Sqlite(path) => sqlite::import(path, &mut |each| self.chunks(each)),
            #[cfg(feature = "postgres")]
            Place::Postgres(url) => super::postgres::copy::import(url, self),
            #[cfg(not(feature = "postgres"))]
            Place::Postgres(_) => Err(super::place::without()),
        }
    }

    /// The rows, in pieces, with the table of each.
    pub(super) fn chunks(
        &self,
        each: &mut dyn FnMut(&'static Table, Vec<Vec<Value<'static>>>) -> Result<()>,
    ) -> Result<()> {
        let bad = |number: usize| {
            let text = format!("{}:{number}: not a row of its table", self.path.display());
            Error::new(ErrorCode::Malformed, text)
        };
        let mut lines = Lines::open(&self.path)?;
        let mut table: Option<&'static Table> = None;
        let mut chunk = Vec::new();
        let mut number = 0;
        while let Some(line) = lines.next()? {
            number += 1;
            let document: Json = serde_json::from_slice(line).map_err(|_| bad(number))?;
            match (&document, table) {
                (Json::Array(values), Some(table)) => {
                    chunk.push(read_row(table, values).ok_or_else(|| bad(number))?);
                    if chunk.len() == CHUNK {
                        each(table, std::mem::take(&mut chunk))?;
                    }
                }
                (document, before) => {
                    if let Some(table) = before.filter(|_| !chunk.is_empty()) {
                        each(table, std::mem::take(&mut chunk))?;
                    }
                    if let Some(name) = document["table"].as_str() {
                        table = Some(TABLES.iter().find(|t| t.name == name).ok_or_else(|| bad(number))?);
                    }
                }
            }
        }
        Ok(())
    }
}

fn read_row(table: &Table, values: &[Json]) -> Option<Vec<Value<'static>>> {
    // An older program did not have the last columns yet.
    if values.len() > table.columns.len() {
        return None;
    }
    let read = |(value, (_, kind)): (&Json, &(&str, Kind))| {
        Some(match (value, kind) {
            (Json::Null, _) => Value::Null,
            (Json::String(text), Kind::Text) => Value::from(text.clone()),
            (Json::Number(number), Kind::Int) => Value::Int(number.as_i64()?),
            (Json::String(text), Kind::Bytes) => Value::Bytes(BASE64.decode(text).ok()?.into()),
            _ => return None,
        })
    };
    let missing = std::iter::repeat_n(Some(Value::Null), table.columns.len() - values.len());
    values.iter().zip(table.columns).map(read).chain(missing).collect()
}

/// What is said after the rows are in: nothing that was restored goes on (decision 5).
pub(super) fn settle() -> [Statement<'static>; 2] {
    [
        Statement {
            sql: "UPDATE job_nodes SET status = ?1, reason_code = ?3, reason_text = ?4 WHERE status = ?2
                  AND job_id IN (SELECT id FROM jobs WHERE status IN (0, 1, 5))",
            values: vec![
                NodeStatus::Crashed.code().into(),
                NodeStatus::Running.code().into(),
                ReasonCode::ServerGaveUp.as_str().into(),
                "the job was running when its server was backed up".into(),
            ],
            must_change: false,
        },
        Statement {
            sql: "UPDATE jobs SET status = ?1, deadline = NULL WHERE status IN (0, 1, 5)",
            values: vec![JobStatus::Crashed.code().into()],
            must_change: false,
        },
    ]
}

/// Lines of a file, one in memory at a time.
struct Lines {
    file: BufReader<File>,
    path: PathBuf,
    last: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines> {
        let file = File::open(path).map_err(|e| io(path, &e))?;
        Ok(Lines { file: BufReader::new(file), path: path.to_owned(), last: Vec::new() })
    }

    fn next(&mut self) -> Result<Option<&[u8]>> {
        self.last.clear();
        let read = self.file.read_until(b'\n', &mut self.last).map_err(|e| io(&self.path, &e))?;
        Ok((read > 0).then_some(self.last.as_slice()))
    }
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    crate::files::io(path, error)
}
