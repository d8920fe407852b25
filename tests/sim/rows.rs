//! The rows of the machines' tables, and which of them the simulation uses.
//!
//! The transition tables of `pushy-core/tests` hold every row. Here every one of them is demanded, except what [`UNREACHABLE`] says
//! cannot come up, and a run in which that does come up fails, and what [`RARE`] leaves to chance. A `*` stands for any word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use pushy_core::job::NodeStatus;
use pushy_core::node::{heartbeater, job_runner, reconfigurer};
use pushy_core::server::job_state::{Claim, Phase, Said};
use pushy_core::server::node_state::{NodeEvent, NodePhase};

mod lists;

use lists::{RARE, UNREACHABLE};

/// How often at least in ten thousand seeds.
const OFTEN: u64 = 10;

fn fits(pattern: &str, row: &str) -> bool {
    let (mut words, mut shapes) = (row.split(' '), pattern.split(' '));
    loop {
        match (words.next(), shapes.next()) {
            (None, None) => return true,
            (Some(word), Some(shape)) if shape == word || shape == "*" => {}
            _ => return false,
        }
    }
}

fn pairs<A: Debug, B: Debug>(table: &str, states: &[A], inputs: &[B]) -> Vec<String> {
    let row = |state, input| format!("{table}: {state:?} × {input:?}").replace('"', "");
    states.iter().flat_map(|state| inputs.iter().map(move |input| row(state, input))).collect()
}

fn triples<C: Debug>(table: &str, inputs: &[C]) -> Vec<String> {
    let of = |phase: &Phase| pairs(&format!("{table}: {phase:?} ×"), NodeStatus::ALL, inputs);
    Phase::ALL.iter().flat_map(of).map(|row| row.replacen("×:", "×", 1)).collect()
}

/// Every row of every table.
fn all() -> Vec<String> {
    let runner = [
        "Commit",
        "Run",
        "Abort",
        "Cancel",
        "TimeUp",
        "Prepared",
        "Started",
        "StartFailed",
        "Exited",
        "Stop",
    ];
    let fetches = [
        "PlanDue idle",
        "PlanDue busy",
        "LifetimeDue idle",
        "LifetimeDue busy",
        "BecameIdle",
        "Fetched",
        "Failed",
        "Proved",
    ];
    [
        triples("job", Said::ALL),
        triples("resync", Claim::ALL),
        pairs("cancel", &[Phase::Voting, Phase::Running], NodeStatus::ALL),
        pairs("node", NodePhase::ALL, NodeEvent::ALL),
        pairs("runner", &job_runner::State::ALL, &runner),
        pairs("heartbeater", &heartbeater::State::ALL, &heartbeater::Input::ALL),
        pairs("reconfigurer", &reconfigurer::State::ALL, &reconfigurer::Trigger::ALL),
        pairs("reconfigurer", &reconfigurer::State::ALL, &fetches),
    ]
    .concat()
}

fn reason(row: &str) -> Option<&'static str> {
    UNREACHABLE.iter().find(|(pattern, _)| fits(pattern, row)).map(|(_, why)| *why)
}

/// What contradicts the tables: rows that came up and cannot, or that no table has; with `demand` also those that did not and
/// should have.
pub fn contradictions(rows: &BTreeMap<String, u64>, demand: bool) -> Vec<String> {
    let all: BTreeSet<String> = all().into_iter().collect();
    let mut wrong = Vec::new();
    for row in rows.keys() {
        match reason(row) {
            Some(why) => wrong.push(format!("row {row} came up, though {why}")),
            None if !all.contains(row) => wrong.push(format!("row {row} came up, which is in no table")),
            None => {}
        }
    }
    let by_chance = |row: &str| RARE.iter().any(|(pattern, _)| fits(pattern, row));
    for row in all.iter().filter(|row| demand && reason(row).is_none() && !by_chance(row)) {
        let count = rows.get(row).copied().unwrap_or(0);
        if count < OFTEN {
            wrong.push(format!("row {row} was used {count} times only"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_come_up_is_in_the_tables() {
        let all = all();
        for (pattern, why) in UNREACHABLE.iter().chain(RARE) {
            assert!(!why.is_empty() && all.iter().any(|row| fits(pattern, row)), "there is no row {pattern}");
        }
        let impossible = all.iter().filter(|row| reason(row).is_some()).count();
        println!("rows: {} demanded, {impossible} impossible", all.len() - impossible);
    }
}
