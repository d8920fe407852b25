//! The rows of the machines' tables, and which of them the simulation uses.
//!
//! The transition tables of `pushy-core/tests` hold every row. Here each is in exactly one list: [`REACHABLE`] comes up by itself
//! among honest peers on a hostile network, and is demanded; [`UNREACHABLE`] cannot, and a run in which it does fails;
//! [`UNLIKELY`] needs a coincidence, named there, that ten thousand seeds may or may not hold. A `*` stands for any word.

use std::collections::BTreeMap;

mod lists;

#[cfg(test)]
use lists::UNLIKELY;
use lists::{REACHABLE, UNREACHABLE};

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

/// What contradicts the lists: rows that came up and cannot; with `demand` also those that did not and should have.
pub fn contradictions(rows: &BTreeMap<String, u64>, demand: bool) -> Vec<String> {
    let reason = |row: &str| UNREACHABLE.iter().find(|(pattern, _)| fits(pattern, row));
    let came = rows.keys().filter_map(|row| Some((row, reason(row)?)));
    let mut wrong: Vec<String> =
        came.map(|(row, (_, why))| format!("row {row} came up, though {why}")).collect();
    for row in REACHABLE.iter().filter(|_| demand) {
        let count = rows.get(*row).copied().unwrap_or(0);
        if count < 10 {
            wrong.push(format!("row {row} was used {count} times only"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use pushy_core::job::NodeStatus;
    use pushy_core::node::{heartbeater, job_runner, reconfigurer};
    use pushy_core::server::job_state::{Claim, Phase, Said};
    use pushy_core::server::node_state::{NodeEvent, NodePhase};

    use super::*;

    fn pairs<A: Debug, B: Debug>(table: &str, states: &[A], inputs: &[B]) -> Vec<String> {
        let row = |state, input| format!("{table}: {state:?} × {input:?}").replace('"', "");
        states.iter().flat_map(|state| inputs.iter().map(move |input| row(state, input))).collect()
    }

    fn triples<C: Debug>(table: &str, inputs: &[C]) -> Vec<String> {
        let of = |phase: &Phase| pairs(&format!("{table}: {phase:?} ×"), NodeStatus::ALL, inputs);
        Phase::ALL.iter().flat_map(of).map(|row| row.replacen("×:", "×", 1)).collect()
    }

    fn all() -> Vec<String> {
        let runner = ["Commit", "Run", "Abort", "Prepared", "Started", "StartFailed", "Exited", "Stop"];
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
            pairs("node", NodePhase::ALL, NodeEvent::ALL),
            pairs("runner", &job_runner::State::ALL, &runner),
            pairs("heartbeater", &heartbeater::State::ALL, &heartbeater::Input::ALL),
            pairs("reconfigurer", &reconfigurer::State::ALL, &reconfigurer::Trigger::ALL),
            pairs("reconfigurer", &reconfigurer::State::ALL, &fetches),
        ]
        .concat()
    }

    #[test]
    fn every_row_is_in_one_list() {
        let all = all();
        let unlikely: Vec<&str> = UNLIKELY.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
        for row in &all {
            let lists = usize::from(REACHABLE.contains(&row.as_str()))
                + usize::from(UNREACHABLE.iter().any(|(pattern, _)| fits(pattern, row)))
                + usize::from(unlikely.contains(&row.as_str()));
            assert_eq!(lists, 1, "{row}");
        }
        for named in REACHABLE.iter().chain(&unlikely) {
            assert!(all.iter().any(|row| row == named), "there is no row {named}");
        }
        for (pattern, _) in UNREACHABLE {
            assert!(all.iter().any(|row| fits(pattern, row)), "there is no row {pattern}");
        }
        let impossible = all.len() - REACHABLE.len() - unlikely.len();
        println!("rows: {} demanded, {impossible} impossible, {} unlikely", REACHABLE.len(), unlikely.len());
    }
}
