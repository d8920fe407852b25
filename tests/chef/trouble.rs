//! The Chef server is away, slow, or says strange things: 502 or 503 with words that help, never a wrong yes.

use std::time::{Duration, Instant};

use pushy_tests::chef_stub::{ChefStub, Instead};

use crate::lab::{Folder, Server, actor, public};
use crate::rules::in_front;

#[test]
fn every_strange_answer_has_a_status_and_a_text() {
    let (mut chef, folder) = (ChefStub::start(), Folder::new());
    chef.add_org("acme");
    chef.put_user("alice", &[public(1)]);
    chef.associate("acme", "alice");
    let server = Server::start(&in_front(&chef, &folder));
    let alice = actor("alice", 1);
    let check = |path: &str, instead: Instead, status: u16, text: &str| {
        chef.instead(path, instead.clone());
        let body = serde_json::json!({ "error": [text] }).to_string();
        assert_eq!(server.get(&alice, "~/jobs"), (status, body), "{path} {instead:?}");
        chef.no_more_instead();
        assert_eq!(server.status(&alice, "~/jobs"), 200, "after {instead:?}");
    };
    let (org, name, group) = (
        "organization 'acme'",
        "client or user 'alice' of organization 'acme'",
        "group 'pushy_job_readers' of organization 'acme'",
    );
    let (org_path, name_path, group_path) =
        ("/organizations/acme", "/organizations/acme/principals/", "/organizations/acme/groups/");
    for (path, what) in [(org_path, org), (name_path, name), (group_path, group)] {
        let asked = |text: &str| format!("the Chef server answers {text} when asked for {what}");
        let away = |text: &str| format!("cannot ask the Chef server for {what}: {text}");
        let refused =
            |status: u16| format!("the Chef server does not let \"pushy\" read {what} (HTTP {status})");
        check(path, Instead::Status(500), 502, &asked("HTTP 500"));
        check(path, Instead::Status(503), 503, &asked("HTTP 503"));
        check(path, Instead::Status(401), 502, &refused(401));
        check(path, Instead::Status(403), 502, &refused(403));
        check(path, Instead::Close, 502, &away("no connection"));
        check(path, Instead::Silence, 503, &away("no answer in time"));
        check(path, Instead::After(Duration::from_secs(1)), 503, &away("no answer in time"));
    }
    let said = |body: &str, what: &str| format!("the Chef server answers with {body} when asked for {what}");
    let raw = |body: &str| Instead::Raw(200, body.to_owned());
    check(org_path, raw("{}"), 502, &said("an organization without a GUID", org));
    check(org_path, raw(r#"{"guid":"x"}"#), 502, &said("a GUID that is not 32 hex digits", org));
    check(name_path, raw("nonsense"), 502, &said("a body that is not a principal", name));
    let list = |body: &str, version| Instead::Versioned(200, body.to_owned(), version);
    check(name_path, list("{}", "1"), 502, &said("a body without a list of principals", name));
    check(name_path, list("{}", "7"), 502, &said("a version of the API that is not known", name));
    // A 404 counts only when it says what there is not: another server's page must neither refuse nor open a door.
    let page = Instead::Raw(404, "<html>not here</html>".to_owned());
    check(name_path, page.clone(), 502, &format!("the Chef server answers HTTP 404 when asked for {name}"));
    check(group_path, page, 502, &format!("the Chef server answers HTTP 404 when asked for {group}"));
    check(group_path, raw("{}"), 502, &said("a body that is not a group", group));
    check(group_path, raw("[]"), 502, &said("a body that is not a group", group));

    // A subgroup in trouble matters only when no other group holds the name (3.3, D-37).
    chef.put_group("acme", "pushy_job_readers", &[], &[], &["bad", "good"]);
    chef.put_group("acme", "good", &["alice"], &[], &[]);
    chef.instead("/organizations/acme/groups/bad", Instead::Status(500));
    assert_eq!(server.status(&alice, "~/jobs"), 200);
    chef.put_group("acme", "good", &[], &[], &[]);
    assert_eq!(server.status(&alice, "~/jobs"), 502);
    chef.no_more_instead();
    assert_eq!(server.status(&alice, "~/jobs"), 403);
    chef.remove_group("acme", "pushy_job_readers");

    chef.stop();
    let text = format!("cannot ask the Chef server for {org}: no connection");
    server.check(&alice, "~/jobs", 502, &text);
    // What needs no Chef server still answers.
    assert_eq!(server.status(&alice, "/pushy/_status"), 200);
    chef.restart();
    assert_eq!(server.status(&alice, "~/jobs"), 200);
}

#[test]
fn a_crowd_before_a_silent_chef_server_is_answered_in_time() {
    let (chef, folder) = (ChefStub::start(), Folder::new());
    chef.add_org("acme");
    let server = Server::start(&in_front(&chef, &folder));
    chef.instead("/organizations/acme/principals/", Instead::Silence);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..60 {
            let server = &server;
            scope.spawn(move || assert_eq!(server.status(&actor(&format!("u{number}"), 0), "~/jobs"), 503));
        }
    });
    // Each question may take half a second, its turn included; the rest is this machine.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    chef.no_more_instead();
    assert_eq!(server.status(&actor("nobody", 0), "~/jobs"), 401);
}
