//! A real goiardi (Debian's package) knows users and clients; organization and groups are the push server's (decision 33).

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pushy_tests::http::Http;
use pushy_tests::{Process, bin_dir, until};
use serde_json::{Value, json};

use crate::lab::{Actor, Folder, Server, actor, actor_with, cli, config_path, public};

const START: Duration = Duration::from_secs(20);

/// A goiardi in memory; ends when dropped.
struct Goiardi {
    host: String,
    admin: Actor,
    process: Process,
}

impl Goiardi {
    /// `None`, after a line that says so, where it is not installed.
    fn start(folder: &Folder) -> Option<Goiardi> {
        if Command::new("goiardi").arg("--version").output().is_err() {
            println!("skipped: goiardi is not installed (Debian: goiardi)");
            return None;
        }
        let home = folder.path("goiardi");
        std::fs::create_dir(&home).expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let mut command = Command::new("goiardi");
        command.args(["--use-auth", "--ipaddress=127.0.0.1", "--hostname=127.0.0.1"]);
        command.arg(format!("--port={}", free.port())).arg(format!("--conf-root={}", home.display()));
        let mut process =
            Process::start("goiardi", &folder.path("goiardi.log"), &mut command).expect("goiardi starts");
        let key = until("goiardi to listen", START, || {
            assert!(process.is_running(), "goiardi has ended: {}", process.output());
            TcpStream::connect(free).ok()?;
            std::fs::read_to_string(home.join("admin.pem")).ok()
        });
        Some(Goiardi { host: free.to_string(), admin: actor_with("admin", &key), process })
    }

    fn call(&self, method: &str, path: &str, body: &Value) {
        let who = (self.admin.name.as_str(), &*self.admin.key);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = Http::new(&self.host).call(who, method, path, &body).expect("an answer");
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&text));
    }

    fn add_user(&self, name: &str, key: usize, admin: bool) {
        let body =
            json!({ "name": name, "admin": admin, "password": "correct horse", "public_key": public(key) });
        self.call("POST", "/users", &body);
    }

    fn add_client(&self, name: &str, key: usize, admin: bool) {
        self.call("POST", "/clients", &json!({ "name": name, "admin": admin, "public_key": public(key) }));
    }
}

/// A push server before it, made as an operator makes one.
fn in_front(goiardi: &Goiardi, folder: &Folder) -> PathBuf {
    let key = folder.path("pushy.pem");
    std::fs::write(&key, crate::lab::private(3)).expect("a key file");
    let url = format!("http://{}", goiardi.host);
    let key = key.to_str().expect("UTF-8");
    let dir = folder.init(&[
        "--chef-server-url",
        &url,
        "--chef-client-name",
        "pushy",
        "--chef-client-key",
        key,
        "--chef-organization",
        "acme",
    ]);
    let file = dir.join("server.toml");
    let text = std::fs::read_to_string(&file).expect("server.toml");
    std::fs::write(&file, format!("{text}\nchef_principal_cache = 0.2\nchef_group_cache = 0.2\n"))
        .expect("written");
    dir
}

/// Our agent, as it is installed on a node.
fn agent(folder: &Folder, server: &Server, name: &str, key: usize) -> Process {
    let file = |ending: &str| folder.path(&format!("{name}.{ending}"));
    std::fs::write(file("pem"), crate::lab::private(key)).expect("a key file");
    let text = format!(
        "chef_server_url 'http://{}/organizations/acme'\nnode_name '{name}'\nclient_key '{}'\nfile_dir '{}'\n\
         state_dir '{}'\nwhitelist({{ 'say' => 'echo said' }})\n",
        server.host(),
        file("pem").display(),
        file("files").display(),
        file("state").display(),
    );
    std::fs::write(file("rb"), text).expect("a configuration");
    let mut command = Command::new(bin_dir().join("push-jobs-client"));
    Process::start(name, &file("log"), command.arg("-c").arg(file("rb"))).expect("the agent starts")
}

fn state(server: &Server, who: &Actor, node: &str) -> Value {
    let (status, body) = server.get(who, &format!("~/node_states/{node}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn group(dir: &Path, args: &[&str]) {
    cli(&[&["-d", dir.to_str().expect("UTF-8"), "group"], args].concat()).expect("a change of groups");
}

#[test]
fn users_clients_and_a_job_of_a_real_agent() {
    let folder = Folder::new();
    let Some(mut goiardi) = Goiardi::start(&folder) else { return };
    goiardi.add_client("pushy", 3, true);
    goiardi.add_user("alice", 1, false);
    goiardi.add_client("web1", 2, false);
    let dir = in_front(&goiardi, &folder);
    let server = Server::start(&dir);
    let (alice, web1) = (actor("alice", 1), actor("web1", 2));
    let admin = goiardi.admin.clone();

    // Everybody reads, under both kinds of paths; nobody from elsewhere does.
    for who in [&admin, &alice, &web1] {
        for path in ["~/node_states", "/pushy/node_states", "~/jobs", "/pushy/jobs"] {
            assert_eq!(server.get(who, path), (200, "[]".into()), "{} {path}", who.name);
        }
        assert_eq!(server.status(who, "/pushy/_status"), 200);
        server.check(who, "/organizations/other/pushy/jobs", 404, "organization 'other' does not exist.");
    }
    assert_eq!(server.status(&actor("nobody", 1), "/pushy/jobs"), 401);
    assert_eq!(server.status(&actor("alice", 2), "/pushy/jobs"), 401);
    let bare = config_path("web1").replace("~/", "/pushy/");
    assert_eq!(
        [&config_path("web1"), &bare, &config_path("web2")].map(|path| server.status(&web1, path)),
        [200, 200, 403]
    );
    let (_, config) = server.get(&web1, &bare);
    assert!(config.contains(r#""organization":"acme""#), "{config}");

    // goiardi's administrators write, unless there is a group of ours.
    assert_eq!([&admin, &alice, &web1].map(|who| server.post(who)), [201, 403, 403]);
    group(&dir, &["add", "pushy_job_writers"]);
    group(&dir, &["add-member", "pushy_job_writers", "alice", "--kind", "user"]);
    assert_eq!([&admin, &alice, &web1].map(|who| server.post(who)), [403, 201, 403]);
    group(&dir, &["add", "pushy_job_readers"]);
    group(&dir, &["add-member", "pushy_job_readers", "admin", "--kind", "user"]);
    assert_eq!([&admin, &alice, &web1].map(|who| server.status(who, "/pushy/jobs")), [200, 403, 403]);
    group(&dir, &["remove", "pushy_job_writers"]);
    group(&dir, &["remove", "pushy_job_readers"]);

    // A job with a real agent; the address of the job follows the path it was asked under.
    let mut node = agent(&folder, &server, "web1", 2);
    until("the agent to be available", START, || {
        assert!(node.is_running(), "the agent has ended: {}", node.output());
        (state(&server, &alice, "web1")["availability"] == "available").then_some(())
    });
    for (path, job_path) in [("/pushy/jobs", "/pushy/jobs/"), ("~/jobs", "/organizations/acme/pushy/jobs/")] {
        let body = r#"{"command":"say","nodes":["web1"],"capture_output":true}"#;
        let (status, answer) = server.call(&admin, "POST", path, body);
        assert_eq!(status, 201, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let uri = answer["uri"].as_str().expect("a URI");
        let at = uri.strip_prefix(&format!("http://{}", server.host())).expect("our address");
        assert!(at.starts_with(job_path), "{uri}");
        let job = until("the job to end", START, || {
            let job: Value = serde_json::from_str(&server.get(&alice, at).1).expect("JSON");
            (!matches!(job["status"].as_str(), Some("voting" | "running"))).then_some(job)
        });
        assert_eq!(
            (&job["status"], &job["nodes"]["succeeded"][0]),
            (&json!("complete"), &json!("web1")),
            "{job}"
        );
        assert_eq!(server.get(&alice, &format!("{at}/output/web1/stdout")), (200, "said\n".into()));
    }

    // A client that goiardi does not know any more: its next request is refused, its connection ends.
    goiardi.call("DELETE", "/clients/web1", &Value::Null);
    until("the client to be refused", Duration::from_secs(5), || {
        (server.status(&web1, "/pushy/jobs") == 401).then_some(())
    });
    until("the node to be gone", Duration::from_secs(10), || {
        (state(&server, &alice, "web1")["status"] == "offline").then_some(())
    });
    drop(node);

    // GUID and groups are the server's own: they survive a restart.
    let jobs = server.get(&alice, "~/jobs");
    drop(server);
    let server = Server::start(&dir);
    assert_eq!(server.get(&alice, "~/jobs"), jobs);
    goiardi.process.stop();
    until("goiardi to be missed", Duration::from_secs(5), || {
        let (status, text) = server.get(&alice, "~/jobs");
        let away =
            "cannot ask the Chef server for client or user 'alice' of organization 'acme': no connection";
        (status == 502 && text.contains(away)).then_some(())
    });
}
