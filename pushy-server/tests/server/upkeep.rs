//! `backup`, `restore` and `import`, and lists in pages over REST.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, arg, cli, made_with};
use crate::postgres::{self, Database};
use crate::puppet::Puppet;

const SETTINGS: &str = "heartbeat_interval = 0.5\nvoting_timeout = 1\n";

async fn lab_on(database: Option<&Database>) -> Lab {
    let url = database.map(Database::url);
    let more: Vec<&str> = url.iter().flat_map(|url| ["--database", url]).collect();
    Lab::start_in(made_with(&more, SETTINGS).await).await
}

async fn told(dir: &Path, args: &[&str]) -> String {
    cli(&[&["-d", arg(dir)], args].concat()).await.expect("done")
}

/// What the directory's lists say, and what is known of a node.
async fn directory(dir: &Path) -> Vec<String> {
    let mut lists = vec![told(dir, &["node", "show", "web-1"]).await];
    for what in ["org", "user", "node", "group"] {
        lists.push(told(dir, &[what, "list"]).await);
    }
    lists
}

async fn back_up_and_restore(from: Option<Database>, to: Option<Database>) {
    let lab = lab_on(from.as_ref()).await;
    let web = lab.node("web-1", 0).await;
    told(&lab.dir, &["node", "set", "web-1", "environment=prod", "roles=web"]).await;
    lab.user("ann", 1).await;
    lab.group("pushy_job_readers", &[("user", "ann"), ("user", "admin")]).await;
    let mut line = Puppet::new(&lab, web.clone()).await.online(&lab).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;
    let body =
        r#"{"command":"date","nodes":["web-1"],"capture_output":true,"env":{"A":"\u0000"},"file":"raw:x"}"#;
    let done = lab.post(&lab.admin, body).await.job_id();
    let job = line.take_job().await;
    line.succeed(&job, "now\n").await;
    lab.job_until(&done, |job| job["status"] == "complete").await;
    let running = lab.post(&lab.admin, r#"{"command":"sleep","nodes":["web-1"]}"#).await.job_id();
    line.take_job().await;
    lab.job_until(&running, |job| job["status"] == "running").await;
    let file = lab.dir.parent().expect("a parent").join("backup");
    // Jobs are started all the while.
    let load = async {
        for _ in 0..40 {
            lab.post(&lab.admin, r#"{"command":"x","nodes":["away"]}"#).await.check_status(201);
        }
    };
    let dir = lab.dir.clone();
    let save = tokio::task::spawn_blocking({
        let (dir, file) = (dir.clone(), file.clone());
        move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(told(&dir, &["backup", arg(&file)]))
        }
    });
    let (said, ()) = tokio::join!(save, load);
    assert!(said.expect("no panic").contains("It holds no keys"));
    let again = cli(&["-d", arg(&dir), "backup", arg(&file)]).await.expect_err("refused");
    assert_eq!(again, format!("{}: exists already", file.display()));
    let before = lab.get(&lab.admin, "~/jobs").await.json();
    let whole = lab.get(&lab.admin, &format!("~/jobs/{done}?include_file=true&detail=1")).await.text();
    let (people, incarnation) = (directory(&dir).await, lab.about["incarnation_id"].clone());
    let old = lab.stop().await;

    let text = std::fs::read(&file).expect("a backup");
    let secrets = std::fs::read_to_string(dir.join("keys.json")).expect("keys");
    let secrets: Value = serde_json::from_str(&secrets).expect("JSON");
    let secret = secrets["curve_secret_key"].as_str().expect("a key").as_bytes();
    assert!(!text.windows(secret.len()).any(|w| w == secret));
    let root = tempfile::tempdir().expect("a directory");
    let new = root.path().join("D");
    let url = to.as_ref().map(Database::url);
    let more: Vec<&str> = url.iter().flat_map(|url| ["--database", url.as_str()]).collect();
    let restore = |file: &Path| {
        let args = [&["-d", arg(&new), "restore", arg(file)][..], &more[..]].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        async move { cli(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    for (damage, wanted) in [
        (text[..text.len() - 200].to_vec(), "cut short"),
        (
            String::from_utf8_lossy(&text).replace("date", "rate").into_bytes(),
            "damaged: the checksum is another",
        ),
        (b"{}\n".to_vec(), "not a backup of pushy-server"),
    ] {
        let bad = root.path().join("bad");
        std::fs::write(&bad, damage).expect("written");
        let error = restore(&bad).await.expect_err("refused");
        assert!(error.starts_with(&format!("{}: ", bad.display())), "{error}");
        assert!(error.contains(wanted) || wanted == "cut short" && error.contains("damaged"), "{error}");
        assert!(!new.exists(), "nothing is begun");
    }
    restore(&file).await.expect("restored");
    let error = restore(&file).await.expect_err("not empty");
    assert!(error.contains("not empty"), "{error}");
    std::fs::create_dir_all(new.join("admin/.chef")).expect("a directory");
    std::fs::copy(old.path().join("D/admin/.chef/admin.pem"), new.join("admin/.chef/admin.pem"))
        .expect("copied");
    let lab = Lab::start_in(root).await;
    assert_ne!(lab.about["incarnation_id"], incarnation, "decision 5");
    assert_eq!(directory(&lab.dir).await, people);
    let after = lab.get(&lab.admin, "~/jobs").await.json();
    let (before, after) = (before.as_array().expect("a list"), after.as_array().expect("a list"));
    assert!(after.len() >= 2 && after.len() <= before.len(), "{} of {}", after.len(), before.len());
    for (was, is) in before.iter().zip(after) {
        // What was unfinished at that moment nobody may take up again.
        let unfinished = ["new", "voting", "running"].contains(&was["status"].as_str().expect("a status"));
        if unfinished || is["status"] == "crashed" {
            assert_eq!((&is["id"], &is["status"]), (&was["id"], &json!("crashed")));
        } else {
            assert_eq!(is, was);
        }
    }
    let restored = lab.get(&lab.admin, &format!("~/jobs/{done}?include_file=true&detail=1")).await.text();
    assert_eq!(restored, whole);
    let output = lab.get(&lab.admin, &format!("~/jobs/{done}/output/web-1/stdout")).await;
    assert_eq!((output.status, output.text().as_str()), (200, "now\n"));
    let mut line = Puppet::new(&lab, web).await.online(&lab).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;
    let id = lab.post(&lab.admin, r#"{"command":"date","nodes":["web-1"]}"#).await.job_id();
    let job = line.take_job().await;
    line.succeed(&job, "").await;
    lab.job_until(&id, |job| job["status"] == "complete").await;
    lab.stop().await;
}

#[tokio::test]
async fn a_backup_of_sqlite_is_restored_into_sqlite() {
    back_up_and_restore(None, None).await;
}

#[tokio::test]
async fn a_backup_of_sqlite_is_restored_into_postgres() {
    let Some(to) = postgres::database() else { return };
    back_up_and_restore(None, Some(to)).await;
}

#[tokio::test]
async fn a_backup_of_postgres_is_restored_into_sqlite() {
    let Some(from) = postgres::database() else { return };
    back_up_and_restore(Some(from), None).await;
}

/// The tables of 9.1, as an original server has them.
const ORIGINAL: &str = "
    CREATE TABLE job_status (id integer PRIMARY KEY, description text NOT NULL);
    INSERT INTO job_status VALUES (0, 'voting'), (1, 'running'), (2, 'complete'), (3, 'quorum_failed'),
      (4, 'aborted'), (5, 'new'), (6, 'timed_out'), (7, 'crashed');
    CREATE TABLE jobs (id char(32) PRIMARY KEY, org_id char(32) NOT NULL, command text NOT NULL,
      status integer NOT NULL REFERENCES job_status (id), run_timeout integer, last_updated_by char(32) NOT NULL,
      created_at timestamp NOT NULL, updated_at timestamp NOT NULL, quorum integer);
    CREATE TABLE job_nodes (job_id char(32) REFERENCES jobs (id) ON UPDATE CASCADE ON DELETE CASCADE,
      org_id char(32) NOT NULL, node_name text NOT NULL, status integer NOT NULL, created_at timestamp NOT NULL,
      updated_at timestamp NOT NULL, UNIQUE (job_id, org_id, node_name));
    CREATE TABLE job_options (job_id char(32) PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, job_user char(32),
      dir text, env text, capture boolean, job_file text);
    CREATE TABLE job_output (job_id char(32) NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, node_name text NOT NULL,
      stdout text NOT NULL, stderr text NOT NULL, UNIQUE (job_id, node_name));
    INSERT INTO jobs SELECT lpad(n::text, 32, '0'), repeat('a', 32), 'bulk', 2, 3600, lpad(n::text, 32, '0'),
      '2020-01-01', '2020-01-02', 1 FROM generate_series(1000, 1500) n;
    INSERT INTO jobs VALUES (repeat('1', 32), repeat('a', 32), 'date', 2, 60, repeat('1', 32), '2020-02-03 04:05:06',
      '2020-02-03 04:05:16', 2);
    INSERT INTO job_nodes VALUES (repeat('1', 32), repeat('a', 32), 'web-1', 3, '2020-02-03', '2020-02-03'),
      (repeat('1', 32), repeat('a', 32), 'web-2', 4, '2020-02-03', '2020-02-03');
    INSERT INTO job_options VALUES (repeat('1', 32), 'deploy', '/srv', '{\"B\":\"2\",\"A\":\"1\"}', true, 'raw:hello');
    INSERT INTO job_output VALUES (repeat('1', 32), 'web-1', 'out', 'err');
    INSERT INTO jobs VALUES (repeat('2', 32), repeat('a', 32), 'sleep', 1, NULL, repeat('2', 32), '2020-03-03',
      '2020-03-03', NULL);
    INSERT INTO job_nodes VALUES (repeat('2', 32), repeat('a', 32), 'web-1', 2, '2020-03-03', '2020-03-03'),
      (repeat('2', 32), repeat('a', 32), 'web-2', 1, '2020-03-03', '2020-03-03'),
      (repeat('2', 32), repeat('a', 32), 'web-3', 3, '2020-03-03', '2020-03-03');
    INSERT INTO jobs VALUES (repeat('3', 32), repeat('b', 32), 'other', 3, 1, repeat('3', 32), '2020-03-04',
      '2020-03-04', 1);";

async fn import_into(database: Option<Database>) {
    let Some(original) = postgres::database() else { return };
    original.sql(ORIGINAL);
    let lab = lab_on(database.as_ref()).await;
    let dir = lab.dir.clone();
    let url = original.url();
    let guid = format!("acme={}", "a".repeat(32));
    let import = ["-d", arg(&dir), "import", &url, "--org-guid", &guid];
    let running = cli(&import).await.expect_err("refused");
    assert!(running.ends_with("a server runs here; stop it before the import"), "{running}");
    let incarnation = lab.about["incarnation_id"].clone();
    let root = lab.stop().await;
    let said = cli(&import).await.expect("imported");
    assert!(said.starts_with("acme: 503 jobs\n") || said.contains("\nacme: 503 jobs\n"), "{said}");
    let hint = format!("organization {}: 1 jobs; name it with --org-guid NAME=GUID", "b".repeat(32));
    assert!(said.contains(&hint), "{said}");
    assert_eq!(cli(&import).await.expect("again"), said);
    let lab = Lab::start_in(root).await;
    assert_ne!(lab.about["incarnation_id"], incarnation, "decision 5");
    let list = lab.get(&lab.admin, "~/jobs").await.json();
    assert_eq!(list.as_array().map(Vec::len), Some(503));
    let get = async |id: &str| {
        lab.get(&lab.admin, &format!("~/jobs/{}?include_file=true", id.repeat(32))).await.json()
    };
    let done = get("1").await;
    assert_eq!(done["created_at"], "Mon, 03 Feb 2020 04:05:06 GMT");
    assert_eq!(done["updated_at"], "Mon, 03 Feb 2020 04:05:16 GMT");
    assert_eq!((&done["status"], &done["run_timeout"]), (&json!("complete"), &json!(60)));
    assert_eq!(done["nodes"], json!({ "succeeded": ["web-1"], "failed": ["web-2"] }));
    assert_eq!(
        (&done["user"], &done["dir"], &done["file"]),
        (&json!("deploy"), &json!("/srv"), &json!("raw:hello"))
    );
    assert_eq!(done["env"].to_string(), r#"{"B":"2","A":"1"}"#);
    let output = lab.get(&lab.admin, &format!("~/jobs/{}/output/web-1/stderr", "1".repeat(32))).await;
    assert_eq!((output.status, output.text().as_str()), (200, "err"));
    let crashed = get("2").await;
    assert_eq!(crashed["status"], "crashed");
    assert_eq!(crashed["nodes"], json!({ "crashed": ["web-1"], "ready": ["web-2"], "succeeded": ["web-3"] }));
    lab.stop().await;
}

#[tokio::test]
async fn an_original_database_is_imported_into_sqlite() {
    import_into(None).await;
}

#[tokio::test]
async fn an_original_database_is_imported_into_postgres() {
    let Some(database) = postgres::database() else { return };
    import_into(Some(database)).await;
}

#[tokio::test]
async fn lists_take_pages_and_filters() {
    let lab = Lab::start_with(SETTINGS).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let body = format!(r#"{{"command":"c {}","nodes":["n{number}"]}}"#, number % 2);
        ids.push(lab.post(&lab.admin, &body).await.job_id());
    }
    tokio::time::timeout(
        Duration::from_secs(5),
        lab.job_until(&ids[4], |job| job["status"] == "quorum_failed"),
    )
    .await
    .expect("the vote closes");
    let check = async |query: &str, wanted: &[usize]| {
        let answer = lab.get(&lab.admin, &format!("~/jobs?{query}")).await;
        let list = answer.json();
        let found: Vec<&str> =
            list.as_array().expect("a list").iter().filter_map(|j| j["id"].as_str()).collect();
        assert_eq!(found, wanted.iter().map(|i| ids[*i].as_str()).collect::<Vec<_>>(), "{query}");
    };
    check("", &[0, 1, 2, 3, 4]).await;
    check("unknown=1", &[0, 1, 2, 3, 4]).await;
    check("limit=2", &[3, 4]).await;
    check(&format!("limit=2&before={}", ids[3]), &[1, 2]).await;
    check("command=c%200", &[0, 2, 4]).await;
    check("user=admin&node=n3", &[3]).await;
    check("user=ann", &[]).await;
    check("status=quorum_failed&limit=1", &[4]).await;
    check("status=running", &[]).await;
    for (query, text) in [
        ("limit=0", "limit: must be a number from 1 to 10000"),
        ("limit=x", "limit: must be a number from 1 to 10000"),
        ("before=x", "before: must be a job ID of 32 hexadecimal digits"),
        ("before=00000000000000000000000000000000", "before: there is no such job"),
        (
            "status=done",
            "status: must be one of voting, running, complete, quorum_failed, aborted, new, timed_out, crashed",
        ),
        ("node=", "node: is not a node name"),
    ] {
        let answer = lab.get(&lab.admin, &format!("~/jobs?{query}")).await;
        answer.check(400, &json!({ "error": [text] }).to_string());
    }
    lab.stop().await;
}

#[tokio::test]
async fn what_is_refused_leaves_a_database_elsewhere_empty() {
    let Some(database) = postgres::database() else { return };
    let (root, url) = (tempfile::tempdir().expect("a directory"), database.url());
    let d = |name: &str| root.path().join(name).display().to_string();
    let said = cli(&["init", "--admin", "Jane Doe", "--database", &url, &d("A")]).await.expect_err("a name");
    assert!(said.contains("invalid user name \"Jane Doe\""), "{said}");
    cli(&["init", &d("B")]).await.expect("a server");
    let backup = d("backup");
    cli(&["-d", &d("B"), "backup", &backup]).await.expect("a backup");
    let restore = |dir: &str, keys: &str| {
        let args = ["-d", dir, "restore", &backup, "--database", &url, "--keys", keys].map(str::to_owned);
        async move { cli(&args.each_ref().map(String::as_str)).await }
    };
    let said = restore(&d("C"), &d("missing.json")).await.expect_err("no keys");
    assert!(said.contains("missing.json"), "{said}");
    restore(&d("C"), &d("B/keys.json")).await.expect("the database is still empty");
    // Now it is not, although there is neither a running job nor, with a Chef server, an organization.
    let said = cli(&["init", "--database", &url, &d("D")]).await.expect_err("a used database");
    assert!(said.contains("not empty; give a new database"), "{said}");
}
