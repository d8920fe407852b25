//! chef-zero of the lab that `CHEF_LAB` names: the stub answers as it does, where it does as a real Chef server; and the
//! push server works before it.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use pushy_core::client::{Client, Settings};
use pushy_tests::chef_stub::ChefStub;
use pushy_tests::http::Http;
use pushy_tests::{Process, until};
use serde_json::{Value, json};

use crate::lab::{Actor, Folder, Server, actor, actor_with, private, public};

/// A chef-zero with one organization, two users and a client; it believes every signature.
struct Zero {
    host: String,
    alice: Actor,
    _process: Process,
}

impl Zero {
    fn start(folder: &Folder) -> Option<Zero> {
        let Some(lab) = std::env::var_os("CHEF_LAB").filter(|dir| !dir.is_empty()) else {
            println!("lab: skipped: CHEF_LAB names no folder with chef-zero");
            return None;
        };
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let port = free.port().to_string();
        let mut command = Command::new("bash");
        command.args(["-c", ". \"$CHEF_LAB/env.sh\"; exec chef-zero \"$@\"", "lab", "--multi-org"]);
        command.args(["--host", "127.0.0.1", "--port", &port]).env("CHEF_LAB", &lab);
        let mut process =
            Process::start("chef-zero", &folder.path("zero.log"), &mut command).expect("it starts");
        until("chef-zero to listen", Duration::from_secs(60), || {
            assert!(process.is_running(), "chef-zero has ended: {}", process.output());
            TcpStream::connect(free).ok()
        });
        // It tells one key for all members, its own.
        let ask = ". \"$CHEF_LAB/env.sh\"; exec ruby -rchef_zero -e 'print ChefZero::PRIVATE_KEY'";
        let key = Command::new("bash").args(["-c", ask]).env("CHEF_LAB", &lab).output().expect("ruby runs");
        let alice = actor_with("alice", &String::from_utf8_lossy(&key.stdout));
        let zero = Zero { host: free.to_string(), alice, _process: process };
        zero.call("POST", "/organizations", &json!({ "name": "acme", "full_name": "Acme" }));
        let user = |name: &str| json!({ "username": name, "display_name": name, "email": "a@b.c", "password": "secret12" });
        zero.call("POST", "/users", &user("alice"));
        zero.call("POST", "/users", &user("outsider"));
        zero.call("POST", "/organizations/acme/users", &json!({ "username": "alice" }));
        let client = json!({ "name": "web1", "public_key": public(2) });
        zero.call("POST", "/organizations/acme/clients", &client);
        let actors = json!({ "users": ["alice"], "clients": [], "groups": [] });
        let group = json!({ "groupname": "admins", "actors": actors });
        zero.call("PUT", "/organizations/acme/groups/admins", &group);
        Some(zero)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let pivotal = actor("pivotal", 0);
        let who = (pivotal.name.as_str(), &*pivotal.key);
        let answer = Http::new(&self.host).call(who, method, path, &body.to_string()).expect("an answer");
        assert!((200..300).contains(&answer.0), "{method} {path}: {answer:?}");
        serde_json::from_slice(&answer.1).unwrap_or_default()
    }
}

/// The stub with the same people.
fn stub() -> ChefStub {
    let chef = ChefStub::start();
    chef.add_org("acme");
    chef.put_user("alice", &[public(0)]);
    chef.put_user("outsider", &[public(0)]);
    chef.associate("acme", "alice");
    chef.put_client("acme", "web1", &[public(2)]);
    chef.put_group("acme", "admins", &["alice"], &[], &[]);
    chef
}

/// A document without what differs from server to server: keys, ids, addresses and the wording of errors.
fn plain(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match name.as_str() {
                        "public_key" | "authz_id" | "guid" => {
                            assert!(value.is_string(), "{name}: {value}");
                            *value = Value::Null;
                        }
                        "error" => *value = Value::Null,
                        _ => walk(value),
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

fn document(url: &str, folder: &Folder, path: &str) -> (u16, Value) {
    let key = pushy_core::auth::SigningKey::from_pem(std::fs::read(folder.path("chef.pem")).expect("a key"));
    let settings = Settings::new(url, "pushy").with_key(key.expect("a key"), "chef.pem");
    let client = Client::new(settings).expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = runtime.block_on(client.document(path)).expect("an answer");
    let body = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}"));
    (answer.status, plain(body))
}

#[test]
fn the_stub_answers_as_chef_zero_does() {
    let folder = Folder::new();
    let Some(zero) = Zero::start(&folder) else { return };
    let chef = stub();
    drop(chef.settings(&folder.path(".")));
    let both = |path: &str| {
        let of = |url: &str| document(url, &folder, path);
        (of(&chef.url()), of(&format!("http://{}", zero.host)))
    };
    for path in [
        "organizations/acme/principals/alice",
        "organizations/acme/principals/web1",
        "organizations/acme/principals/outsider",
        "organizations/acme/groups/gone",
        "organizations/bogus",
    ] {
        let (ours, theirs) = both(path);
        assert_eq!(ours, theirs, "{path}");
    }
    // chef-zero leaves `not_found` out (3.2 has it from a real server).
    let (ours, theirs) = both("organizations/acme/principals/nobody");
    assert_eq!(ours, (404, json!({ "not_found": "principal", "error": null })));
    assert_eq!(theirs, (404, json!({ "error": null })));
    // It says who administers an organization even of itself, in the list of all actors.
    let ((status, mut ours), (other, mut theirs)) = both("organizations/acme/groups/admins");
    assert_eq!((status, other), (200, 200));
    for group in [&mut ours, &mut theirs] {
        assert!(group["actors"].take().is_array());
    }
    assert_eq!(ours, theirs);
    // It tells more about an organization.
    let ((status, ours), (other, theirs)) = both("organizations/acme");
    assert_eq!((status, other), (200, 200));
    for (name, value) in ours.as_object().expect("an object") {
        assert!(name == "full_name" || theirs[name] == *value, "{name}: {theirs}");
    }
    println!("lab: the stub answers as chef-zero does: 8 questions");
}

#[test]
fn the_push_server_works_before_chef_zero() {
    let folder = Folder::new();
    let Some(zero) = Zero::start(&folder) else { return };
    let key = folder.path("chef.pem");
    std::fs::write(&key, private(3)).expect("a key file");
    let url = format!("http://{}", zero.host);
    let key = key.to_str().expect("UTF-8");
    let dir =
        folder.init(&["--chef-server-url", &url, "--chef-client-name", "pushy", "--chef-client-key", key]);
    let server = Server::start(&dir);
    let (alice, web1) = (&zero.alice, actor("web1", 2));
    assert_eq!((server.status(alice, "~/jobs"), server.post(alice)), (200, 201));
    assert_eq!((server.status(&web1, "~/jobs"), server.post(&web1)), (200, 403));
    assert_eq!(server.status(&actor("web1", 1), "~/jobs"), 401);
    let outsider = Actor { name: "outsider".into(), key: alice.key.clone() };
    assert_eq!(server.status(&outsider, "~/jobs"), 403);
    assert_eq!(server.status(&web1, &crate::lab::config_path("web1")), 200);
    println!("lab: the push server works before chef-zero: users, clients, groups, a job");
}
