//! What is believed for how long: the promises of docs/security.md, with a moved clock; and what ends when a node is gone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pushy_core::auth::AuthError;
use pushy_core::ids::NodeRef;
use pushy_server::config::ChefServer;
use pushy_server::directory::Kind;
use pushy_server::principals::{Action, Chef, Hooks, OrgRef, Principals, Unanswered};
use pushy_tests::chef_stub::{ChefStub, Instead, SIGNER};

use crate::lab::{Folder, public};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(1);

/// A source with default settings, the hand of its clock, and the nodes it reported gone.
struct Bench {
    chef: ChefStub,
    source: Principals,
    hand: Arc<Mutex<Instant>>,
    gone: Arc<Mutex<Vec<NodeRef>>>,
}

impl Bench {
    fn new() -> Bench {
        let (chef, folder) = (ChefStub::start(), Folder::new());
        chef.add_org("acme");
        chef.put_user("alice", &[public(0)]);
        chef.associate("acme", "alice");
        chef.put_client("acme", "web1", &[public(1)]);
        // The settings as an operator gets them who sets none.
        drop(chef.settings(&folder.path(".")));
        let settings = ChefServer::new(&chef.url(), SIGNER, &folder.path("chef.pem"));
        let (hand, gone) = (Arc::new(Mutex::new(Instant::now())), Arc::new(Mutex::new(Vec::new())));
        let (clock, list) = (Arc::clone(&hand), Arc::clone(&gone));
        let clock = Arc::new(move || *clock.lock().expect("no panic"));
        let hooks = Hooks {
            on_gone: Box::new(move |node| list.lock().expect("no panic").push(node)),
            on_heard: Box::new(|_| {}),
        };
        let source = Chef::with_organizations(&settings, clock, hooks).expect("a source");
        Bench { chef, source: Principals::Chef(Arc::new(source)), hand, gone }
    }

    fn pass(&self, time: Duration) {
        *self.hand.lock().expect("no panic") += time;
    }

    /// How many belong to the organization under this name.
    async fn members(&self, name: &str) -> Result<usize, Unanswered> {
        self.source.look_up("acme", name).await.map(|found| found.members.len())
    }

    async fn org(&self) -> OrgRef {
        self.source.look_up("acme", "alice").await.expect("alice").org
    }

    /// Since the last time. Alice is a user: that no node has her name is said with every answer, and means nothing.
    fn gone(&self) -> Vec<String> {
        let gone: Vec<NodeRef> = self.gone.lock().expect("no panic").drain(..).collect();
        gone.iter().map(|node| node.node.to_string()).filter(|name| name != "alice").collect()
    }
}

fn unknown(user: &str) -> Result<usize, Unanswered> {
    Err(Unanswered::Refused(AuthError::UnknownPrincipal { user: user.into() }))
}

#[tokio::test]
async fn a_principal_is_believed_for_five_seconds() {
    let bench = Bench::new();
    assert_eq!(bench.members("alice").await, Ok(1));
    bench.chef.remove_user("alice");
    bench.pass(5 * SECOND - MOMENT);
    assert_eq!(bench.members("alice").await, Ok(1));
    assert_eq!(bench.chef.count("/principals/alice"), 1);
    bench.pass(MOMENT);
    assert_eq!(bench.members("alice").await, unknown("alice"));
    // "Nobody" for one second.
    bench.chef.put_user("alice", &[public(0)]);
    bench.chef.associate("acme", "alice");
    bench.pass(SECOND - MOMENT);
    assert_eq!(bench.members("alice").await, unknown("alice"));
    bench.pass(MOMENT);
    assert_eq!(bench.members("alice").await, Ok(1));
    // Membership is part of the same answer.
    bench.chef.dissociate("acme", "alice");
    bench.pass(5 * SECOND);
    assert_eq!(bench.members("alice").await, Ok(0));
}

#[tokio::test]
async fn a_group_is_believed_for_fifteen_seconds_and_its_absence_for_one() {
    let bench = Bench::new();
    let org = bench.org().await;
    let may = |action| bench.source.allows(&org, Kind::User, "alice", action);
    bench.chef.put_group("acme", "pushy_job_writers", &["alice"], &[], &[]);
    assert_eq!(may(Action::Write).await, Ok(true));
    bench.chef.put_group("acme", "pushy_job_writers", &[], &[], &[]);
    bench.pass(15 * SECOND - MOMENT);
    assert_eq!(may(Action::Write).await, Ok(true));
    bench.pass(MOMENT);
    assert_eq!(may(Action::Write).await, Ok(false));
    // No such group: everybody reads, until there is one, one second later at most.
    assert_eq!(may(Action::Read).await, Ok(true));
    bench.chef.put_group("acme", "pushy_job_readers", &[], &[], &[]);
    bench.pass(SECOND - MOMENT);
    assert_eq!(may(Action::Read).await, Ok(true));
    bench.pass(MOMENT);
    assert_eq!(may(Action::Read).await, Ok(false));
}

#[tokio::test]
async fn a_chef_server_that_is_away_is_missed_only_by_what_is_not_fresh() {
    let mut bench = Bench::new();
    assert_eq!(bench.members("alice").await, Ok(1));
    bench.chef.stop();
    bench.pass(5 * SECOND - MOMENT);
    assert_eq!(bench.members("alice").await, Ok(1));
    assert!(matches!(bench.members("web1").await, Err(Unanswered::BadGateway(_))));
    bench.pass(MOMENT);
    assert!(matches!(bench.members("alice").await, Err(Unanswered::BadGateway(_))));
    bench.chef.restart();
    // For a second nobody is asked again.
    assert!(matches!(bench.members("alice").await, Err(Unanswered::BadGateway(_))));
    bench.pass(SECOND);
    assert_eq!(bench.members("alice").await, Ok(1));
    assert_eq!(bench.gone(), Vec::<String>::new());
}

#[tokio::test]
async fn many_ask_once() {
    let bench = Arc::new(Bench::new());
    bench.chef.instead("/organizations/acme/principals/", Instead::After(100 * MOMENT));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.members("alice").await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Ok(1));
    }
    assert_eq!((bench.chef.count("/principals/"), bench.chef.seen().len()), (1, 2));
    // Different names are asked for side by side: 16 at a time take one delay, not 16.
    let began = Instant::now();
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.members(&format!("u{number}")).await })
        })
        .collect();
    for task in tasks {
        assert!(task.await.expect("no panic").is_err());
    }
    assert!(began.elapsed() < 16 * 100 * MOMENT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_organization_made_anew_has_its_new_guid() {
    let bench = Bench::new();
    let before = bench.org().await;
    bench.chef.remove_org("acme");
    bench.pass(5 * SECOND);
    let error = AuthError::UnknownOrganization { org: "acme".into() };
    assert_eq!(bench.members("alice").await, Err(Unanswered::Refused(error)));
    let guid = bench.chef.add_org("acme");
    bench.chef.associate("acme", "alice");
    bench.pass(SECOND);
    let after = bench.org().await;
    assert_ne!(before.id, after.id);
    assert_eq!(after.id.as_str(), guid);
    // Made anew at once, with nobody asking between: the old GUID is believed for a minute at most.
    bench.chef.remove_org("acme");
    let guid = bench.chef.add_org("acme");
    bench.chef.associate("acme", "alice");
    bench.pass(60 * SECOND);
    assert_eq!(bench.org().await.id.as_str(), guid);
}

#[tokio::test]
async fn only_a_plain_no_says_that_a_node_is_gone() {
    let bench = Bench::new();
    assert_eq!(bench.members("web1").await, Ok(1));
    // Trouble is no news.
    for instead in [
        Instead::Status(500),
        Instead::Status(403),
        Instead::Status(404),
        Instead::Raw(404, "<html></html>".into()),
        Instead::Raw(200, "{}".into()),
        Instead::Close,
    ] {
        bench.chef.instead("/organizations/acme/principals/", instead.clone());
        bench.pass(5 * SECOND);
        assert!(bench.members("web1").await.is_err(), "{instead:?}");
        assert_eq!(bench.gone(), Vec::<String>::new(), "{instead:?}");
    }
    bench.chef.no_more_instead();
    bench.pass(5 * SECOND);
    assert_eq!(bench.members("web1").await, Ok(1));
    assert_eq!(bench.gone(), Vec::<String>::new());
    bench.chef.remove_client("acme", "web1");
    bench.pass(5 * SECOND);
    assert_eq!(bench.members("web1").await, unknown("web1"));
    assert_eq!(bench.gone(), ["web1"]);
    // A user who happens to have the name is not the node.
    bench.chef.put_user("web1", &[public(1)]);
    bench.chef.associate("acme", "web1");
    bench.pass(5 * SECOND);
    assert_eq!(bench.members("web1").await, Ok(1));
    assert_eq!(bench.gone(), ["web1"]);
}
