//! The operator's commands: what they write, print and refuse, with and without a running server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::lab::{Actor, Lab, arg, cli, made, public_key};

#[track_caller]
fn check_mode(path: &Path, mode: u32) {
    let found =
        std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode();
    assert_eq!(found & 0o777, mode, "{}", path.display());
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[tokio::test]
async fn init_makes_a_directory_to_run_from() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("new").join("D");
    let d = arg(&dir);
    let said =
        cli(&["init", d, "--org", "ops", "--api-listen", "[::1]:4711", "--heartbeat-interval", "2"]).await;
    let expected = format!(
        "Made a push server for organization 'ops' in {d}.\n  start it:    pushy-server run {d}\n  \
         add a node:  pushy-server -d {d} node add NAME\n  ask it:      knife node status -c {d}/admin/.chef/config.rb\n"
    );
    assert_eq!(said, Ok(expected));
    check_mode(&dir, 0o700);
    for secret in ["keys.json", "pushy.db", "admin/.chef/admin.pem"] {
        check_mode(&dir.join(secret), 0o600);
    }
    assert_eq!(
        read(&dir.join("admin/.chef/config.rb")),
        "current_dir = File.dirname(__FILE__)\nchef_server_url 'http://[::1]:4711/organizations/ops'\n\
         node_name 'admin'\nclient_key \"#{current_dir}/admin.pem\"\n"
    );
    assert_eq!(
        read(&dir.join("admin/.chef/credentials")),
        format!(
            "[default]\nchef_server_url = \"http://[::1]:4711/organizations/ops\"\nclient_name = \"admin\"\n\
             client_key = \"{d}/admin/.chef/admin.pem\"\n"
        )
    );
    let settings = read(&dir.join("server.toml"));
    for line in
        ["\napi_listen = \"[::1]:4711\"\n", "\nheartbeat_interval = 2.0\n", "\n# voting_timeout = 60.0\n"]
    {
        assert!(settings.contains(line), "{line}");
    }
    let again = cli(&["init", d]).await;
    assert_eq!(again, Err(format!("{d}: not empty; give a new or empty directory")));
    assert_eq!(cli(&["-d", d, "user", "list"]).await, Ok("admin\tops (admin)\n".into()));
    assert_eq!(cli(&["-d", d, "group", "list"]).await, Ok("admins\tuser admin\n".into()));
}

#[tokio::test]
async fn init_leaves_nothing_behind_when_it_refuses() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("D");
    for (args, error) in [
        (&["--org", "Ops"][..], "invalid organization name (lower-case letters, digits, - and _)"),
        (
            &["--admin", "a b"][..],
            "invalid user name \"a b\": use 1 to 255 letters, digits, '_', '.', ':' and '-'",
        ),
    ] {
        assert_eq!(cli(&[&["init", arg(&dir)], args].concat()).await, Err(error.into()));
        assert!(!dir.exists() || std::fs::read_dir(&dir).expect("a directory").next().is_none());
    }
}

/// The same conversation with a server that runs and one that does not.
async fn converse(d: &str) {
    let run = async |args: &[&str]| cli(&[&["-d", d], args].concat()).await;
    let ok =
        async |args: &[&str], expected: &str| assert_eq!(run(args).await, Ok(expected.into()), "{args:?}");
    let refused = async |args: &[&str], expected: &str| {
        assert_eq!(run(args).await, Err(expected.into()), "{args:?}");
    };
    let dir = Path::new(d);
    let file = dir.join("names");
    std::fs::write(&file, "# web\nweb-3\n\n web-4 \n").expect("a file");
    let names = format!("@{}", file.display());
    let of = |name: &str| format!("{d}/nodes/{name}/push-jobs-client.rb\n");
    ok(&["node", "add", "web-1", "web-2"], &(of("web-1") + &of("web-2"))).await;
    ok(&["node", "add", &names], &(of("web-3") + &of("web-4"))).await;
    ok(&["node", "list"], "web-1\nweb-2\nweb-3\nweb-4\n").await;
    check_mode(&dir.join("nodes/web-1/client.pem"), 0o600);
    let config = read(&dir.join("nodes/web-1/push-jobs-client.rb"));
    assert!(
        config.contains(
            "/organizations/acme'\nnode_name 'web-1'\nclient_key File.join(__dir__, 'client.pem')\n"
        )
    );
    let exists = "node 'web-1' exists already; `pushy-server node rekey` gives it a new key";
    let elsewhere = arg(dir).to_owned() + "/elsewhere";
    refused(&["node", "add", "web-9", "web-1", "--out", &elsewhere], exists).await;
    ok(&["node", "list"], "web-1\nweb-2\nweb-3\nweb-4\n").await;
    refused(&["node", "add", "web-1"], &format!("{d}/nodes/web-1: exists already; remove it or use --out"))
        .await;
    refused(&["node", "add", ".."], &format!("{d}/nodes/..: exists already; remove it or use --out")).await;
    refused(
        &["node", "add", "a/b"],
        "invalid node name \"a/b\": use 1 to 255 letters, digits, '_', '.', ':' and '-'",
    )
    .await;
    refused(&["node", "remove", "web-9"], "no node 'web-9' in organization 'acme'").await;
    ok(&["node", "remove", "web-2", &names], "").await;
    ok(&["node", "list"], "web-1\n").await;

    let public = dir.join("public.pem");
    std::fs::write(&public, public_key(0)).expect("a file");
    let p = arg(&public);
    ok(&["node", "add", "web-5", "--public-key", p], &of("web-5")).await;
    assert!(!dir.join("nodes/web-5/client.pem").exists());
    std::fs::write(&public, "nonsense").expect("a file");
    let nonsense = format!("{p}: a public key begins with a line -----BEGIN …-----");
    refused(&["node", "add", "web-6", "--public-key", p], &nonsense).await;
    refused(
        &["node", "add", "web-6", "--public-key", "/no/such.pem"],
        "/no/such.pem: No such file or directory (os error 2)",
    )
    .await;
    refused(&["node", "add", "a", "b", "--public-key", p], "--public-key goes with one name").await;

    let before = read(&dir.join("nodes/web-1/client.pem"));
    std::fs::write(dir.join("nodes/web-1/push-jobs-client.rb"), "# edited\n").expect("a file");
    ok(&["node", "rekey", "web-1"], &format!("{d}/nodes/web-1/client.pem\n")).await;
    assert_ne!(read(&dir.join("nodes/web-1/client.pem")), before);
    assert_eq!(read(&dir.join("nodes/web-1/push-jobs-client.rb")), "# edited\n");

    ok(&["user", "add", "ann", "--admin"], &format!("{d}/users/ann/.chef/config.rb\n")).await;
    refused(
        &["user", "add", "ann", "--out", &elsewhere],
        "user 'ann' exists already; `pushy-server org add-user` adds it to another organization, \
         `pushy-server user rekey` gives it a new key",
    )
    .await;
    ok(&["user", "add", "web-1"], &format!("{d}/users/web-1/.chef/config.rb\n")).await;
    ok(&["group", "add", "pushy_job_readers"], "").await;
    refused(&["group", "add", "pushy_job_readers"], "group 'pushy_job_readers' exists already").await;
    let member = ["group", "add-member", "pushy_job_readers"];
    refused(&[&member[..], &["web-1"]].concat(), "several things are called 'web-1'; say which with --kind")
        .await;
    ok(&[&member[..], &["web-1", "--kind", "client"]].concat(), "").await;
    ok(&[&member[..], &["admins"]].concat(), "").await;
    refused(&[&member[..], &["bob"]].concat(), "no user, node or group 'bob' in this organization").await;
    refused(
        &["group", "add-member", "writers", "ann"],
        "no group 'writers'; make it with `pushy-server group add writers`",
    )
    .await;
    let listed = "admins\tuser admin, user ann\npushy_job_readers\tclient web-1, group admins\n";
    ok(&["group", "list"], listed).await;
    ok(&["group", "remove-member", "pushy_job_readers", "web-1"], "").await;
    refused(
        &["group", "remove-member", "pushy_job_readers", "web-1"],
        "'web-1' is not in group 'pushy_job_readers'",
    )
    .await;
    ok(&["user", "remove", "ann"], "").await;
    refused(&["user", "remove", "ann"], "no user 'ann'").await;
    ok(&["group", "list"], "admins\tuser admin\npushy_job_readers\tgroup admins\n").await;
    ok(&["group", "remove", "pushy_job_readers"], "").await;

    ok(&["org", "add", "other"], "").await;
    refused(&["org", "add", "other"], "organization 'other' exists already").await;
    refused(&["node", "list"], "which organization? Use --org with one of: acme, other").await;
    ok(&["org", "add-user", "web-1", "--org", "other"], "").await;
    ok(
        &["node", "add", "web-1", "-o", "other", "--out", &elsewhere],
        &format!("{elsewhere}/web-1/push-jobs-client.rb\n"),
    )
    .await;
    ok(&["user", "list"], "admin\tacme (admin)\nweb-1\tacme, other\n").await;
    ok(&["org", "remove-user", "web-1", "--org", "other"], "").await;
    ok(&["org", "remove", "other"], "").await;
    refused(&["org", "remove", "other"], "no organization 'other'").await;
    ok(&["user", "list"], "admin\tacme (admin)\nweb-1\tacme\n").await;
    ok(&["node", "list"], "web-1\nweb-5\n").await;
}

#[tokio::test]
async fn commands_without_a_server_change_the_database() {
    let root = made("advertise_api_url = \"https://push.example.com\"\n").await;
    let dir = root.path().join("D");
    converse(arg(&dir)).await;
    // A server that starts afterwards knows what was left.
    let lab = Lab::start_in(root).await;
    let web = Actor::new("web-1", &read(&dir.join("users/web-1/.chef/web-1.pem")));
    lab.get(&web, "~/jobs").await.check(200, "[]");
    lab.stop().await;
}

#[tokio::test]
async fn commands_with_a_server_take_effect_at_once_and_last() {
    let lab = Lab::start().await;
    converse(arg(&lab.dir)).await;
    let web = Actor::new("web-1", &read(&lab.dir.join("users/web-1/.chef/web-1.pem")));
    lab.get(&web, "~/jobs").await.check(200, "[]");
    cli(&["-d", arg(&lab.dir), "user", "rekey", "web-1"]).await.expect("a new key");
    lab.get(&web, "~/jobs").await.check_status(401);
    let web = Actor::new("web-1", &read(&lab.dir.join("users/web-1/.chef/web-1.pem")));
    let lab = Lab::start_in(lab.stop().await).await;
    lab.get(&web, "~/jobs").await.check(200, "[]");
    lab.stop().await;
}

#[tokio::test]
async fn status_tells_how_the_server_is() {
    let lab = Lab::start().await;
    let said = cli(&["status", arg(&lab.dir)]).await.expect("a status");
    for line in [
        format!("version      {}", env!("CARGO_PKG_VERSION")),
        format!("pid          {}", std::process::id()),
        format!("REST API     http://{}", lab.address),
        "nodes        0".to_owned(),
        "jobs running 0".to_owned(),
    ] {
        assert!(said.lines().any(|l| l == line), "{line}:\n{said}");
    }
    let dir = lab.dir.clone();
    let root = lab.stop().await;
    let d = arg(&dir);
    let expected = format!("the server of {d} does not run; start it with `pushy-server run {d}`");
    assert_eq!(cli(&["status", d]).await, Err(expected));
    drop(root);
    let missing = format!("{d}/server.toml: no such file; make a server there with `pushy-server init {d}`");
    assert_eq!(cli(&["status", d]).await, Err(missing.clone()));
    assert_eq!(cli(&["-d", d, "node", "list"]).await, Err(missing));
    assert!(!dir.exists());
}
