//! Seeds that once broke a rule, each with what it found.

use crate::run;

fn holds(seed: u64) {
    if let Err((broken, _)) = run(seed, |_| ()) {
        panic!("{broken}");
    }
}

#[test]
fn a_vote_that_ends_without_a_node_leaves_its_other_job_alone() {
    // `abort` names no job: sent for the vote, it killed the command of another job.
    holds(285);
}

#[test]
fn a_deaf_original_client_hears_ack_as_soon_as_it_connects() {
    // Believing the server gone it said nothing, so the server said nothing, so it went deaf for good.
    holds(92);
}

#[test]
fn a_restarted_agent_reports_before_it_says_that_it_is_new() {
    // The heartbeat of the new process ended the old one's job before its result was read.
    holds(1597);
}

#[test]
fn a_result_stamped_by_a_wrong_clock_is_reported_again() {
    // Dropped for its timestamp, then overtaken by a restart of its agent.
    holds(1696);
}

#[test]
fn a_node_is_not_aborted_for_a_job_whose_end_is_not_stored_yet() {
    // Another job's vote ended meanwhile, and its `abort` overtook the store.
    holds(7100);
}

#[test]
fn a_node_that_was_given_up_is_stopped_once_that_is_stored() {
    // It came back while the store was failing, and was told `abort` like a stranger.
    holds(476);
}

#[test]
fn a_job_that_a_new_process_has_voted_on_outlives_its_first_heartbeat() {
    // Restarted while its clock was off, its first words were dropped; the server asked it, heard its vote, and then took its
    // heartbeat for that of a stranger.
    for seed in [2663, 4350] {
        holds(seed);
    }
}

#[test]
fn a_frame_replayed_after_a_restart_is_not_taken_for_a_clock_set_back() {
    // Behind a fresh message an old stamp was believed, also of a recorded `ack_commit` or `ack_run`.
    for seed in [2869, 4725, 7132] {
        holds(seed);
    }
}
