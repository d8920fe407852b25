//! Waiting for a job by its feed: when it is opened, what it spares, what happens when it ends, breaks or says nothing.

use pushy_core::api::JobView;
use pushy_core::feed::Entry;
use pushy_core::job::NodeStatus;
use pushy_core::time::{Millis, Now, Wall};
use pushy_core::watch::{Input, Output, Tally, Watch, WatchOptions};
use pushy_core::{Error, ErrorCode};
use serde_json::json;

fn job(status: &str, nodes: serde_json::Value) -> JobView {
    JobView::from_document(json!({
        "id": "4be1d6f0a9c30123456789abcdef0123", "status": status, "nodes": nodes,
        "created_at": "Tue, 04 Mar 2025 10:15:00 GMT",
    }))
    .unwrap()
}

/// A machine with its clock, which shows what it wants as short words.
struct Lab {
    watch: Watch,
    now: u64,
}

impl Lab {
    fn new(options: WatchOptions) -> Lab {
        Lab { watch: Watch::new(Now::default(), options), now: 0 }
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        let wall = Wall::parse_http_date("Tue, 04 Mar 2025 11:15:00 GMT").unwrap();
        self.watch.handle(Now { mono: Millis(self.now), wall }, input);
        std::iter::from_fn(|| self.watch.poll_output()).map(words).collect()
    }

    /// Lets the machine's own deadlines come until this time.
    fn until(&mut self, end: u64) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(due) = self.watch.next_deadline().filter(|due| due.0 <= end) {
            assert!(due.0 >= self.now, "no deadline lies in the past");
            self.now = due.0;
            said.extend(self.tell(Input::Tick).into_iter().map(|word| format!("{} {word}", due.0)));
        }
        self.now = end;
        said
    }

    fn answer(&mut self, status: &str, nodes: serde_json::Value) -> Vec<String> {
        self.tell(Input::Answer(job(status, nodes)))
    }

    fn event(&mut self, number: u32, name: &str, data: serde_json::Value) -> Vec<String> {
        let mut said = self.tell(Input::Heard);
        let entry =
            Entry { name: name.to_owned(), id: Some(format!("job-{number}")), data: data.to_string() };
        said.extend(self.tell(Input::Event(entry)));
        said
    }

    fn ends(&mut self, refused: bool) -> Vec<String> {
        self.tell(Input::FeedEnded { refused })
    }

    fn fails(&mut self) -> Vec<String> {
        let error = Error::new(ErrorCode::Connection, "refused");
        self.tell(Input::Failed { error, transient: true })
    }

    /// The feed of a job on two nodes, alive.
    fn following(options: WatchOptions) -> Lab {
        let mut lab = Lab::new(options);
        assert_eq!(lab.until(10), ["10 ask"]);
        assert_eq!(lab.answer("voting", json!({"new": ["a", "b"]})), ["listen -"]);
        assert_eq!(lab.event(1, "start", json!({"node_count": 2})), [""; 0]);
        lab
    }
}

fn words(output: Output) -> String {
    match output {
        Output::Ask => "ask".to_owned(),
        Output::Listen(after) => format!("listen {}", after.as_deref().unwrap_or("-")),
        Output::HangUp => "hang up".to_owned(),
        Output::Tally(tally) => {
            let counts: Vec<_> = tally.counts().map(|(s, n)| format!("{n} {s}")).collect();
            format!("{} {} ms: {}", tally.status, tally.elapsed.0, counts.join(", "))
        }
        Output::Line(line) => line,
        Output::Notice(text) => format!("notice {text}"),
        Output::Finished(job) => format!("finished {}", job.status()),
        Output::GivenUp(error) => format!("given up: {error}"),
    }
}

#[test]
fn a_job_that_is_over_at_once_needs_no_feed() {
    let mut lab = Lab::new(WatchOptions::default());
    assert_eq!(lab.until(10), ["10 ask"]);
    assert_eq!(lab.answer("complete", json!({"succeeded": ["a"]})), ["Complete.", "finished complete"]);
    assert_eq!(lab.watch.next_deadline(), None);
}

#[test]
fn the_feed_tells_and_nobody_asks() {
    let mut lab = Lab::following(WatchOptions::default());
    lab.event(2, "quorum_vote", json!({"node": "a", "status": "success"}));
    lab.event(3, "quorum_vote", json!({"node": "b", "status": "success"}));
    lab.event(4, "quorum_succeeded", json!({}));
    lab.event(5, "run_start", json!({"node": "a"}));
    lab.event(6, "run_start", json!({"node": "b"}));
    lab.event(7, "run_complete", json!({"node": "a", "status": "success"}));
    assert_eq!(lab.until(5000), ["1000 Running (1/2 in progress) ..."], "the line, and no question");
    // Every node has ended: the next thing to show is the end, however long that takes.
    assert_eq!(lab.event(8, "run_complete", json!({"node": "b", "status": "failure"})), [""; 0]);
    assert_eq!(lab.until(8000), [""; 0]);
    assert_eq!(lab.event(9, "job_complete", json!({"status": "complete"})), ["ask"]);
    assert_eq!(lab.ends(false), [""; 0], "the question is open");
    let nodes = json!({"succeeded": ["a"], "failed": ["b"]});
    assert_eq!(lab.answer("complete", nodes), ["Complete.", "finished complete"]);
}

#[test]
fn an_answer_older_than_the_end_is_asked_for_again() {
    let mut lab = Lab::following(WatchOptions::default());
    assert_eq!(lab.event(2, "job_complete", json!({"status": "complete"})), ["ask"]);
    assert_eq!(lab.answer("running", json!({"running": ["a", "b"]})), [""; 0]);
    assert_eq!(lab.until(40), ["20 ask"]);
    assert_eq!(lab.ends(false), [""; 0]);
    assert_eq!(
        lab.answer("running", json!({"running": ["a", "b"]})),
        [""; 0],
        "the feed is not opened again"
    );
    assert_eq!(lab.until(60), ["50 ask"]);
    assert_eq!(lab.answer("complete", json!({"succeeded": ["a", "b"]})), ["Complete.", "finished complete"]);
}

#[test]
fn a_server_without_feeds_is_asked_as_before() {
    let mut lab = Lab::new(WatchOptions::default());
    lab.until(10);
    assert_eq!(lab.answer("running", json!({"running": ["a"]})), ["listen -"]);
    assert_eq!(lab.ends(true), [""; 0]);
    let mut asked = Vec::new();
    while lab.now < 3000 {
        lab.now = lab.watch.next_deadline().unwrap().0;
        asked.push(lab.now);
        assert_eq!(lab.tell(Input::Tick), ["ask"]);
        lab.answer("running", json!({"running": ["a"]}));
    }
    assert_eq!(asked, [30, 70, 150, 310, 630, 1000, 2000, 3000]);
}

#[test]
fn a_feed_that_says_nothing_changes_nothing_and_is_given_up() {
    let mut lab = Lab::new(WatchOptions::default());
    lab.until(10);
    assert_eq!(lab.answer("running", json!({"running": ["a"]})), ["listen -"]);
    let mut hung_up = Vec::new();
    while lab.now < 60_000 {
        lab.now = lab.watch.next_deadline().unwrap().0;
        let said = lab.tell(Input::Tick);
        if said.contains(&"hang up".to_owned()) {
            hung_up.push(lab.now);
        }
        if said.contains(&"ask".to_owned()) {
            assert!(!lab.answer("running", json!({"running": ["a"]})).contains(&"listen -".to_owned()));
        }
    }
    assert_eq!(hung_up, [20_010], "once and for all");
}

#[test]
fn a_proxy_that_cuts_the_feed_costs_a_question() {
    let mut lab = Lab::following(WatchOptions::default());
    lab.event(2, "quorum_vote", json!({"node": "a", "status": "success"}));
    assert_eq!(lab.until(5000), ["1000 Voting."]);
    assert_eq!(lab.ends(false), ["ask"]);
    assert_eq!(
        lab.answer("voting", json!({"new": ["b"], "ready": ["a"]})),
        ["listen job-2"],
        "where it stopped"
    );
    lab.event(3, "quorum_vote", json!({"node": "b", "status": "success"}));
    assert_eq!(lab.event(4, "job_complete", json!({"status": "aborted"})), ["ask"]);
    assert_eq!(
        lab.answer("aborted", json!({"aborted": ["a", "b"]})),
        ["Aborted.", "hang up", "finished aborted"]
    );
}

#[test]
fn a_server_that_restarts_is_waited_for() {
    let mut lab = Lab::following(WatchOptions::default());
    lab.until(3000);
    assert_eq!(lab.ends(false), ["ask"]);
    assert_eq!(lab.fails(), ["notice refused; asking again"]);
    assert_eq!(lab.until(3499), [""; 0]);
    assert_eq!(lab.until(3500), ["3500 ask"]);
    assert_eq!(lab.fails(), [""; 0]);
    assert_eq!(lab.until(4500), ["4500 ask"]);
    let said = lab.answer("running", json!({"running": ["a", "b"]}));
    assert_eq!(said, ["Running (2/2 in progress) ...", "listen job-1"]);
    // It is up, but not ready for feeds: those are asked for with growing pauses, the job as ever.
    assert_eq!(lab.ends(false), [""; 0]);
    let mut listened = Vec::new();
    while lab.now < 20_000 {
        lab.now = lab.watch.next_deadline().unwrap().0;
        assert_eq!(lab.tell(Input::Tick), ["ask"]);
        if lab.answer("running", json!({"running": ["a", "b"]})) == ["listen job-1"] {
            listened.push(lab.now);
            lab.ends(false);
        }
    }
    assert!((4..6).contains(&listened.len()), "{listened:?}");
}

#[test]
fn a_dead_feed_is_noticed() {
    let mut lab = Lab::following(WatchOptions::default());
    let mut asked = Vec::new();
    let hung_up = loop {
        lab.now = lab.watch.next_deadline().unwrap().0;
        match lab.tell(Input::Tick).join(" ").as_str() {
            "ask" => {
                asked.push(lab.now);
                lab.answer("voting", json!({"new": ["a", "b"]}));
            }
            "Voting." => {}
            "hang up ask" => break lab.now,
            other => panic!("{other}"),
        }
    };
    assert_eq!(asked, [10_010, 20_010, 30_010, 40_010], "seldom, but asked");
    assert_eq!(hung_up, 45_010);
    assert_eq!(lab.answer("voting", json!({"new": ["a", "b"]})), ["listen job-1"]);
}

#[test]
fn signs_of_life_keep_a_feed() {
    let mut lab = Lab::following(WatchOptions::default());
    for round in 1..20 {
        let said = lab.until(10 + round * 15_000);
        assert!(!said.iter().any(|word| word.contains("hang up")), "{said:?}");
        if said.iter().any(|word| word.ends_with("ask")) {
            lab.answer("voting", json!({"new": ["a", "b"]}));
        }
        lab.tell(Input::Heard);
    }
}

/// A feed read from its beginning tells what the answer knew already; unknown nodes and words are no harm.
#[test]
fn nothing_moves_backwards() {
    let mut lab = Lab::new(WatchOptions { tallies: true, ..WatchOptions::default() });
    lab.until(10);
    let nodes = json!({"running": ["a"], "succeeded": ["b"], "unavailable": ["c"], "odd": ["d"]});
    lab.answer("running", nodes);
    lab.event(1, "start", json!({"node_count": 4}));
    for (number, name, data) in [
        (2, "quorum_vote", json!({"node": "a", "status": "success"})),
        (3, "quorum_vote", json!({"node": "b", "status": "success"})),
        (4, "quorum_vote", json!({"node": "c", "status": "success"})),
        (5, "quorum_vote", json!({"node": "d", "status": "success"})),
        (6, "run_start", json!({"node": "b"})),
        (7, "run_complete", json!({"node": "nobody", "status": "success"})),
        (8, "run_complete", json!([])),
        (9, "of_another_time", json!({"node": "a", "status": "success"})),
        (10, "rehab", json!({"node": "a"})),
    ] {
        assert_eq!(lab.event(number, name, data), [""; 0]);
    }
    assert_eq!(lab.until(120), [""; 0]);
    let said = lab.event(11, "run_complete", json!({"node": "a", "status": "failure"}));
    assert_eq!(said, ["running 120 ms: 1 succeeded, 1 failed, 1 unavailable"]);
}

#[test]
fn votes_and_ends_in_the_words_of_the_feed() {
    use NodeStatus::*;
    let check = |name: &str, status: &str, want: NodeStatus| {
        let mut lab = Lab::new(WatchOptions { tallies: true, ..WatchOptions::default() });
        lab.until(10);
        lab.answer("voting", json!({"new": ["a"]}));
        let said = lab.event(1, name, json!({"node": "a", "status": status}));
        let said = [said, lab.until(200)].concat().join(" ");
        assert!(said.ends_with(&format!(": 1 {want}")), "{name} {status}: {said}");
    };
    check("quorum_vote", "success", Ready);
    check("quorum_vote", "failure", Nacked);
    check("quorum_vote", "down", Unavailable);
    check("quorum_vote", "voting_timeout", Unavailable);
    check("quorum_vote", "client_died_while_voting", Unavailable);
    check("quorum_vote", "unexpected_commit", Nacked);
    check("quorum_vote", "lost_availibility", Nacked);
    check("quorum_vote", "aborted", Aborted);
    check("run_start", "", Running);
    check("run_complete", "success", Succeeded);
    check("run_complete", "failure", Failed);
    check("run_complete", "crashed", Crashed);
    check("run_complete", "client_died_while_running", Crashed);
    check("run_complete", "run_nacked", Failed);
    check("run_complete", "run_nacked_while_running", Failed);
    check("run_complete", "aborted", Aborted);
}

#[test]
fn tallies_follow_events_and_the_clock() {
    let mut lab = Lab::new(WatchOptions { tallies: true, ..WatchOptions::default() });
    lab.until(10);
    assert_eq!(lab.answer("voting", json!({"new": ["a", "b"]})), ["listen -", "voting 10 ms: 2 new"]);
    assert_eq!(lab.event(1, "quorum_vote", json!({"node": "a", "status": "success"})), [""; 0]);
    assert_eq!(lab.event(2, "quorum_vote", json!({"node": "b", "status": "success"})), [""; 0]);
    assert_eq!(lab.until(110), ["110 voting 110 ms: 2 ready"], "at most ten a second");
    assert_eq!(
        lab.until(3500),
        ["1000 voting 1000 ms: 2 ready", "2000 voting 2000 ms: 2 ready", "3000 voting 3000 ms: 2 ready"]
    );
    assert_eq!(lab.event(3, "quorum_succeeded", json!({})), ["running 3500 ms: 2 ready"], "and no line");
    assert_eq!(lab.event(4, "job_complete", json!({"status": "complete"})), ["ask"]);
    let said = lab.answer("complete", json!({"succeeded": ["a", "b"]}));
    assert_eq!(said, ["Complete.", "hang up", "finished complete"], "the last line is one");
}

#[test]
fn a_job_of_somebody_else_is_as_old_as_its_document() {
    let mut lab = Lab::new(WatchOptions { tallies: true, joined: true, ..WatchOptions::default() });
    lab.until(10);
    assert_eq!(
        lab.answer("running", json!({"running": ["a"]})),
        ["listen -", "running 3600010 ms: 1 running"]
    );
}

#[test]
fn the_summary_of_an_old_job_is_followed_by_its_document() {
    let mut lab = Lab::following(WatchOptions::default());
    assert_eq!(lab.event(1, "summary", json!({"status": "complete"})), ["ask"]);
}

#[test]
fn a_tally_counts() {
    let tally = Tally::of_job(&job(
        "running",
        json!({"new": ["a"], "running": ["b", "c"], "failed": ["d"], "odd": ["e"]}),
    ));
    assert_eq!((tally.total(), tally.in_progress()), (5, 3));
    assert_eq!((tally.count(NodeStatus::Running), tally.count(NodeStatus::Crashed)), (2, 0));
}
