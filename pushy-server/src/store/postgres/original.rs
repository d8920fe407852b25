//! Jobs out of the database of an original push jobs server (9.1).

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::Receiver;

use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::{Job, JobOptions, JobStatus, NodeStatus};
use pushy_core::server::{Record, Ticket};
use pushy_core::time::Wall;
use pushy_core::{Error, Result};
use serde_json::Value as Json;

use super::address::Address;
use super::copy::wait;
use super::session::{Fail, Session};
use super::snapshot;
use crate::store::sql::{Columns, Value, closed, storage, unfit};
use crate::store::{Saved, Store};

/// Ids are compared as the columns are: the index serves.
const JOBS: &str = "SELECT j.id::text, j.org_id::text, j.command, j.status::bigint,
    COALESCE(j.run_timeout, 3600)::bigint, COALESCE(j.quorum, 0)::bigint,
    (EXTRACT(EPOCH FROM j.created_at) * 1000000)::bigint, (EXTRACT(EPOCH FROM j.updated_at) * 1000000)::bigint,
    rtrim(o.job_user), rtrim(o.dir), o.env, o.job_file, COALESCE(o.capture, false)::int::bigint
    FROM jobs j LEFT JOIN job_options o ON o.job_id = j.id
    WHERE j.id > (?1::text)::bpchar ORDER BY j.id LIMIT 200";
const NODES: &str = "SELECT job_id::text, node_name, status::bigint FROM job_nodes
    WHERE job_id > (?1::text)::bpchar AND job_id <= (?2::text)::bpchar ORDER BY job_id, node_name";
const OUTPUT: &str = "SELECT job_id::text, node_name, stdout, stderr FROM job_output
    WHERE job_id > (?1::text)::bpchar AND job_id <= (?2::text)::bpchar";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many jobs of each organization.
    pub(crate) jobs: BTreeMap<OrgId, u64>,
    /// What could not be taken, each with its reason.
    pub(crate) skipped: Vec<String>,
}

/// Copies every job with nodes and output into a store whose answers come through `answers`. A job that the store has
/// is left as it is. `to`: organizations that have another id here.
///
/// # Errors
/// When either database fails; what was copied by then stays.
pub(crate) fn import(
    url: &str,
    store: &dyn Store,
    answers: &Receiver<Saved>,
    to: &HashMap<OrgId, OrgId>,
) -> Result<Found> {
    let address = Address::parse(url)?;
    let (give, take) = std::sync::mpsc::sync_channel::<Vec<Record>>(2);
    let read = async move {
        let session = Session::open(&address, 2_000).await?;
        snapshot(&address, &session, true).await.map_err(Fail::error)?;
        let mut found = Found::default();
        let mut after = String::new();
        loop {
            let failed = |e: tokio_postgres::Error| address.failed(&e);
            let rows = session.rows(JOBS, &[after.as_str().into()]).await.map_err(failed)?;
            let Some(last) = rows.last() else { return Ok(found) };
            let range = [Value::from(after.clone()), last.string(0)?.into()];
            let nodes = session.rows(NODES, &range).await.map_err(failed)?;
            let output = session.rows(OUTPUT, &range).await.map_err(failed)?;
            let records = page(&rows, &nodes, &output, to, &mut found)?;
            if give.send(records).is_err() {
                // Whoever writes has given up, and says why.
                return Ok(found);
            }
            after = last.string(0)?;
        }
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| wait(read));
        let mut written = Ok(());
        for (number, records) in (1u64..).zip(take) {
            store.save(Ticket(number), records);
            match answers.recv().map_err(|_| closed())? {
                Saved::Kept(_) => {}
                Saved::Failed(_, error) => {
                    written = Err(error);
                    break;
                }
            }
        }
        let found = reader.join().map_err(|_| storage("a thread of the store ended in a panic"))?;
        written?;
        found
    })
}

fn page<R: Columns>(
    jobs: &[R],
    nodes: &[R],
    output: &[R],
    to: &HashMap<OrgId, OrgId>,
    found: &mut Found,
) -> Result<Vec<Record>> {
    let mut of_job: HashMap<String, Vec<&R>> = HashMap::new();
    for row in nodes {
        of_job.entry(row.string(0)?).or_default().push(row);
    }
    let mut printed: HashMap<String, Vec<&R>> = HashMap::new();
    for row in output {
        printed.entry(row.string(0)?).or_default().push(row);
    }
    let mut records = Vec::new();
    for row in jobs {
        let id = row.string(0)?;
        let none = Vec::new();
        match job(row, of_job.get(&id).unwrap_or(&none), to) {
            Ok(job) => {
                *found.jobs.entry(job.org.clone()).or_default() += 1;
                let id = job.id.clone();
                let kept = job.nodes.clone();
                records.push(Record::NewJob(Box::new(job)));
                for row in printed.get(id.as_str()).unwrap_or(&none) {
                    let name = row.string(1)?;
                    if let Some((node, _)) = kept.iter().find(|(node, _)| node.as_str() == name) {
                        let (stdout, stderr) = (row.string(2)?.into_bytes(), row.string(3)?.into_bytes());
                        records.push(Record::Output { job: id.clone(), node: node.clone(), stdout, stderr });
                    }
                }
            }
            Err(e) => found.skipped.push(format!("job {id}: {}", e.message())),
        }
    }
    Ok(records)
}

fn job<R: Columns>(row: &R, nodes: &[&R], to: &HashMap<OrgId, OrgId>) -> Result<Job> {
    let org = row.id(1, OrgId::new)?;
    let stored = JobStatus::from_code(row.number(3)?).ok_or_else(|| unfit(3))?;
    let gone = !stored.is_terminal();
    let number = |column| u32::try_from(row.number(column)?).map_err(|_| unfit(column));
    let mut list = Vec::with_capacity(nodes.len());
    for row in nodes {
        let status = NodeStatus::from_code(row.number(2)?).ok_or_else(|| unfit(2))?;
        // What ran when the original server was last seen (6.9).
        let crashed = gone && status == NodeStatus::Running;
        list.push((row.id(1, NodeName::new)?, if crashed { NodeStatus::Crashed } else { status }));
    }
    Ok(Job {
        id: row.id(0, JobId::new)?,
        org: to.get(&org).cloned().unwrap_or(org),
        command: row.string(2)?,
        status: if gone { JobStatus::Crashed } else { stored },
        run_timeout: number(4)?,
        quorum: number(5)?,
        // The original keeps no requester (6.8).
        requester: String::new(),
        created_at: Wall(row.number(6)?),
        updated_at: if gone { crate::clock::wall() } else { Wall(row.number(7)?) },
        deadline: None,
        options: JobOptions {
            user: row.text(8)?,
            dir: row.text(9)?,
            env: row.text(10)?.map(|text| env(&text)).transpose()?,
            file: row.text(11)?,
            capture: row.number(12)? != 0,
            parameters: None,
        },
        nodes: list,
        reasons: BTreeMap::new(),
    })
}

/// `env` is a JSON object there.
fn env(text: &str) -> Result<Vec<(String, String)>> {
    let bad = || -> Error { storage("env is no JSON object") };
    let document: Json = serde_json::from_str(text).map_err(|_| bad())?;
    let pairs = document.as_object().ok_or_else(bad)?.iter();
    Ok(pairs
        .map(|(name, value)| match value {
            Json::String(text) => (name.clone(), text.clone()),
            other => (name.clone(), other.to_string()),
        })
        .collect())
}
