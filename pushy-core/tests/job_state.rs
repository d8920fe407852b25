//! Every (state, input) pair of a job's nodes, one line each (sections 6.4 and 6.5, decision 3). The pairs come from the
//! enums: a new value without a line fails. The expectations are written from the specification.

use std::collections::BTreeMap;

use pushy_core::job::NodeStatus;
use pushy_core::server::job_state::{self, Claim, Phase, Resync, Rule, Said, Step};

/// 6.4: status, word, new status (`-`: the same), then what follows in the order of its events.
const VOTING: &str = "
new         ack_commit   ready        vote:success
new         nack_commit  nacked       vote:failure
new         ack_run      unavailable  rehab
new         nack_run     unavailable  rehab
new         succeeded    unavailable  rehab
new         failed       unavailable  rehab
new         timed_out    unavailable  rehab
new         aborted      unavailable  rehab
new         down         unavailable  vote:down rehab
ready       ack_commit   -            vote:unexpected_commit
ready       nack_commit  unavailable  rehab vote:lost_availibility
ready       ack_run      unavailable  rehab
ready       nack_run     unavailable  rehab
ready       succeeded    unavailable  rehab
ready       failed       unavailable  rehab
ready       timed_out    unavailable  rehab
ready       aborted      unavailable  rehab
ready       down         unavailable  vote:down rehab
running     ack_commit   -
running     nack_commit  -
running     ack_run      -
running     nack_run     -
running     succeeded    -
running     failed       -
running     timed_out    -
running     aborted      -
running     down         -
succeeded   ack_commit   -            rehab vote:client_died_while_voting
succeeded   nack_commit  -            rehab vote:client_died_while_voting
succeeded   ack_run      -            rehab
succeeded   nack_run     -            rehab
succeeded   succeeded    -            rehab
succeeded   failed       -            rehab
succeeded   timed_out    -            rehab
succeeded   aborted      -
succeeded   down         -            vote:down rehab
failed      ack_commit   -            rehab vote:client_died_while_voting
failed      nack_commit  -            rehab vote:client_died_while_voting
failed      ack_run      -            rehab
failed      nack_run     -            rehab
failed      succeeded    -            rehab
failed      failed       -            rehab
failed      timed_out    -            rehab
failed      aborted      -
failed      down         -            vote:down rehab
aborted     ack_commit   -            rehab vote:client_died_while_voting
aborted     nack_commit  -            rehab vote:client_died_while_voting
aborted     ack_run      -            rehab
aborted     nack_run     -            rehab
aborted     succeeded    -            rehab
aborted     failed       -            rehab
aborted     timed_out    -            rehab
aborted     aborted      -
aborted     down         -            vote:down rehab
unavailable ack_commit   -            rehab vote:client_died_while_voting
unavailable nack_commit  -            rehab vote:client_died_while_voting
unavailable ack_run      -            rehab
unavailable nack_run     -            rehab
unavailable succeeded    -            rehab
unavailable failed       -            rehab
unavailable timed_out    -            rehab
unavailable aborted      -
unavailable down         -            vote:down rehab
nacked      ack_commit   -            rehab vote:client_died_while_voting
nacked      nack_commit  -            rehab vote:client_died_while_voting
nacked      ack_run      -            rehab
nacked      nack_run     -            rehab
nacked      succeeded    -            rehab
nacked      failed       -            rehab
nacked      timed_out    -            rehab
nacked      aborted      -
nacked      down         -            vote:down rehab
faulty      ack_commit   -            rehab vote:client_died_while_voting
faulty      nack_commit  -            rehab vote:client_died_while_voting
faulty      ack_run      -            rehab
faulty      nack_run     -            rehab
faulty      succeeded    -            rehab
faulty      failed       -            rehab
faulty      timed_out    -            rehab
faulty      aborted      -
faulty      down         -            vote:down rehab
was_ready   ack_commit   -            rehab vote:client_died_while_voting
was_ready   nack_commit  -            rehab vote:client_died_while_voting
was_ready   ack_run      -            rehab
was_ready   nack_run     -            rehab
was_ready   succeeded    -            rehab
was_ready   failed       -            rehab
was_ready   timed_out    -            rehab
was_ready   aborted      -
was_ready   down         -            vote:down rehab
crashed     ack_commit   -            rehab vote:client_died_while_voting
crashed     nack_commit  -            rehab vote:client_died_while_voting
crashed     ack_run      -            rehab
crashed     nack_run     -            rehab
crashed     succeeded    -            rehab
crashed     failed       -            rehab
crashed     timed_out    -            rehab
crashed     aborted      -
crashed     down         -            vote:down rehab
timed_out   ack_commit   -            rehab vote:client_died_while_voting
timed_out   nack_commit  -            rehab vote:client_died_while_voting
timed_out   ack_run      -            rehab
timed_out   nack_run     -            rehab
timed_out   succeeded    -            rehab
timed_out   failed       -            rehab
timed_out   timed_out    -            rehab
timed_out   aborted      -
timed_out   down         -            vote:down rehab
";

/// 6.5, in the same columns.
const RUNNING: &str = "
new         ack_commit   -
new         nack_commit  -
new         ack_run      -
new         nack_run     -
new         succeeded    -
new         failed       -
new         timed_out    -
new         aborted      -
new         down         -
ready       ack_commit   crashed      rehab run:crashed
ready       nack_commit  crashed      rehab run:crashed
ready       ack_run      running      run_start
ready       nack_run     failed       rehab run:run_nacked
ready       succeeded    crashed      rehab run:crashed
ready       failed       crashed      rehab run:crashed
ready       timed_out    crashed      rehab run:crashed
ready       aborted      crashed      rehab run:crashed
ready       down         crashed      rehab run:crashed
running     ack_commit   crashed      rehab run:crashed
running     nack_commit  crashed      rehab run:crashed
running     ack_run      -
running     nack_run     failed       rehab run:run_nacked_while_running
running     succeeded    succeeded    run:success
running     failed       failed       run:failure
running     timed_out    timed_out    run:failure
running     aborted      crashed      rehab run:crashed
running     down         crashed      rehab run:crashed
succeeded   ack_commit   -            rehab run:client_died_while_running
succeeded   nack_commit  -            rehab run:client_died_while_running
succeeded   ack_run      -            run:client_died_while_running rehab
succeeded   nack_run     -            rehab run:client_died_while_running
succeeded   succeeded    -            rehab run:client_died_while_running
succeeded   failed       -            rehab run:client_died_while_running
succeeded   timed_out    -            rehab run:client_died_while_running
succeeded   aborted      -
succeeded   down         -            rehab run:client_died_while_running
failed      ack_commit   -            rehab run:client_died_while_running
failed      nack_commit  -            rehab run:client_died_while_running
failed      ack_run      -            run:client_died_while_running rehab
failed      nack_run     -            rehab run:client_died_while_running
failed      succeeded    -            rehab run:client_died_while_running
failed      failed       -            rehab run:client_died_while_running
failed      timed_out    -            rehab run:client_died_while_running
failed      aborted      -
failed      down         -            rehab run:client_died_while_running
aborted     ack_commit   -            rehab run:client_died_while_running
aborted     nack_commit  -            rehab run:client_died_while_running
aborted     ack_run      -            run:client_died_while_running rehab
aborted     nack_run     -            rehab run:client_died_while_running
aborted     succeeded    -            rehab run:client_died_while_running
aborted     failed       -            rehab run:client_died_while_running
aborted     timed_out    -            rehab run:client_died_while_running
aborted     aborted      -
aborted     down         -            rehab run:client_died_while_running
unavailable ack_commit   -            rehab run:client_died_while_running
unavailable nack_commit  -            rehab run:client_died_while_running
unavailable ack_run      -            run:client_died_while_running rehab
unavailable nack_run     -            rehab run:client_died_while_running
unavailable succeeded    -            rehab run:client_died_while_running
unavailable failed       -            rehab run:client_died_while_running
unavailable timed_out    -            rehab run:client_died_while_running
unavailable aborted      -
unavailable down         -            rehab run:client_died_while_running
nacked      ack_commit   -            rehab run:client_died_while_running
nacked      nack_commit  -            rehab run:client_died_while_running
nacked      ack_run      -            run:client_died_while_running rehab
nacked      nack_run     -            rehab run:client_died_while_running
nacked      succeeded    -            rehab run:client_died_while_running
nacked      failed       -            rehab run:client_died_while_running
nacked      timed_out    -            rehab run:client_died_while_running
nacked      aborted      -
nacked      down         -            rehab run:client_died_while_running
faulty      ack_commit   -            rehab run:client_died_while_running
faulty      nack_commit  -            rehab run:client_died_while_running
faulty      ack_run      -            run:client_died_while_running rehab
faulty      nack_run     -            rehab run:client_died_while_running
faulty      succeeded    -            rehab run:client_died_while_running
faulty      failed       -            rehab run:client_died_while_running
faulty      timed_out    -            rehab run:client_died_while_running
faulty      aborted      -
faulty      down         -            rehab run:client_died_while_running
was_ready   ack_commit   -            rehab run:client_died_while_running
was_ready   nack_commit  -            rehab run:client_died_while_running
was_ready   ack_run      -            run:client_died_while_running rehab
was_ready   nack_run     -            rehab run:client_died_while_running
was_ready   succeeded    -            rehab run:client_died_while_running
was_ready   failed       -            rehab run:client_died_while_running
was_ready   timed_out    -            rehab run:client_died_while_running
was_ready   aborted      -
was_ready   down         -            rehab run:client_died_while_running
crashed     ack_commit   -            rehab run:client_died_while_running
crashed     nack_commit  -            rehab run:client_died_while_running
crashed     ack_run      -            run:client_died_while_running rehab
crashed     nack_run     -            rehab run:client_died_while_running
crashed     succeeded    -            rehab run:client_died_while_running
crashed     failed       -            rehab run:client_died_while_running
crashed     timed_out    -            rehab run:client_died_while_running
crashed     aborted      -
crashed     down         -            rehab run:client_died_while_running
timed_out   ack_commit   -            rehab run:client_died_while_running
timed_out   nack_commit  -            rehab run:client_died_while_running
timed_out   ack_run      -            run:client_died_while_running rehab
timed_out   nack_run     -            rehab run:client_died_while_running
timed_out   succeeded    -            rehab run:client_died_while_running
timed_out   failed       -            rehab run:client_died_while_running
timed_out   timed_out    -            rehab run:client_died_while_running
timed_out   aborted      -
timed_out   down         -            rehab run:client_died_while_running
";

/// The timers of 6.2, the quorum check of 6.4, an operator's cancel, and a restart that gives jobs up (D-32).
const ENDS: &str = "
vote_closes    new         unavailable  vote:voting_timeout quiet_rehab
vote_closes    ready       -
vote_closes    running     -
vote_closes    succeeded   -
vote_closes    failed      -
vote_closes    aborted     -
vote_closes    unavailable -
vote_closes    nacked      -
vote_closes    faulty      -
vote_closes    was_ready   -
vote_closes    crashed     -
vote_closes    timed_out   -
quorum_fails   new         -
quorum_fails   ready       was_ready    quiet_rehab
quorum_fails   running     -
quorum_fails   succeeded   -
quorum_fails   failed      -
quorum_fails   aborted     -
quorum_fails   unavailable -
quorum_fails   nacked      -
quorum_fails   faulty      -
quorum_fails   was_ready   -
quorum_fails   crashed     -
quorum_fails   timed_out   -
time_is_up     new         -
time_is_up     ready       timed_out    quiet_rehab
time_is_up     running     timed_out    quiet_rehab
time_is_up     succeeded   -
time_is_up     failed      -
time_is_up     aborted     -
time_is_up     unavailable -
time_is_up     nacked      -
time_is_up     faulty      -
time_is_up     was_ready   -
time_is_up     crashed     -
time_is_up     timed_out   -
cancelled      new         aborted      cancel vote:failure
cancelled      ready       aborted      cancel run:aborted
cancelled      running     aborted      cancel run:aborted
cancelled      succeeded   -
cancelled      failed      -
cancelled      aborted     -
cancelled      unavailable -
cancelled      nacked      -
cancelled      faulty      -
cancelled      was_ready   -
cancelled      crashed     -
cancelled      timed_out   -
given_up       new         unavailable
given_up       ready       crashed
given_up       running     crashed
given_up       succeeded   -
given_up       failed      -
given_up       aborted     -
given_up       unavailable -
given_up       nacked      -
given_up       faulty      -
given_up       was_ready   -
given_up       crashed     -
given_up       timed_out   -
";

/// Decision 3: where the job stands, the node's status, what its heartbeat claims, what to do.
const RESYNC: &str = "
voting   new         idle       send_commit
voting   new         committed  count_ack_commit
voting   new         running    out_of_place
voting   new         elsewhere  count_nack
voting   ready       idle       nothing
voting   ready       committed  nothing
voting   ready       running    out_of_place
voting   ready       elsewhere  nothing
voting   running     idle       nothing
voting   running     committed  nothing
voting   running     running    nothing
voting   running     elsewhere  nothing
voting   succeeded   idle       nothing
voting   succeeded   committed  abort_if_repeated
voting   succeeded   running    abort_if_repeated
voting   succeeded   elsewhere  nothing
voting   failed      idle       nothing
voting   failed      committed  abort_if_repeated
voting   failed      running    abort_if_repeated
voting   failed      elsewhere  nothing
voting   aborted     idle       nothing
voting   aborted     committed  abort
voting   aborted     running    abort
voting   aborted     elsewhere  nothing
voting   unavailable idle       nothing
voting   unavailable committed  abort
voting   unavailable running    abort
voting   unavailable elsewhere  nothing
voting   nacked      idle       nothing
voting   nacked      committed  abort
voting   nacked      running    abort
voting   nacked      elsewhere  nothing
voting   faulty      idle       nothing
voting   faulty      committed  abort
voting   faulty      running    abort
voting   faulty      elsewhere  nothing
voting   was_ready   idle       nothing
voting   was_ready   committed  abort
voting   was_ready   running    abort
voting   was_ready   elsewhere  nothing
voting   crashed     idle       nothing
voting   crashed     committed  abort
voting   crashed     running    abort
voting   crashed     elsewhere  nothing
voting   timed_out   idle       nothing
voting   timed_out   committed  abort
voting   timed_out   running    abort
voting   timed_out   elsewhere  nothing
running  new         idle       nothing
running  new         committed  nothing
running  new         running    nothing
running  new         elsewhere  nothing
running  ready       idle       crash_if_repeated
running  ready       committed  send_run
running  ready       running    count_ack_run
running  ready       elsewhere  crash_if_repeated
running  running     idle       crash_if_repeated
running  running     committed  nothing
running  running     running    nothing
running  running     elsewhere  crash_if_repeated
running  succeeded   idle       nothing
running  succeeded   committed  abort_if_repeated
running  succeeded   running    abort_if_repeated
running  succeeded   elsewhere  nothing
running  failed      idle       nothing
running  failed      committed  abort_if_repeated
running  failed      running    abort_if_repeated
running  failed      elsewhere  nothing
running  aborted     idle       nothing
running  aborted     committed  abort
running  aborted     running    abort
running  aborted     elsewhere  nothing
running  unavailable idle       nothing
running  unavailable committed  abort
running  unavailable running    abort
running  unavailable elsewhere  nothing
running  nacked      idle       nothing
running  nacked      committed  abort
running  nacked      running    abort
running  nacked      elsewhere  nothing
running  faulty      idle       nothing
running  faulty      committed  abort
running  faulty      running    abort
running  faulty      elsewhere  nothing
running  was_ready   idle       nothing
running  was_ready   committed  abort
running  was_ready   running    abort
running  was_ready   elsewhere  nothing
running  crashed     idle       nothing
running  crashed     committed  abort
running  crashed     running    abort
running  crashed     elsewhere  nothing
running  timed_out   idle       nothing
running  timed_out   committed  abort
running  timed_out   running    abort
running  timed_out   elsewhere  nothing
over     new         idle       nothing
over     new         committed  abort
over     new         running    abort
over     new         elsewhere  nothing
over     ready       idle       nothing
over     ready       committed  abort
over     ready       running    abort
over     ready       elsewhere  nothing
over     running     idle       nothing
over     running     committed  abort
over     running     running    abort
over     running     elsewhere  nothing
over     succeeded   idle       nothing
over     succeeded   committed  abort_if_repeated
over     succeeded   running    abort_if_repeated
over     succeeded   elsewhere  nothing
over     failed      idle       nothing
over     failed      committed  abort_if_repeated
over     failed      running    abort_if_repeated
over     failed      elsewhere  nothing
over     aborted     idle       nothing
over     aborted     committed  abort
over     aborted     running    abort
over     aborted     elsewhere  nothing
over     unavailable idle       nothing
over     unavailable committed  abort
over     unavailable running    abort
over     unavailable elsewhere  nothing
over     nacked      idle       nothing
over     nacked      committed  abort
over     nacked      running    abort
over     nacked      elsewhere  nothing
over     faulty      idle       nothing
over     faulty      committed  abort
over     faulty      running    abort
over     faulty      elsewhere  nothing
over     was_ready   idle       nothing
over     was_ready   committed  abort
over     was_ready   running    abort
over     was_ready   elsewhere  nothing
over     crashed     idle       nothing
over     crashed     committed  abort
over     crashed     running    abort
over     crashed     elsewhere  nothing
over     timed_out   idle       nothing
over     timed_out   committed  abort
over     timed_out   running    abort
over     timed_out   elsewhere  nothing
";

fn said_text(said: Said) -> &'static str {
    match said {
        Said::AckCommit => "ack_commit",
        Said::NackCommit => "nack_commit",
        Said::AckRun => "ack_run",
        Said::NackRun => "nack_run",
        Said::Succeeded => "succeeded",
        Said::Failed => "failed",
        Said::TimedOut => "timed_out",
        Said::Aborted => "aborted",
        Said::Down => "down",
    }
}

fn claim_text(claim: Claim) -> &'static str {
    match claim {
        Claim::Idle => "idle",
        Claim::Committed => "committed",
        Claim::Running => "running",
        Claim::Elsewhere => "elsewhere",
    }
}

fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Voting => "voting",
        Phase::Running => "running",
        Phase::Over => "over",
    }
}

fn resync_text(resync: Resync) -> &'static str {
    match resync {
        Resync::Nothing => "nothing",
        Resync::CountAckCommit => "count_ack_commit",
        Resync::SendCommit => "send_commit",
        Resync::CountNack => "count_nack",
        Resync::SendRun => "send_run",
        Resync::CountAckRun => "count_ack_run",
        Resync::CrashIfRepeated => "crash_if_repeated",
        Resync::OutOfPlace => "out_of_place",
        Resync::AbortIfRepeated => "abort_if_repeated",
        Resync::Abort => "abort",
    }
}

fn rule_text(rule: Rule) -> String {
    let mut text = rule.to.map_or("-", NodeStatus::as_str).to_owned();
    for step in rule.steps {
        text.push(' ');
        match step {
            Step::Vote(vote) => text.push_str(&format!("vote:{}", vote.as_str())),
            Step::Rehab => text.push_str("rehab"),
            Step::QuietRehab => text.push_str("quiet_rehab"),
            Step::Cancel => text.push_str("cancel"),
            Step::RunStart => text.push_str("run_start"),
            Step::RunComplete(result) => text.push_str(&format!("run:{}", result.as_str())),
        }
    }
    text
}

/// Compares a table, whose first `keys` columns name the pair, with what the machine says for every pair.
fn check(name: &str, table: &str, keys: usize, actual: Vec<(String, String)>) {
    let mut lines = BTreeMap::new();
    for line in table.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let twice = lines.insert(words[..keys].join(" "), words[keys..].join(" "));
        assert_eq!(twice, None, "{name}: two lines for {:?}", &words[..keys]);
    }
    let pairs = actual.len();
    for (pair, rule) in actual {
        let expected = lines.remove(&pair).unwrap_or_else(|| panic!("{name}: no line for {pair}"));
        assert_eq!(rule, expected, "{name}: {pair}");
    }
    assert!(lines.is_empty(), "{name}: lines for no pair: {lines:?}");
    println!("{name}: {pairs} pairs");
}

fn words(table: fn(NodeStatus, Said) -> Rule) -> Vec<(String, String)> {
    let statuses = NodeStatus::ALL.iter();
    statuses
        .flat_map(|status| Said::ALL.iter().map(move |said| (*status, *said)))
        .map(|(status, said)| (format!("{status} {}", said_text(said)), rule_text(table(status, said))))
        .collect()
}

#[test]
fn what_a_node_says_during_the_vote() {
    check("voting", VOTING, 2, words(job_state::while_voting));
}

#[test]
fn what_a_node_says_while_the_job_runs() {
    check("running", RUNNING, 2, words(job_state::while_running));
}

#[test]
fn what_ends_a_phase() {
    type Table = fn(NodeStatus) -> Rule;
    let tables: [(&str, Table); 5] = [
        ("vote_closes", job_state::when_vote_closes),
        ("quorum_fails", job_state::when_quorum_fails),
        ("time_is_up", job_state::when_time_is_up),
        ("cancelled", job_state::when_cancelled),
        ("given_up", job_state::when_given_up),
    ];
    let mut actual = Vec::new();
    for (name, table) in tables {
        for status in NodeStatus::ALL {
            actual.push((format!("{name} {status}"), rule_text(table(*status))));
        }
    }
    check("ends", ENDS, 2, actual);
}

#[test]
fn what_a_heartbeat_after_a_handshake_decides() {
    let mut actual = Vec::new();
    for phase in Phase::ALL {
        for status in NodeStatus::ALL {
            for claim in Claim::ALL {
                let pair = format!("{} {status} {}", phase_text(*phase), claim_text(*claim));
                actual.push((pair, resync_text(job_state::resync(*phase, *status, *claim)).to_owned()));
            }
        }
    }
    check("resynchronisation", RESYNC, 3, actual);
}
