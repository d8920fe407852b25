//! Jobs, output and bindings as rows.

use pushy_core::feed::Frame;
use pushy_core::ids::{JobId, NodeName, NodeRef, OrgId, OrgName};
use pushy_core::job::{Job, JobOptions, JobStatus, NodeStatus};
use pushy_core::server::{Binding, CurveKey, FeedEnd, Record};
use pushy_core::time::Wall;
use pushy_core::wire::SessionKey;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{JobOutput, KeptFeed};

/// Applies one record.
///
/// # Errors
/// Also when the record changes something that is not there: its transaction must not pass for kept.
pub(super) fn save(c: &Connection, record: &Record) -> rusqlite::Result<()> {
    let changed = match record {
        Record::NewJob(job) => return new_job(c, job),
        Record::JobStatus { job, status, updated_at, deadline } => c
            .prepare_cached("UPDATE jobs SET status = ?2, updated_at = ?3, deadline = ?4 WHERE id = ?1")?
            .execute(params![job.as_str(), status.code(), updated_at.0, deadline.map(|at| at.0)])?,
        Record::NodeStatus { job, node, status, updated_at } => c
            .prepare_cached(
                "UPDATE job_nodes SET status = ?3, updated_at = ?4 WHERE job_id = ?1 AND node_name = ?2",
            )?
            .execute(params![job.as_str(), node.as_str(), status.code(), updated_at.0])?,
        Record::Output { job, node, stdout, stderr } => {
            // The first output stays (D-18).
            return c
                .prepare_cached(
                    "INSERT INTO job_output (job_id, node_name, stdout, stderr) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![job.as_str(), node.as_str(), stdout, stderr])
                .map(|_| ());
        }
        Record::Feed { job, first, frames, at } => return save_feed(c, job, *first, frames, *at),
        Record::Binding(binding) => return save_binding(c, binding),
        Record::BindingEnded { node, key } => {
            return c
                .prepare_cached(
                    "DELETE FROM bindings WHERE org_id = ?1 AND node_name = ?2 AND curve_key = ?3",
                )?
                .execute(params![node.org.as_str(), node.node.as_str(), &key.0[..]])
                .map(|_| ());
        }
    };
    if changed == 0 { Err(rusqlite::Error::QueryReturnedNoRows) } else { Ok(()) }
}

fn new_job(c: &Connection, job: &Job) -> rusqlite::Result<()> {
    // A repeat after a doubtful commit changes nothing: ids are random.
    c.prepare_cached(
        "INSERT INTO jobs (id, org_id, command, status, run_timeout, quorum, requester, created_at, updated_at, deadline)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        job.id.as_str(),
        job.org.as_str(),
        job.command,
        job.status.code(),
        job.run_timeout,
        job.quorum,
        job.requester,
        job.created_at.0,
        job.updated_at.0,
        job.deadline.map(|at| at.0),
    ])?;
    let options = &job.options;
    if *options != JobOptions::default() {
        let env = options.env.as_ref().map(|env| serde_json::to_string(env).unwrap_or_default());
        c.prepare_cached(
            "INSERT INTO job_options (job_id, job_user, dir, env, job_file, capture)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            job.id.as_str(),
            options.user,
            options.dir,
            env,
            options.file,
            options.capture
        ])?;
    }
    let mut insert = c.prepare_cached(
        "INSERT INTO job_nodes (job_id, node_name, position, status, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
    )?;
    for (position, (node, status)) in job.nodes.iter().enumerate() {
        insert.execute(params![
            job.id.as_str(),
            node.as_str(),
            position as i64,
            status.code(),
            job.updated_at.0
        ])?;
    }
    Ok(())
}

fn save_feed(c: &Connection, job: &JobId, first: u64, frames: &[Frame], at: Wall) -> rusqlite::Result<()> {
    let bytes = frames.iter().map(Frame::as_bytes).collect::<Vec<_>>().concat();
    let last = first + frames.len().saturating_sub(1) as u64;
    // A repeat after a doubtful commit may have grown.
    c.prepare_cached(
        "INSERT INTO job_feeds (job_id, first, last, at, frames) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (job_id, first) DO UPDATE SET last = excluded.last, at = excluded.at, frames = excluded.frames",
    )?
    .execute(params![job.as_str(), first as i64, last as i64, at.0, bytes])
    .map(|_| ())
}

fn save_binding(c: &Connection, binding: &Binding) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT INTO bindings (org_id, org_name, node_name, curve_key, session_key, fetched_at, active)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (org_id, node_name, curve_key) DO UPDATE SET org_name = excluded.org_name,
         session_key = excluded.session_key, fetched_at = excluded.fetched_at, active = excluded.active",
    )?
    .execute(params![
        binding.node.org.as_str(),
        binding.org_name.as_str(),
        binding.node.node.as_str(),
        &binding.key.0[..],
        &binding.session.0[..],
        binding.fetched_at.0,
        binding.active,
    ])
    .map(|_| ())
}

const JOB: &str =
    "SELECT j.id, j.org_id, j.command, j.status, j.run_timeout, j.quorum, j.requester, j.created_at,
    j.updated_at, j.deadline, o.job_user, o.dir, o.env, o.job_file, o.capture
    FROM jobs j LEFT JOIN job_options o ON o.job_id = j.id";

/// The list leaves files out: a page of jobs must not weigh 100 KB each.
const LISTED: &str = "SELECT j.id, j.org_id, j.command, j.status, j.run_timeout, j.quorum, j.requester, j.created_at,
    j.updated_at, j.deadline, o.job_user, o.dir, o.env, CASE WHEN o.job_file IS NULL THEN NULL ELSE '' END, o.capture
    FROM jobs j LEFT JOIN job_options o ON o.job_id = j.id
    WHERE j.org_id = ?1 ORDER BY j.created_at, j.id";

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let env: Option<String> = row.get(12)?;
    let env = env.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| bad(12, Type::Text, e))?;
    let deadline: Option<i64> = row.get(9)?;
    Ok(Job {
        id: id(row, 0, JobId::new)?,
        org: id(row, 1, OrgId::new)?,
        command: row.get(2)?,
        status: code(row, 3, JobStatus::from_code)?,
        run_timeout: row.get(4)?,
        quorum: row.get(5)?,
        requester: row.get(6)?,
        created_at: Wall(row.get(7)?),
        updated_at: Wall(row.get(8)?),
        deadline: deadline.map(Wall),
        options: JobOptions {
            user: row.get(10)?,
            dir: row.get(11)?,
            env,
            file: row.get(13)?,
            capture: row.get::<_, Option<bool>>(14)?.unwrap_or(false),
        },
        nodes: Vec::new(),
    })
}

fn read_nodes(c: &Connection, job: &mut Job) -> rusqlite::Result<()> {
    let mut statement =
        c.prepare_cached("SELECT node_name, status FROM job_nodes WHERE job_id = ?1 ORDER BY position")?;
    let found = statement.query_map(params![job.id.as_str()], |row| {
        Ok((id(row, 0, NodeName::new)?, code(row, 1, NodeStatus::from_code)?))
    })?;
    job.nodes = found.collect::<rusqlite::Result<_>>()?;
    Ok(())
}

pub(super) fn jobs(c: &Connection, org: &OrgId) -> rusqlite::Result<Vec<Job>> {
    c.prepare_cached(LISTED)?.query_map(params![org.as_str()], read_job)?.collect()
}

pub(super) fn job(c: &Connection, org: &OrgId, id: &JobId) -> rusqlite::Result<Option<Job>> {
    // One snapshot, so that the job's status and its nodes' fit together.
    let snapshot = c.unchecked_transaction()?;
    let sql = format!("{JOB} WHERE j.id = ?1 AND j.org_id = ?2");
    let found =
        snapshot.prepare_cached(&sql)?.query_row(params![id.as_str(), org.as_str()], read_job).optional()?;
    let Some(mut job) = found else { return Ok(None) };
    read_nodes(&snapshot, &mut job)?;
    Ok(Some(job))
}

pub(super) fn unfinished(c: &Connection) -> rusqlite::Result<Vec<Job>> {
    let codes: Vec<String> =
        JobStatus::ALL.iter().filter(|s| !s.is_terminal()).map(|s| s.code().to_string()).collect();
    let sql = format!("{JOB} WHERE j.status IN ({}) ORDER BY j.created_at, j.id", codes.join(", "));
    let mut jobs: Vec<Job> = c.prepare(&sql)?.query_map([], read_job)?.collect::<rusqlite::Result<_>>()?;
    for job in &mut jobs {
        read_nodes(c, job)?;
    }
    Ok(jobs)
}

pub(super) fn feed_ends(c: &Connection) -> rusqlite::Result<Vec<FeedEnd>> {
    let mut statement = c.prepare("SELECT job_id, MAX(last), MAX(at) FROM job_feeds GROUP BY job_id")?;
    let found = statement.query_map([], |row| {
        let last: i64 = row.get(1)?;
        Ok(FeedEnd { job: id(row, 0, JobId::new)?, last: last.max(0) as u64, at: Wall(row.get(2)?) })
    })?;
    found.collect()
}

pub(super) fn feeds(c: &Connection) -> rusqlite::Result<Vec<KeptFeed>> {
    let mut statement = c.prepare(
        "SELECT f.job_id, j.org_id, f.frames FROM job_feeds f JOIN jobs j ON j.id = f.job_id
         ORDER BY f.job_id, f.first",
    )?;
    let mut rows = statement.query([])?;
    let mut feeds: Vec<KeptFeed> = Vec::new();
    while let Some(row) = rows.next()? {
        let job = id(row, 0, JobId::new)?;
        let frames: Vec<u8> = row.get(2)?;
        let frames = Frame::split(&frames);
        match feeds.last_mut() {
            Some(feed) if feed.job == job => feed.frames.extend(frames),
            _ => feeds.push(KeptFeed { org: id(row, 1, OrgId::new)?, job, frames }),
        }
    }
    Ok(feeds)
}

pub(super) fn forget_feeds(c: &mut Connection, jobs: &[JobId]) -> rusqlite::Result<()> {
    let transaction = c.transaction()?;
    for job in jobs {
        transaction.prepare_cached("DELETE FROM job_feeds WHERE job_id = ?1")?.execute([job.as_str()])?;
    }
    transaction.commit()
}

pub(super) fn output(
    c: &Connection,
    org: &OrgId,
    job: &JobId,
    node: &NodeName,
) -> rusqlite::Result<Option<JobOutput>> {
    c.prepare_cached(
        "SELECT o.stdout, o.stderr FROM job_output o JOIN jobs j ON j.id = o.job_id
         WHERE o.job_id = ?1 AND o.node_name = ?2 AND j.org_id = ?3",
    )?
    .query_row(params![job.as_str(), node.as_str(), org.as_str()], |row| {
        Ok(JobOutput { stdout: row.get(0)?, stderr: row.get(1)? })
    })
    .optional()
}

pub(super) fn bindings(c: &Connection) -> rusqlite::Result<Vec<Binding>> {
    let mut statement = c.prepare(
        "SELECT org_id, org_name, node_name, curve_key, session_key, fetched_at, active FROM bindings
         ORDER BY fetched_at",
    )?;
    let found = statement.query_map([], |row| {
        Ok(Binding {
            node: NodeRef { org: id(row, 0, OrgId::new)?, node: id(row, 2, NodeName::new)? },
            org_name: id(row, 1, OrgName::new)?,
            key: CurveKey(row.get(3)?),
            session: SessionKey(row.get(4)?),
            fetched_at: Wall(row.get(5)?),
            active: row.get(6)?,
        })
    })?;
    found.collect()
}

/// Reads a column as one of the core's names.
pub(super) fn id<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl Fn(&str) -> pushy_core::Result<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).map_err(|e| bad(column, Type::Text, e))
}

fn code<T>(row: &Row<'_>, column: usize, parse: impl Fn(i64) -> Option<T>) -> rusqlite::Result<T> {
    let code: i64 = row.get(column)?;
    parse(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, code))
}

fn bad(column: usize, kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}
