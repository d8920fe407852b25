//! The store by itself, and what only SQLite does; see `store_both` for the rest.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::{Job, JobOptions, JobStatus, NodeStatus};
use pushy_core::server::{Record, Ticket};
use pushy_core::time::Wall;
use pushy_server::store::{JobFilter, Options, Place, Saved, Store};

use crate::lab::{DEADLINE, Lab};
use crate::postgres;

/// A store with nobody else around it.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) answers: mpsc::Receiver<Saved>,
    pub(crate) place: Place,
    pub(crate) database: Option<postgres::Database>,
    _root: tempfile::TempDir,
    pub(crate) tickets: u64,
}

impl Bench {
    pub(crate) fn sqlite(options: Options) -> Bench {
        let root = tempfile::tempdir().expect("a directory");
        let place = Place::of(root.path(), None).expect("a file");
        Bench::new(root, place, None, options)
    }

    /// In a database of the tests' PostgreSQL; `None` without PostgreSQL.
    pub(crate) fn postgres(options: Options) -> Option<Bench> {
        Some(Bench::on(postgres::database()?, options))
    }

    pub(crate) fn on(database: postgres::Database, options: Options) -> Bench {
        let root = tempfile::tempdir().expect("a directory");
        let place = Place::of(root.path(), Some(&database.url())).expect("a URL");
        Bench::new(root, place, Some(database), options)
    }

    fn new(
        root: tempfile::TempDir,
        place: Place,
        database: Option<postgres::Database>,
        options: Options,
    ) -> Bench {
        place.create().expect("a database");
        let (store, answers) = open(&place, options);
        Bench { store, answers, place, database, _root: root, tickets: 0 }
    }

    pub(crate) fn save(&mut self, records: Vec<Record>) -> Result<(), String> {
        self.tickets += 1;
        self.store.save(Ticket(self.tickets), records);
        match self.answers.recv_timeout(DEADLINE).expect("an answer") {
            Saved::Kept(ticket) => {
                assert_eq!(ticket, Ticket(self.tickets));
                Ok(())
            }
            Saved::Failed(ticket, error) => {
                assert_eq!(ticket, Ticket(self.tickets));
                Err(error.to_string())
            }
        }
    }

    /// Closes and opens again.
    pub(crate) fn reopen(&mut self) {
        self.store.close();
        (self.store, self.answers) = open(&self.place, Options::default());
    }

    pub(crate) async fn list(&self, filter: JobFilter) -> Vec<Job> {
        self.store.jobs(&org(1), filter).await.expect("readable").expect("the job before")
    }

    pub(crate) async fn stored(&self, job: &Job) -> Option<Job> {
        self.store.job(&job.org, &job.id).await.expect("readable")
    }
}

pub(crate) fn open(place: &Place, options: Options) -> (Arc<dyn Store>, mpsc::Receiver<Saved>) {
    let (tell, answers) = mpsc::channel();
    let on_saved = Box::new(move |saved| drop(tell.send(saved)));
    (place.open(options, on_saved).expect("a store"), answers)
}

pub(crate) fn org(number: u8) -> OrgId {
    OrgId::new(&format!("{number:032x}")).expect("32 digits")
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("a name")
}

pub(crate) fn job(number: u32, nodes: usize) -> Job {
    let at = Wall::from_secs(1_700_000_000 + i64::from(number));
    Job {
        id: JobId::new(&format!("{number:032x}")).expect("32 digits"),
        org: org(1),
        command: "chef-client \u{fc}'\"".into(),
        status: JobStatus::Voting,
        run_timeout: 3600,
        quorum: nodes as u32,
        requester: "ann".into(),
        created_at: at,
        updated_at: at,
        deadline: Some(Wall(at.0 + 1)),
        options: JobOptions::default(),
        // Descending, so that the order asked for is not the order of names.
        nodes: (0..nodes).rev().map(|i| (node(&format!("node-{i:05}")), NodeStatus::New)).collect(),
        reasons: BTreeMap::new(),
    }
}

pub(crate) fn new_job(job: &Job) -> Vec<Record> {
    vec![Record::NewJob(Box::new(job.clone()))]
}

#[tokio::test]
async fn a_full_disk_fails_the_job_and_passes() {
    let mut bench = Bench::sqlite(Options { max_pages: Some(60), ..Options::default() });
    let big = job(1, 5_000);
    let error = bench.save(new_job(&big)).expect_err("full");
    assert_eq!(error, format!("{}: database or disk is full", bench.place.label()));
    assert_eq!(bench.stored(&big).await, None, "no half-written job");
    let small = job(2, 3);
    bench.save(new_job(&small)).expect("there is room for this");
    assert_eq!(bench.stored(&small).await, Some(small));
    bench.reopen();
    bench.save(new_job(&big)).expect("with room again");
    assert_eq!(bench.stored(&big).await, Some(big));
}

#[tokio::test]
async fn a_locked_database_fails_writes_and_not_reads() {
    let options = Options { busy_timeout: Duration::from_millis(20), ..Options::default() };
    let mut bench = Bench::sqlite(options);
    let first = job(1, 1);
    bench.save(new_job(&first)).expect("kept");
    let other = rusqlite::Connection::open(bench.place.label()).expect("a second program");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let second = job(2, 1);
    let error = bench.save(new_job(&second)).expect_err("locked");
    assert_eq!(error, format!("{}: database is locked", bench.place.label()));
    assert_eq!(bench.stored(&first).await, Some(first));
    other.execute_batch("COMMIT").expect("unlocked");
    bench.save(new_job(&second)).expect("kept");
}

#[tokio::test]
async fn a_post_to_a_locked_database_is_503_and_leaves_no_job() {
    let lab = Lab::start().await;
    let body = r#"{"command":"x","nodes":["n"]}"#;
    lab.post(&lab.admin, body).await.check_status(201);
    let other = rusqlite::Connection::open(lab.dir.join("pushy.db")).expect("a second program");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let answer = lab.post(&lab.admin, body).await;
    answer.check_status(503);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.json()["error"][0].is_string(), "{}", answer.text());
    lab.get(&lab.admin, "~/jobs").await.check_status(200);
    other.execute_batch("COMMIT").expect("unlocked");
    lab.post(&lab.admin, body).await.check_status(201);
    assert_eq!(lab.get(&lab.admin, "~/jobs").await.json().as_array().map(Vec::len), Some(2));
    lab.stop().await;
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let mut bench = Bench::sqlite(Options::default());
    bench.reopen();
    let other = rusqlite::Connection::open(bench.place.label()).expect("open");
    other.pragma_update(None, "user_version", 99).expect("written");
    let error = bench.place.open(Options::default(), Box::new(|_| {})).err().expect("refused");
    let path = bench.place.label();
    assert_eq!(
        error.message(),
        format!("{path}: the database has version 99, this program knows 6; use the newer program")
    );
}
