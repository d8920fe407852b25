//! KILL to the server, and to PostgreSQL underneath, at random moments under load: what was acknowledged stays, what has
//! ended does not change, what runs goes on, the database opens.
//!
//! `PUSHY_KILLS=N` kills more often than 20 times (`script/test --long` says 200); `PUSHY_KILL_SEED=S` repeats a run's
//! choices, though not its timing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pushy_core::auth::SigningKey;
use pushy_tests::http::Http;
use pushy_tests::postgres::Postgres;
use pushy_tests::site::{Site, sqlite_of};
use pushy_tests::until;
use rand_chacha::ChaCha8Rng;
use rand_core::{OsRng, RngCore, SeedableRng};
use serde_json::{Value, json};

const NODES: [&str; 6] = ["n1", "n2", "n3", "n4", "n5", "n6"];
/// Jobs with the exit status of their command.
const COMMANDS: [(&str, i32); 3] = [("quick", 0), ("slow", 0), ("fail", 3)];
/// The longest life of a server, in milliseconds. Agents come back within 2 s, so most lives see jobs run.
const LIFE: u64 = 2_000;
/// From the last kill until everything that was acknowledged has ended.
const END: Duration = Duration::from_secs(60);
const SETTINGS: &str = "voting_timeout = 4.0";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the requesters were told.
#[derive(Default)]
struct Told {
    /// Ids of jobs that were answered 201.
    acknowledged: Mutex<BTreeSet<String>>,
    /// The first answer for each job that said it had ended.
    ended: Mutex<BTreeMap<String, Value>>,
    /// Answers that nobody may get.
    wrong: Mutex<Vec<String>>,
}

/// Somebody with the administrator's key; a server that is away is not an error.
struct User<'a> {
    http: Http,
    key: &'a SigningKey,
}

impl User<'_> {
    fn of(site: &Site) -> User<'_> {
        User { http: Http::new(site.host()), key: site.admin() }
    }

    fn call(&mut self, method: &str, resource: &str, body: &str) -> Option<(u16, Value)> {
        let path = format!("/organizations/acme/pushy/{resource}");
        let (status, body) = self.http.call(("admin", self.key), method, &path, body).ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Starts jobs on up to three nodes, one after the other, until told to stop.
    fn start_jobs(mut self, told: &Told, stop: &AtomicBool, mut rng: ChaCha8Rng) {
        while !stop.load(Ordering::SeqCst) {
            let first = rng.next_u32() as usize;
            let count = 1 + rng.next_u32() as usize % 3;
            let nodes: Vec<&str> = (0..count).map(|i| NODES[(first + i) % NODES.len()]).collect();
            let command = COMMANDS[rng.next_u32() as usize % COMMANDS.len()].0;
            let quorum = 1 + rng.next_u32() as usize % count;
            let body = json!({ "command": command, "nodes": nodes, "quorum": quorum }).to_string();
            match self.call("POST", "jobs", &body) {
                Some((201, answer)) => {
                    let id = answer["uri"].as_str().and_then(|uri| uri.rsplit('/').next());
                    lock(&told.acknowledged).insert(id.expect("the job's address").to_owned());
                }
                // Said while the server ends, or by nobody.
                Some((503, _)) | None => {}
                Some(other) => lock(&told.wrong).push(format!("POST jobs: {other:?}")),
            }
            std::thread::sleep(Duration::from_millis(u64::from(rng.next_u32() % 120)));
        }
    }

    /// Notes how acknowledged jobs ended, until told to stop.
    fn watch_jobs(mut self, told: &Told, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            self.look(told);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Looks once at every acknowledged job that has not been seen to end; answers how many have not.
    fn look(&mut self, told: &Told) -> usize {
        let open: Vec<String> = {
            let ended = lock(&told.ended);
            lock(&told.acknowledged).iter().filter(|id| !ended.contains_key(*id)).cloned().collect()
        };
        let mut left = open.len();
        for id in open {
            match self.call("GET", &format!("jobs/{id}"), "") {
                Some((200, job)) if has_ended(&job) => {
                    lock(&told.ended).insert(id, job);
                    left -= 1;
                }
                // 503: the database is away.
                Some((200 | 503, _)) | None => {}
                Some(other) => lock(&told.wrong).push(format!("GET jobs/{id}: {other:?}")),
            }
        }
        left
    }
}

fn has_ended(job: &Value) -> bool {
    !matches!(job["status"].as_str(), Some("new" | "voting" | "running"))
}

/// `JOB start` and `JOB end` lines of the commands that ran on a node.
fn runs(site: &Site, node: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(site.path(&format!("{node}.ran"))).unwrap_or_default();
    text.lines().filter_map(|l| l.split_once(' ')).map(|(id, what)| (id.into(), what.into())).collect()
}

/// One run of a server made with more arguments of `init`; `strike` ends something and starts it again. Answers the site
/// with its server running.
fn check(name: &str, init: &[&str], kills: u64, mut strike: impl FnMut(&mut Site, u64)) -> Site {
    let seed = number("PUSHY_KILL_SEED").unwrap_or_else(|| OsRng.next_u64());
    println!("{name}: {kills} kills, PUSHY_KILL_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut site = Site::start(init, SETTINGS);
    for node in NODES {
        let file = site.path(&format!("{node}.ran"));
        let line = |pause: &str, exit: i32| {
            let note = |what| format!("echo $CHEF_PUSH_JOB_ID {what} >> {}", file.display());
            format!("{}; sleep {pause}; {}; exit {exit}", note("start"), note("end"))
        };
        let whitelist = [("quick", line("0", 0)), ("slow", line("1", 0)), ("fail", line("0.2", 3))];
        site.start_agent(node, &whitelist);
    }
    let told = Told::default();
    let mut user_of_site = User::of(&site);
    until("all nodes to be available", Duration::from_secs(30), || {
        let (_, states) = user_of_site.call("GET", "node_states", "")?;
        let available = states.as_array()?.iter().filter(|s| s["availability"] == "available").count();
        (available == NODES.len()).then_some(())
    });
    drop(user_of_site);

    let stop = AtomicBool::new(false);
    let (host, key) = (site.host().to_owned(), site.admin().clone());
    let user = || User { http: Http::new(&host), key: &key };
    std::thread::scope(|scope| {
        let loaders: Vec<ChaCha8Rng> = (0..2).map(|_| ChaCha8Rng::seed_from_u64(rng.next_u64())).collect();
        for rng in loaders {
            let (told, stop) = (&told, &stop);
            let user = user();
            scope.spawn(move || user.start_jobs(told, stop, rng));
        }
        let (told, stop) = (&told, &stop);
        let watcher = user();
        scope.spawn(move || watcher.watch_jobs(told, stop));
        // Whatever fails here, the threads must be told.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..kills {
                std::thread::sleep(Duration::from_millis(20 + rng.next_u64() % LIFE));
                strike(&mut site, number);
            }
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });

    let acknowledged = lock(&told.acknowledged).len();
    let limit = Instant::now() + END;
    let mut last = user();
    while last.look(&told) > 0 {
        let open: Vec<String> = {
            let ended = lock(&told.ended);
            lock(&told.acknowledged).iter().filter(|id| !ended.contains_key(*id)).cloned().collect()
        };
        assert!(Instant::now() < limit, "jobs that never end: {open:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(*lock(&told.wrong), Vec::<String>::new(), "answers that nobody may get");

    // Nothing has changed since it ended.
    let ended = lock(&told.ended);
    for (id, first) in ended.iter() {
        let now = last.call("GET", &format!("jobs/{id}"), "").expect("the server answers").1;
        assert_eq!(&now, first, "job {id} changed after its end");
    }
    // What ran has the result of its command, and ran once.
    let mut ran = 0;
    for node in NODES {
        let lines = runs(&site, node);
        let started: BTreeSet<&str> = lines.iter().filter(|l| l.1 == "start").map(|l| l.0.as_str()).collect();
        let finished: BTreeSet<&str> = lines.iter().filter(|l| l.1 == "end").map(|l| l.0.as_str()).collect();
        assert_eq!(lines.len(), started.len() + finished.len(), "{node} ran a job twice: {lines:?}");
        assert_eq!(started, finished, "{node}: a command was ended before its time");
        ran += started.len();
        for id in started {
            // A job whose 201 was lost with the server runs all the same.
            let Some(job) = ended.get(id) else { continue };
            let exit = COMMANDS.iter().find(|(name, _)| job["command"] == *name).expect("a known command").1;
            let state = if exit == 0 { "succeeded" } else { "failed" };
            let nodes = job["nodes"][state].as_array();
            assert!(
                nodes.is_some_and(|nodes| nodes.iter().any(|n| n == node)),
                "{node} ran {id} with exit status {exit}: {job}"
            );
        }
    }
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    for job in ended.values() {
        *by_status.entry(job["status"].as_str().unwrap_or("?")).or_default() += 1;
    }
    println!("{name}: {acknowledged} jobs acknowledged, {ran} commands ran, ended as {by_status:?}");
    assert!(ran as u64 >= kills, "the load was too small to show anything: {ran} commands");
    drop(ended);
    site
}

fn restart(site: &mut Site) {
    site.kill_server();
    site.start_server();
}

#[test]
fn sqlite() {
    let kills = number("PUSHY_KILLS").unwrap_or(20);
    let mut site = check("SQLite", &[], kills, |site, _| restart(site));
    site.kill_server();
    let database = rusqlite::Connection::open(sqlite_of(&site)).expect("the database opens");
    let verdict: String =
        database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be checked");
    assert_eq!(verdict, "ok");
}

/// The server and its database in turn.
#[test]
fn postgres() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let database = postgres.database();
    let kills = number("PUSHY_KILLS").map_or(6, |kills| kills / 2);
    check("PostgreSQL", &["--database", &database.url()], kills, |site, number| {
        if number % 2 == 0 {
            postgres.stop("KILL");
            postgres.start_again();
        } else {
            restart(site);
        }
    });
}
