//! What the running server says of its nodes.

use std::path::Path;

use serde_json::Value;

use super::{Report, text};
use crate::admin::{Command, ask};

/// So many nodes are named.
const NAMED: usize = 20;

pub(super) async fn look(report: &mut Report, dir: &Path) {
    match ask(dir, &Command::Warnings).await {
        Ok(Some(answer)) => tell(report, &answer),
        Ok(None) => {}
        Err(error) => report.problem("nodes", error.message(), "look at the server's log"),
    }
}

fn tell(report: &mut Report, answer: &Value) {
    let nodes = answer["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let online = answer["online"].as_u64().unwrap_or_default();
    let offsets: Vec<i64> = nodes
        .iter()
        .flat_map(|node| node["warnings"].as_array().into_iter().flatten())
        .filter_map(|warning| warning["clock_offset"].as_i64())
        .collect();
    let ahead = offsets.iter().filter(|offset| **offset > 0).count();
    let agreed = ahead.max(offsets.len() - ahead);
    if agreed >= 3 && agreed as u64 * 2 > online {
        report.problem(
            "clock",
            format!("{agreed} of {online} nodes online differ from this host's clock in the same direction"),
            "this host's clock is probably the one that is wrong: synchronize it (NTP)",
        );
    }
    for node in nodes.iter().take(NAMED) {
        for warning in node["warnings"].as_array().into_iter().flatten() {
            let (what, advice) =
                text(&warning["text"]).split_once("; ").unwrap_or((text(&warning["text"]), ""));
            report.warning(
                "nodes",
                format!("{}/{}: {what}", text(&node["org"]), text(&node["node"])),
                advice,
            );
        }
    }
    if nodes.len() > NAMED {
        let more = nodes.len() - NAMED;
        report.warning(
            "nodes",
            format!("and {more} more nodes should be looked at"),
            "GET node_states?detail=1 lists them all",
        );
    }
    if nodes.is_empty() {
        report.ok(
            "nodes",
            format!("{online} online; none claimed twice, with a changed key or a clock that is off"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_and_the_clock_they_agree_on() {
        let off = |name: &str, seconds: i64| {
            let text = format!("the node's clock is {seconds} s off; synchronize it");
            json!({ "org": "acme", "node": name,
                    "warnings": [{ "kind": "clock_off", "text": text, "clock_offset": seconds }] })
        };
        let check = |online: u64, offsets: &[i64], clock: bool| {
            let nodes: Vec<Value> = offsets.iter().map(|s| off("n", *s)).collect();
            let mut report = Report::default();
            tell(&mut report, &json!({ "online": online, "nodes": nodes }));
            assert_eq!(report.problems(), usize::from(clock), "{offsets:?}");
            assert_eq!(report.findings.len(), usize::from(clock) + offsets.len().clamp(1, NAMED + 1));
        };
        check(5, &[], false);
        check(5, &[60, 60], false);
        check(5, &[60, 60, 61], true);
        check(5, &[60, -60, 61], false);
        check(50, &[60, 60, 61], false);
        check(0, &[-60; 30], true);
        let mut report = Report::default();
        tell(&mut report, &json!({ "online": 9, "nodes": [off("web-1", 40)] }));
        assert_eq!(report.findings[0].text, "acme/web-1: the node's clock is 40 s off");
        assert_eq!(report.findings[0].advice.as_deref(), Some("synchronize it"));
    }
}
