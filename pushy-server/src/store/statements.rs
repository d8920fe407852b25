//! What is said to the database, the same words for SQLite and PostgreSQL.

use std::borrow::Cow;

use pushy_core::Result;
use pushy_core::feed::Frame;
use pushy_core::ids::{JobId, NodeName, OrgId, OrgName};
use pushy_core::job::{Job, JobOptions};
use pushy_core::node_document::Fixed;
use pushy_core::reason::Reason;
use pushy_core::server::{Binding, FeedEnd, Record};
use pushy_core::time::Wall;

use super::sql::{Columns, Statement, Value};
use super::{JobFilter, KeptFeed, Prune};
use crate::directory::{Change, Directory, Member, PrincipalId};
use crate::nodes::Published;

/// A job with its options; columns as `read_job` wants them.
pub(super) const JOB: &str =
    "SELECT j.id, j.org_id, j.command, j.status, j.run_timeout, j.quorum, j.requester,
    j.created_at, j.updated_at, j.deadline, o.job_user, o.dir, o.env, o.job_file, o.capture, o.parameters
    FROM jobs j LEFT JOIN job_options o ON o.job_id = j.id WHERE j.id = ?1 AND j.org_id = ?2";

/// Jobs that a start goes on with; the codes are those of the index `jobs_unfinished`.
pub(super) const UNFINISHED: &str = "SELECT j.id, j.org_id, j.command, j.status, j.run_timeout, j.quorum, j.requester,
    j.created_at, j.updated_at, j.deadline, o.job_user, o.dir, o.env, o.job_file, o.capture, o.parameters
    FROM jobs j LEFT JOIN job_options o ON o.job_id = j.id WHERE j.status IN (0, 1, 5) ORDER BY j.created_at, j.id";

/// The list leaves files out: a page of jobs must not weigh 100 KB each.
const LISTED: &str = "SELECT j.id, j.org_id, j.command, j.status, j.run_timeout, j.quorum, j.requester,
    j.created_at, j.updated_at, j.deadline, o.job_user, o.dir, o.env,
    CASE WHEN o.job_file IS NULL THEN NULL ELSE '' END, o.capture, o.parameters
    FROM jobs j LEFT JOIN job_options o ON o.job_id = j.id WHERE j.org_id = ?1";

/// The nodes of a job, in the order asked for.
pub(super) const NODES: &str =
    "SELECT node_name, status, reason_code, reason_text FROM job_nodes WHERE job_id = ?1 ORDER BY position";

/// What a node printed.
pub(super) const OUTPUT: &str = "SELECT o.stdout, o.stderr FROM job_output o JOIN jobs j ON j.id = o.job_id
    WHERE o.job_id = ?1 AND o.node_name = ?2 AND j.org_id = ?3";

/// Every binding, oldest first.
pub(super) const BINDINGS: &str = "SELECT org_id, org_name, node_name, curve_key, session_key, fetched_at, active FROM bindings ORDER BY fetched_at";

/// Where each feed that is kept stands.
pub(super) const FEED_ENDS: &str = "SELECT job_id, MAX(last), MAX(at) FROM job_feeds GROUP BY job_id";
/// Every feed that is kept, in pieces; see [`join_feeds`].
pub(super) const FEEDS: &str =
    "SELECT f.job_id, j.org_id, f.frames FROM job_feeds f JOIN jobs j ON j.id = f.job_id
    ORDER BY f.job_id, f.first";
/// A feed ends.
pub(super) const FORGET_FEED: &str = "DELETE FROM job_feeds WHERE job_id = ?1";

/// Where a job is in the list.
pub(super) const PLACE: &str = "SELECT created_at, id FROM jobs WHERE id = ?1 AND org_id = ?2";

/// The database's identity.
pub(super) const IDENTITY: &str = "SELECT store_id, generation FROM identity";
/// Gives a new database its identity.
pub(super) const NEW_IDENTITY: &str = "INSERT INTO identity (store_id, generation) VALUES (?1, 0)";
/// Notes a start.
pub(super) const GENERATION: &str = "UPDATE identity SET generation = ?1";

/// One row of `job_nodes` of a new job.
pub(super) const NEW_NODE: &str = "INSERT INTO job_nodes (job_id, node_name, position, status, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";

/// The newest finished job that a rule of number lets go.
pub(super) const SURPLUS: &str = "SELECT updated_at, id FROM jobs WHERE status NOT IN (0, 1, 5)
    ORDER BY updated_at DESC, id DESC LIMIT 1 OFFSET ?1";
/// The oldest finished jobs up to a place, with their number of nodes.
pub(super) const OLDEST: &str =
    "SELECT j.id, (SELECT COUNT(*) FROM job_nodes n WHERE n.job_id = j.id) FROM jobs j
    WHERE j.status NOT IN (0, 1, 5) AND (j.updated_at < ?1 OR (j.updated_at = ?1 AND j.id <= ?2))
    ORDER BY j.updated_at, j.id LIMIT 100";
/// Some output of a job.
pub(super) const DELETE_OUTPUT: &str = "DELETE FROM job_output WHERE job_id = ?1 AND node_name IN
    (SELECT node_name FROM job_output WHERE job_id = ?1 ORDER BY node_name LIMIT 200)";
/// A job with everything of it.
pub(super) const DELETE_JOB: &str = "DELETE FROM jobs WHERE id = ?1";
/// A deletion touches about so many nodes' rows at most before others may write.
pub(super) const PRUNE_NODES: i64 = 500;

/// Work of the writer that is no record of a job.
#[derive(Debug)]
pub(super) enum Task {
    /// Changes of the directory.
    Change(Vec<Change>),
    /// One more start.
    Generation(u64),
    /// A batch of old jobs goes.
    Prune(Prune),
    /// Feeds end.
    ForgetFeeds(Vec<JobId>),
}

/// Where the answer to a [`Task`] goes: how much was deleted, or 0.
pub(super) type Reply = Box<dyn FnOnce(Result<u64>) + Send>;

/// Says in the log when [`Task::ForgetFeeds`] failed.
pub(super) fn forgotten() -> Reply {
    Box::new(|result| {
        if let Err(e) = result {
            tracing::warn!("feeds that ended stay in the database: {e}");
        }
    })
}

/// The statements of a record, in order. The nodes of a new job come as [`NEW_NODE`], one for each.
pub(super) fn of_record<'a>(record: &'a Record, each: &mut dyn FnMut(Statement<'a>)) {
    let (sql, values, must_change) = match record {
        Record::NewJob(job) => return new_job(job, each),
        Record::JobStatus { job, status, updated_at, deadline } => (
            "UPDATE jobs SET status = ?2, updated_at = ?3, deadline = ?4 WHERE id = ?1",
            vec![job.as_str().into(), status.code().into(), updated_at.0.into(), time(*deadline)],
            true,
        ),
        Record::NodeStatus { job, node, status, updated_at, reason } => (
            "UPDATE job_nodes SET status = ?3, updated_at = ?4, reason_code = ?5, reason_text = ?6
             WHERE job_id = ?1 AND node_name = ?2",
            vec![
                job.as_str().into(),
                node.as_str().into(),
                status.code().into(),
                updated_at.0.into(),
                Value::opt(reason.as_ref().map(|reason| reason.code().as_str())),
                Value::opt(reason.as_ref().map(Reason::text)),
            ],
            true,
        ),
        // The first output stays (D-18).
        Record::Output { job, node, stdout, stderr } => (
            "INSERT INTO job_output (job_id, node_name, stdout, stderr) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            vec![job.as_str().into(), node.as_str().into(), stdout[..].into(), stderr[..].into()],
            false,
        ),
        // A repeat after a doubtful commit may have grown.
        Record::Feed { job, first, frames, at } => (
            "INSERT INTO job_feeds (job_id, first, last, at, frames) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (job_id, first) DO UPDATE SET last = excluded.last, at = excluded.at, frames = excluded.frames",
            vec![
                job.as_str().into(),
                (*first as i64).into(),
                ((first + frames.len().saturating_sub(1) as u64) as i64).into(),
                at.0.into(),
                Value::Bytes(Cow::Owned(frames.iter().map(Frame::detailed).collect::<Vec<_>>().concat())),
            ],
            false,
        ),
        Record::Binding(binding) => (BIND, binding_values(binding), false),
        Record::BindingEnded { node, key } => (
            "DELETE FROM bindings WHERE org_id = ?1 AND node_name = ?2 AND curve_key = ?3",
            vec![node.org.as_str().into(), node.node.as_str().into(), key.0[..].into()],
            false,
        ),
    };
    each(Statement { sql, values, must_change });
}

const BIND: &str =
    "INSERT INTO bindings (org_id, org_name, node_name, curve_key, session_key, fetched_at, active)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
     ON CONFLICT (org_id, node_name, curve_key) DO UPDATE SET org_name = excluded.org_name,
     session_key = excluded.session_key, fetched_at = excluded.fetched_at, active = excluded.active";

fn binding_values(binding: &Binding) -> Vec<Value<'_>> {
    vec![
        binding.node.org.as_str().into(),
        binding.org_name.as_str().into(),
        binding.node.node.as_str().into(),
        binding.key.0[..].into(),
        binding.session.0[..].into(),
        binding.fetched_at.0.into(),
        i64::from(binding.active).into(),
    ]
}

fn time(at: Option<Wall>) -> Value<'static> {
    at.map_or(Value::Null, |at| Value::Int(at.0))
}

fn new_job<'a>(job: &'a Job, each: &mut dyn FnMut(Statement<'a>)) {
    let mut add = |sql, values| each(Statement { sql, values, must_change: false });
    // A repeat after a doubtful commit changes nothing: ids are random.
    add(
        "INSERT INTO jobs (id, org_id, command, status, run_timeout, quorum, requester, created_at, updated_at, deadline)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
        vec![
            job.id.as_str().into(),
            job.org.as_str().into(),
            job.command.as_str().into(),
            job.status.code().into(),
            i64::from(job.run_timeout).into(),
            i64::from(job.quorum).into(),
            job.requester.as_str().into(),
            job.created_at.0.into(),
            job.updated_at.0.into(),
            time(job.deadline),
        ],
    );
    let options = &job.options;
    if *options != JobOptions::default() {
        let pairs = |pairs: &Option<Vec<(String, String)>>| {
            let text = pairs.as_ref().map(|pairs| serde_json::to_string(pairs).unwrap_or_default());
            text.map_or(Value::Null, Value::from)
        };
        add(
            "INSERT INTO job_options (job_id, job_user, dir, env, job_file, capture, parameters)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            vec![
                job.id.as_str().into(),
                Value::opt(options.user.as_deref()),
                Value::opt(options.dir.as_deref()),
                pairs(&options.env),
                Value::opt(options.file.as_deref()),
                i64::from(options.capture).into(),
                pairs(&options.parameters),
            ],
        );
    }
    for (position, (node, status)) in job.nodes.iter().enumerate() {
        add(
            NEW_NODE,
            vec![
                job.id.as_str().into(),
                node.as_str().into(),
                (position as i64).into(),
                status.code().into(),
                job.updated_at.0.into(),
            ],
        );
    }
}

/// The statement of a job list: oldest first, or with a limit newest first. `place`: only what is before it.
pub(super) fn list<'a>(
    org: &'a OrgId,
    filter: &'a JobFilter,
    place: Option<&'a (i64, String)>,
) -> (String, Vec<Value<'a>>) {
    let mut sql = LISTED.to_owned();
    let mut values: Vec<Value<'a>> = vec![org.as_str().into()];
    let mut and = |condition: &str, more: Vec<Value<'a>>| {
        let mut condition = condition.to_owned();
        for value in more {
            values.push(value);
            condition = condition.replacen("?#", &format!("?{}", values.len()), 1);
        }
        sql.push_str(&condition);
    };
    if let Some(status) = filter.status {
        and(" AND j.status = ?#", vec![status.code().into()]);
    }
    if let Some(user) = &filter.user {
        and(" AND j.requester = ?#", vec![user.as_str().into()]);
    }
    if let Some(command) = &filter.command {
        // To find it by the index; what databases count in texts with such characters differs.
        if !command.contains(['\0', '\u{1a}']) {
            let start: String = command.chars().take(100).collect();
            and(" AND substr(j.command, 1, 100) = ?#", vec![start.into()]);
        }
        and(" AND j.command = ?#", vec![command.as_str().into()]);
    }
    if let Some(node) = &filter.node {
        and(
            " AND j.id IN (SELECT n.job_id FROM job_nodes n WHERE n.node_name = ?#)",
            vec![node.as_str().into()],
        );
    }
    if let Some((at, id)) = place {
        and(" AND (j.created_at, j.id) < (?#, ?#)", vec![(*at).into(), id.as_str().into()]);
    }
    match filter.limit {
        Some(limit) => {
            and(" ORDER BY j.created_at DESC, j.id DESC LIMIT ?#", vec![i64::from(limit).into()]);
        }
        None => and(" ORDER BY j.created_at, j.id", Vec::new()),
    }
    (sql, values)
}

/// The statements of a change of the directory, in order.
pub(super) fn of_change<'a>(change: &'a Change, each: &mut dyn FnMut(Statement<'a>)) {
    let mut add = |sql, values| each(Statement { sql, values, must_change: false });
    match change {
        Change::AddOrg { name, id } => add(
            "INSERT INTO organizations (name, guid) VALUES (?1, ?2)",
            vec![name.as_str().into(), id.as_str().into()],
        ),
        Change::RemoveOrg { name } => {
            add("DELETE FROM principals WHERE org = ?1", vec![name.as_str().into()]);
            add("DELETE FROM organizations WHERE name = ?1", vec![name.as_str().into()]);
        }
        Change::PutPrincipal { id, public_key } => {
            let who = || vec![id.kind().as_str().into(), org_text(id), id.name.as_str().into()];
            add("INSERT INTO principals (kind, org, name) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING", who());
            add("DELETE FROM principal_keys WHERE kind = ?1 AND org = ?2 AND name = ?3", who());
            let mut values = who();
            values.push(public_key.as_str().into());
            add(
                "INSERT INTO principal_keys (kind, org, name, key_name, public_key) VALUES (?1, ?2, ?3, 'default', ?4)",
                values,
            );
        }
        Change::RemovePrincipal { id } => {
            let who = || vec![id.kind().as_str().into(), org_text(id), id.name.as_str().into()];
            add("DELETE FROM principals WHERE kind = ?1 AND org = ?2 AND name = ?3", who());
            match &id.org {
                None => {
                    add("DELETE FROM org_users WHERE user_name = ?1", vec![id.name.as_str().into()]);
                    add(
                        "DELETE FROM group_members WHERE kind = 'user' AND member = ?1",
                        vec![id.name.as_str().into()],
                    );
                }
                Some(_) => {
                    add("DELETE FROM group_members WHERE kind = ?1 AND org = ?2 AND member = ?3", who());
                }
            }
        }
        Change::Associate { org, user } => add(
            "INSERT INTO org_users (org, user_name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            vec![org.as_str().into(), user.as_str().into()],
        ),
        Change::Dissociate { org, user } => {
            let both = || vec![org.as_str().into(), user.as_str().into()];
            add("DELETE FROM org_users WHERE org = ?1 AND user_name = ?2", both());
            add("DELETE FROM group_members WHERE org = ?1 AND kind = 'user' AND member = ?2", both());
        }
        Change::AddGroup { org, group } => add(
            "INSERT INTO org_groups (org, group_name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            vec![org.as_str().into(), group.as_str().into()],
        ),
        Change::RemoveGroup { org, group } => {
            let both = || vec![org.as_str().into(), group.as_str().into()];
            add("DELETE FROM org_groups WHERE org = ?1 AND group_name = ?2", both());
            add("DELETE FROM group_members WHERE org = ?1 AND kind = 'group' AND member = ?2", both());
        }
        Change::AddMember { org, group, member } => add(
            "INSERT INTO group_members (org, group_name, kind, member) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            member_values(org, group, member),
        ),
        Change::PublishNode { org, node, document } => add(
            "INSERT INTO node_documents (kind, org, name, document, published_at) VALUES ('client', ?1, ?2, ?3, ?4)
             ON CONFLICT (kind, org, name) DO UPDATE
             SET document = excluded.document, published_at = excluded.published_at",
            vec![
                org.as_str().into(),
                node.as_str().into(),
                Value::from(&*document.text),
                document.at.0.into(),
            ],
        ),
        Change::FixNode { org, node, fixed } => add(
            "INSERT INTO node_documents (kind, org, name, fixed) VALUES ('client', ?1, ?2, ?3)
             ON CONFLICT (kind, org, name) DO UPDATE SET fixed = excluded.fixed",
            vec![org.as_str().into(), node.as_str().into(), fixed.to_json().into()],
        ),
        Change::RemoveMember { org, group, member } => add(
            "DELETE FROM group_members WHERE org = ?1 AND group_name = ?2 AND kind = ?3 AND member = ?4",
            member_values(org, group, member),
        ),
    }
}

fn member_values<'a>(org: &'a OrgName, group: &'a str, member: &'a Member) -> Vec<Value<'a>> {
    vec![org.as_str().into(), group.into(), member.kind().into(), member.name().into()]
}

/// Users are kept under the organization `''`: a column of a primary key cannot be NULL.
fn org_text(id: &PrincipalId) -> Value<'_> {
    Value::Text(Cow::Borrowed(id.org.as_ref().map_or("", |org| org.as_str())))
}

/// What the directory is loaded with, in this order; see [`load`].
pub(super) const DIRECTORY: [&str; 6] = [
    "SELECT name, guid FROM organizations",
    "SELECT p.kind, p.org, p.name, k.public_key FROM principals p LEFT JOIN principal_keys k
     ON k.kind = p.kind AND k.org = p.org AND k.name = p.name ORDER BY p.kind, p.org, p.name, k.key_name",
    "SELECT org, user_name FROM org_users",
    "SELECT org, group_name FROM org_groups",
    "SELECT org, group_name, kind, member FROM group_members",
    "SELECT org, name, document, published_at, fixed FROM node_documents",
];

/// Puts the rows of [`DIRECTORY`] together.
pub(super) fn load<R: Columns>(found: &[Vec<R>; 6]) -> Result<Directory> {
    let [orgs, principals, users, groups, members, nodes] = found;
    let mut directory = Directory::default();
    for row in orgs {
        directory.apply(Change::AddOrg { name: row.id(0, OrgName::new)?, id: row.id(1, OrgId::new)? });
    }
    let mut keys: Vec<(PrincipalId, Vec<String>)> = Vec::new();
    for row in principals {
        let org = if row.string(0)? == "user" { None } else { Some(row.id(1, OrgName::new)?) };
        let id = PrincipalId { org, name: row.string(2)? };
        let key = row.text(3)?;
        match keys.last_mut() {
            Some((last, pems)) if *last == id => pems.extend(key),
            _ => keys.push((id, key.into_iter().collect())),
        }
    }
    for row in users {
        directory.apply(Change::Associate { org: row.id(0, OrgName::new)?, user: row.string(1)? });
    }
    for row in groups {
        directory.apply(Change::AddGroup { org: row.id(0, OrgName::new)?, group: row.string(1)? });
    }
    for row in members {
        if let Some(member) = Member::new(&row.string(2)?, row.string(3)?) {
            let (org, group) = (row.id(0, OrgName::new)?, row.string(1)?);
            directory.apply(Change::AddMember { org, group, member });
        }
    }
    for (id, pems) in keys {
        directory.put_key(&id, pems);
    }
    for row in nodes {
        let (org, node) = (row.id(0, OrgName::new)?, row.string(1)?);
        if let (Some(text), Some(at)) = (row.text(2)?, row.int(3)?) {
            let document = Published { text: text.into(), at: Wall(at) };
            directory.apply(Change::PublishNode { org: org.clone(), node: node.clone(), document });
        }
        if row.text(4)?.is_some() {
            directory.apply(Change::FixNode { org, node, fixed: row.id(4, Fixed::from_json)? });
        }
    }
    Ok(directory)
}

/// A row of [`FEED_ENDS`].
pub(super) fn feed_end(row: &impl Columns) -> Result<FeedEnd> {
    Ok(FeedEnd { job: row.id(0, JobId::new)?, last: row.number(1)?.max(0) as u64, at: Wall(row.number(2)?) })
}

/// A row of [`FEEDS`].
pub(super) fn feed_piece(row: &impl Columns) -> Result<KeptFeed> {
    Ok(KeptFeed {
        org: row.id(1, OrgId::new)?,
        job: row.id(0, JobId::new)?,
        frames: Frame::split(&row.blob(2)?).into_iter().collect(),
    })
}

/// Puts the pieces of each feed together.
pub(super) fn join_feeds(pieces: Vec<KeptFeed>) -> Vec<KeptFeed> {
    let mut feeds: Vec<KeptFeed> = Vec::new();
    for piece in pieces {
        match feeds.last_mut() {
            Some(feed) if feed.job == piece.job => feed.frames.extend(piece.frames),
            _ => feeds.push(piece),
        }
    }
    feeds
}

/// The values of [`OUTPUT`].
pub(super) fn output_values<'a>(org: &'a OrgId, job: &'a JobId, node: &'a NodeName) -> Vec<Value<'a>> {
    vec![job.as_str().into(), node.as_str().into(), org.as_str().into()]
}

/// Up to which place in the order of their ends jobs go; `surplus` is what [`SURPLUS`] found.
pub(super) fn bound(rule: &Prune, surplus: Option<(i64, String)>) -> Option<(i64, String)> {
    let aged = rule.before.map(|at| (at.0, String::new()));
    aged.max(surplus).map(|place| place.min((rule.settled.0, String::new())))
}

/// Which of the oldest jobs go in one batch: a few small ones, or a large one by itself.
pub(super) fn batch(oldest: &[(String, i64)]) -> &[(String, i64)] {
    let mut nodes = 0;
    let fits = oldest.iter().take_while(|(_, count)| {
        nodes += count;
        nodes <= PRUNE_NODES
    });
    let count = fits.count().max(1).min(oldest.len());
    &oldest[..count]
}
