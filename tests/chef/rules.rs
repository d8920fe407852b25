//! Who is who and who may what, when a Chef server says so (3.2, 3.3, 12.17).

use pushy_tests::chef_stub::{ChefStub, SIGNER};

use crate::lab::{Actor, Folder, Server, actor, cli, config_path, public};

const NOBODY: &str =
    "Failed to authenticate as 'nobody'. Ensure that your node_name and client key are correct.";

/// A stub, a server before it, and everybody.
struct Town {
    chef: ChefStub,
    server: Server,
    folder: Folder,
}

impl Town {
    fn new() -> Town {
        let (chef, folder) = (ChefStub::start(), Folder::new());
        chef.add_org("acme");
        chef.put_user("admin", &[public(0)]);
        chef.put_user("alice", &[public(1)]);
        chef.put_user("outsider", &[public(1)]);
        chef.associate("acme", "admin");
        chef.associate("acme", "alice");
        chef.put_client("acme", "web1", &[public(2)]);
        chef.put_group("acme", "admins", &["admin"], &[], &[]);
        let server = Server::start(&in_front(&chef, &folder));
        Town { chef, server, folder }
    }

    /// Read and write, each with its status.
    #[track_caller]
    fn may(&self, who: &Actor, read: u16, write: u16) {
        let found = (self.server.status(who, "~/jobs"), self.server.post(who));
        assert_eq!(found, (read, write), "{}", who.name);
    }
}

/// A push server's directory before a stub, made with the command an operator has, its caches off.
pub(crate) fn in_front(chef: &ChefStub, folder: &Folder) -> std::path::PathBuf {
    let settings = chef.settings(&folder.path("."));
    let key = folder.path("chef.pem");
    let url = chef.url();
    let args = ["--chef-server-url", &url, "--chef-client-name", SIGNER];
    let dir = folder.init(&[&args[..], &["--chef-client-key", key.to_str().expect("UTF-8")]].concat());
    let more: String = settings.lines().filter(|l| l.contains("_cache")).map(|l| format!("{l}\n")).collect();
    let file = dir.join("server.toml");
    let text = std::fs::read_to_string(&file).expect("server.toml");
    std::fs::write(&file, format!("{text}\n{more}chef_timeout = 0.5\n")).expect("server.toml");
    dir
}

#[test]
fn names_organizations_and_signatures() {
    let town = Town::new();
    let server = &town.server;
    let (admin, alice, web1) = (actor("admin", 0), actor("alice", 1), actor("web1", 2));
    for who in [&admin, &alice, &web1] {
        assert_eq!(server.get(who, "~/jobs"), (200, "[]".into()), "{}", who.name);
        let path = "/organizations/bogus/pushy/jobs";
        server.check(who, path, 404, "organization 'bogus' does not exist.");
        server.check(who, "/organizations/NO/pushy/jobs", 404, "organization 'NO' does not exist.");
    }
    server.check(&actor("nobody", 0), "~/jobs", 401, NOBODY);
    server.check(
        &actor("outsider", 1),
        "~/jobs",
        403,
        "'outsider' is not associated with organization 'acme'",
    );
    server.check(&actor("alice", 0), "~/jobs", 401, "Invalid signature for user or client 'alice'");
    // Names that no URL can carry are nobody's, and are not asked for.
    let asked = town.chef.count("/principals/");
    for odd in ["..", "a/b", "a b", "%61lice", "alice?x", "alice#"] {
        assert_eq!(server.status(&actor(odd, 1), "~/jobs"), 401, "{odd}");
    }
    assert_eq!(town.chef.count("/principals/"), asked);
    // Every question names the version it understands; those about organizations and groups are signed by our own user.
    for seen in town.chef.seen() {
        assert_eq!((seen.user.as_str(), seen.api_version.as_str()), (SIGNER, "1"), "{}", seen.path);
    }
}

#[test]
fn versions_of_the_answer_and_several_keys() {
    let town = Town::new();
    let (chef, server) = (&town.chef, &town.server);
    let read = |name: &str, key: usize| server.status(&actor(name, key), "~/jobs");
    // Two keys, each of which may sign.
    chef.put_user("alice", &[public(1), public(3)]);
    assert_eq!([1, 3, 2].map(|key| read("alice", key)), [200, 200, 401]);
    // A user and a client of one name: whoever signed decides what rules hold. Only the user is an administrator.
    chef.put_client("acme", "admin", &[public(3)]);
    assert_eq!((server.post(&actor("admin", 0)), server.post(&actor("admin", 3))), (201, 403));
    // One key for both: the last entry, the client's, is tried first (3.2).
    chef.put_client("acme", "admin", &[public(0)]);
    assert_eq!(server.post(&actor("admin", 0)), 403);
    chef.remove_client("acme", "admin");
    // A key that is none does not hide the next.
    chef.put_user("alice", &["-----BEGIN PUBLIC KEY-----\nbm8=\n-----END PUBLIC KEY-----\n", public(1)]);
    assert_eq!(read("alice", 1), 200);
    // A user of this name outside the organization does not hide the client.
    chef.put_user("web1", &[public(0)]);
    assert_eq!((read("web1", 2), read("web1", 0)), (200, 401));
    chef.remove_user("web1");
    chef.answer_in_version_0(true);
    assert_eq!([0, 1].map(|key| read("admin", key)), [200, 401]);
    assert_eq!(["web1", "nobody"].map(|name| read(name, 2)), [200, 401]);
    assert_eq!(read("outsider", 1), 403);
}

#[test]
fn groups() {
    let town = Town::new();
    let chef = &town.chef;
    let (admin, alice, web1) = (actor("admin", 0), actor("alice", 1), actor("web1", 2));
    // No group of ours: everybody reads, administrators write.
    town.may(&admin, 200, 201);
    town.may(&alice, 200, 403);
    town.may(&web1, 200, 403);
    // Our groups stand in place of the administrators.
    chef.put_group("acme", "pushy_job_writers", &["alice"], &["web1"], &[]);
    town.may(&admin, 200, 403);
    town.may(&alice, 200, 201);
    town.may(&web1, 200, 201);
    chef.put_group("acme", "pushy_job_readers", &["alice"], &[], &[]);
    town.may(&admin, 403, 403);
    town.may(&alice, 200, 201);
    town.may(&web1, 403, 201);
    // A user is no client of the same name.
    chef.put_group("acme", "pushy_job_readers", &[], &["alice"], &[]);
    town.may(&alice, 403, 201);
    // Groups within groups, in a circle (D-36), one of them gone, one of them out of order.
    chef.put_group("acme", "pushy_job_readers", &[], &[], &["a"]);
    chef.put_group("acme", "a", &[], &[], &["gone", "b", "pushy_job_readers"]);
    chef.put_group("acme", "b", &["alice"], &[], &["a"]);
    town.may(&alice, 200, 201);
    town.may(&admin, 403, 403);
    chef.remove_group("acme", "pushy_job_writers");
    chef.remove_group("acme", "admins");
    town.may(&alice, 200, 403);
    // A node's own configuration asks for no group; a user's follows the read rule.
    let server = &town.server;
    let asked = chef.count("/groups/");
    assert_eq!(server.status(&web1, &config_path("web1")), 200);
    assert_eq!(server.status(&web1, &config_path("web2")), 403);
    assert_eq!(chef.count("/groups/"), asked);
    assert_eq!(
        (server.status(&alice, &config_path("web1")), server.status(&admin, &config_path("web1"))),
        (200, 403)
    );
}

#[test]
fn status_tells_jobs_to_members_only() {
    let town = Town::new();
    let (admin, outsider) = (actor("admin", 0), actor("outsider", 1));
    assert_eq!(town.server.post(&admin), 201);
    let jobs = |who: &Actor| {
        let (status, body) = town.server.get(who, "/pushy/_status");
        assert_eq!(status, 200);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        body["job_processes"].as_array().expect("a list").len()
    };
    assert_eq!(jobs(&outsider), 0);
    assert_eq!(jobs(&actor("admin", 1)), 0);
    // With the caches off no organization is known; nothing is told, nothing fails.
    assert!(jobs(&admin) <= 1);
}

#[test]
fn the_operator_is_told_where_to_go() {
    let town = Town::new();
    let dir = town.folder.path("D");
    let dir = dir.to_str().expect("UTF-8");
    let check = |args: &[&str], text: &str| {
        assert_eq!(cli(&[&["-d", dir], args].concat()), Err(text.to_owned()), "{args:?}");
    };
    let theirs =
        |what: &str| format!("the {what} of this server are those of the Chef server; use knife there");
    check(&["user", "add", "bob"], &theirs("users and nodes"));
    check(&["user", "list"], &theirs("users"));
    check(&["node", "list"], &theirs("nodes"));
    check(&["group", "list"], &theirs("groups"));
    check(&["org", "add", "other"], &theirs("organizations"));
    assert!(cli(&["status", dir]).is_ok());
}
