//! What the machine costs with many nodes (decision 11), counted in steps and bytes, not in seconds.

use pushy_core::job::{JobStatus, NodeStatus};
use pushy_core::message::JobState;
use pushy_core::server::{Input, Output};

use super::lab::*;

fn cost(lab: &mut Lab, work: impl FnOnce(&mut Lab)) -> u64 {
    let before = lab.server.steps();
    work(lab);
    lab.server.steps() - before
}

#[test]
fn an_input_costs_the_same_with_100_and_with_20_000_nodes() {
    let measure = |count: usize| {
        let (mut lab, names) = fleet(count);
        let name = names[count / 2].clone();
        let beat = cost(&mut lab, |lab| lab.beat(&name, JobState::Idle, None));
        let job = cost(&mut lab, |lab| {
            let job = lab.start(&[&name]);
            lab.say(&name, ack_commit(&job));
            lab.say(&name, ack_run(&job));
            lab.say(&name, succeeded(&job));
            assert_eq!(lab.job_status(&job), JobStatus::Complete);
        });
        let reconnect = cost(&mut lab, |lab| {
            lab.disconnect(&name);
            lab.connect(&name);
            lab.beat(&name, JobState::Idle, None);
        });
        lab.pass(5_000);
        let tick = cost(&mut lab, |lab| lab.handle(Input::Tick));
        [beat, job, reconnect, tick]
    };
    let (small, large) = (measure(100), measure(20_000));
    println!(
        "steps for a heartbeat, a job, a reconnect, a tick: {small:?} with 100 nodes, {large:?} with 20,000"
    );
    for (small, large) in small.into_iter().zip(large) {
        assert!(large <= 2 * small.max(1), "{small} → {large}");
    }
}

#[test]
fn a_job_on_all_nodes_costs_a_few_steps_a_node() {
    let (mut lab, names) = fleet(2_000);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let batches = lab.batches;
    let steps = cost(&mut lab, |lab| {
        lab.clear();
        lab.disk = Disk::Waits;
        let request = lab.request(&all);
        lab.post(request);
        lab.set_disk(Disk::Keeps);
        let Some(job) = lab.started() else { panic!() };
        for word in [ack_commit, ack_run, succeeded] {
            lab.disk = Disk::Waits;
            for name in &all {
                lab.say(name, word(&job));
            }
            lab.set_disk(Disk::Keeps);
        }
        assert_eq!(lab.job_status(&job), JobStatus::Complete);
        assert_eq!(lab.node_status(&job, "node-01999"), NodeStatus::Succeeded);
        lab.pass(5_000);
    });
    println!("{} steps a node, {} batches", steps / 2_000, lab.batches - batches);
    assert!(steps < 12 * 2_000, "{steps}");
    assert!(lab.batches - batches <= 10, "{}", lab.batches - batches);
}

#[test]
fn a_large_file_is_held_once() {
    let (mut lab, names) = fleet(500);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut request = lab.request(&all);
    request.options.file = Some(format!("raw:{}", "x".repeat(100_000)));
    lab.clear();
    let id = lab.next_request();
    lab.server.handle(
        lab.now,
        Input::StartJob { request: id, org: org(), requester: "admin".into(), job: Box::new(request) },
    );
    let mut queued = 0;
    let mut started = false;
    while let Some(output) = lab.server.poll_output() {
        match output {
            Output::Persist { ticket, .. } => lab.server.handle(lab.now, Input::Persisted { ticket }),
            Output::Send { .. } => queued += 1,
            Output::JobStarted { .. } => started = true,
            _ => {}
        }
    }
    assert!(started);
    assert_eq!(queued, 0, "no commit waits in the output queue");
    let mut commits = 0;
    while let Some(output) = lab.server.poll_bulk(lab.now) {
        let Output::Send { body, .. } = output else { panic!() };
        assert!(body.len() > 100_000);
        commits += 1;
    }
    assert_eq!(commits, 500);
}

#[test]
fn a_restart_is_linear_in_nodes() {
    let steps = |count: usize| fleet(count).0.server.steps();
    let (small, large) = (steps(100), steps(2_000));
    assert!(large <= 25 * small, "{small} → {large}");
}
