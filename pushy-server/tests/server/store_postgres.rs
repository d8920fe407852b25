//! What only a PostgreSQL store meets: refusals, two servers on one database, a database that goes away.

use std::io::Write as _;
use std::time::{Duration, Instant};

use pushy_core::ids::JobId;
use pushy_core::server::Ticket;
use pushy_server::store::{JobFilter, Options, Place, Saved};

use crate::lab::{DEADLINE, Lab, made_with};
use crate::postgres::{self, Postgres};
use crate::store::{Bench, job, new_job, open};

fn refused(url: &str) -> String {
    let place = Place::of("/nowhere".as_ref(), Some(url)).expect("a URL");
    place.open(Options::default(), Box::new(|_| {})).err().expect("refused").message().to_owned()
}

#[test]
fn refusals_say_what_to_do_and_no_secret() {
    let Some(database) = postgres::database() else { return };
    let url = database.url().replace("pushy@", "pushy:hush@");
    let directory = url.rsplit('=').next().expect("the socket's").to_owned();
    let place = |name: &str| format!("PostgreSQL database '{name}' at {directory}");
    let name = url.rsplit('/').nth(directory.matches('/').count()).expect("a name");
    let name = name.split('?').next().expect("a name").to_owned();
    let unknown = refused(&url.replace(&name, "nonesuch"));
    let wanted = r#"database "nonesuch" does not exist; create it with createdb, or correct `database`"#;
    assert_eq!(unknown, format!("{}: {wanted}", place("nonesuch")));
    let away = refused(&url.replace(&directory, "/nonesuch"));
    let prefix = format!("PostgreSQL database '{name}' at /nonesuch: error connecting to server: ");
    assert!(away.starts_with(&prefix), "{away}");
    let stranger = refused(&url.replace("pushy:", "stranger:"));
    assert!(stranger.contains("stranger") && !stranger.contains("hush"), "{stranger}");

    let bench = Bench::on(database, Options::default());
    let second = refused(&url);
    assert_eq!(second, format!("{}: another pushy-server works with this database", place(&name)));
    bench.store.close();
    let kept = bench.database.as_ref().expect("of PostgreSQL");
    kept.sql("UPDATE pushy_schema SET version = 99");
    let newer = refused(&url);
    let start = format!("{}: the database has version 99, this program knows ", place(&name));
    assert!(newer.starts_with(&start) && newer.ends_with("; use the newer program"), "{newer}");
    assert!(!format!("{:?}", Place::of("/x".as_ref(), Some(&url))).contains("hush"));
}

#[tokio::test]
async fn a_full_disk_and_a_locked_table_fail_the_job_and_pass() {
    let options = Options { busy_timeout: Duration::from_millis(50), ..Options::default() };
    let Some(mut bench) = Bench::postgres(options) else { return };
    let database = bench.database.take().expect("of PostgreSQL");
    database.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.position > 3000 THEN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END IF;
           RETURN NEW; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON job_nodes FOR EACH ROW EXECUTE FUNCTION full_disk()",
    );
    let (big, small) = (job(1, 5_000), job(2, 3));
    let error = bench.save(new_job(&big)).expect_err("full");
    assert_eq!(error, format!("{}: could not extend file", bench.place.label()));
    assert_eq!(bench.stored(&big).await, None, "no half-written job");
    bench.save(new_job(&small)).expect("there is room for this");
    database.sql("DROP TRIGGER full_disk ON job_nodes");
    bench.save(new_job(&big)).expect("with room again");
    assert_eq!(bench.stored(&big).await, Some(big));

    // A second program that holds the table for longer than a write waits: until it is told to let go.
    let mut holder = std::process::Command::new("psql")
        .args(["-X", "-q", "-d", &database.url()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("psql runs");
    let mut words = holder.stdin.take().expect("a pipe");
    words.write_all(b"BEGIN; LOCK TABLE jobs;\n").expect("psql listens");
    let locked =
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'jobs'::regclass";
    let end = Instant::now() + DEADLINE;
    while database.sql(locked).trim() != "1" {
        assert!(Instant::now() < end, "the table is never locked");
    }
    let error = bench.save(new_job(&job(3, 1))).expect_err("locked");
    assert!(error.ends_with("canceling statement due to lock timeout"), "{error}");
    words.write_all(b"COMMIT;\n").expect("psql listens");
    drop(words);
    assert!(holder.wait().expect("psql ends").success());
    bench.save(new_job(&job(3, 1))).expect("kept");
}

/// Every answer is true: what was kept is there, what failed is not, while PostgreSQL is stopped, killed and started.
#[tokio::test]
async fn a_restart_underneath_loses_and_doubles_nothing() {
    let Some(mut server) = Postgres::start(&[]) else { return };
    let bench = Bench::on(server.database(), Options::default());
    let mut next = 0u32;
    let mut waiting = 0;
    let mut kept = Vec::new();
    for signal in ["KILL", "QUIT", "INT"] {
        let load = |from: u32, count: u32| {
            for number in from..from + count {
                bench.store.save(Ticket(u64::from(number)), new_job(&job(number, 3)));
            }
        };
        load(next, 300);
        // Some are written, some are on their way.
        for _ in 0..50 {
            let answer = bench.answers.recv_timeout(DEADLINE).expect("an answer");
            kept.extend(matches!(answer, Saved::Kept(_)).then(|| answer.clone()));
        }
        server.stop(signal);
        load(next + 300, 50);
        server.start_again();
        load(next + 350, 50);
        next += 400;
        waiting += 350;
        while waiting > 0 {
            let answer = bench.answers.recv_timeout(DEADLINE).expect("an answer");
            kept.extend(matches!(answer, Saved::Kept(_)).then(|| answer.clone()));
            waiting -= 1;
        }
    }
    let mut tickets: Vec<u64> =
        kept.iter().map(|saved| if let Saved::Kept(ticket) = saved { ticket.0 } else { 0 }).collect();
    tickets.sort_unstable();
    let mut stored: Vec<u64> = bench
        .list(JobFilter::default())
        .await
        .iter()
        .map(|job| u64::from_str_radix(job.id.as_str(), 16).expect("a number"))
        .collect();
    stored.sort_unstable();
    assert_eq!(stored, tickets, "what is stored and what was said to be");
    assert!(tickets.len() > 1_000, "a short restart is waited for: {} of {next} kept", tickets.len());
    let whole = bench.stored(&job(5, 3)).await.expect("there");
    assert_eq!(whole.nodes.len(), 3);
    bench.store.close();
    let (again, _) = open(&bench.place, Options::default());
    assert_eq!(again.restore().expect("readable").jobs.len(), stored.len());
}

#[tokio::test]
async fn a_server_goes_on_when_its_database_was_away() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let database = postgres.database();
    let url = database.url();
    let root = made_with(&["--database", &url], "heartbeat_interval = 0.5\nvoting_timeout = 2\n").await;
    let lab = Lab::start_in(root).await;
    assert!(!lab.about.to_string().contains("postgres"), "{}", lab.about);
    assert!(!lab.dir.join("pushy.db").exists());
    let body = r#"{"command":"x","nodes":["n"]}"#;
    let mut ids = vec![lab.post(&lab.admin, body).await.job_id()];
    postgres.stop("QUIT");
    let away = lab.get(&lab.admin, "~/jobs").await;
    away.check(503, r#"{"error":["the store cannot be read; try again when it has recovered"]}"#);
    // A write waits for a moment before it gives up.
    lab.post(&lab.admin, body).await.check_status(503);
    let refused = Instant::now();
    lab.post(&lab.admin, body).await.check_status(503);
    assert!(refused.elapsed() < Duration::from_secs(2), "the next ones fail at once");
    postgres.start_again();
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = lab.post(&lab.admin, body).await;
        if answer.status == 201 {
            ids.push(answer.job_id());
            break;
        }
        assert!(Instant::now() < end, "the server does not come back: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let listed = lab.get(&lab.admin, "~/jobs").await.json();
    let listed: Vec<&str> =
        listed.as_array().expect("a list").iter().filter_map(|j| j["id"].as_str()).collect();
    assert_eq!(listed, ids, "what was refused is not there");
    let root = lab.stop().await;
    let lab = Lab::start_in(root).await;
    let id = JobId::new(&ids[0]).expect("an id");
    lab.get(&lab.admin, &format!("~/jobs/{id}")).await.check_status(200);
    lab.stop().await;
}
