//! What a search costs over a fleet. The limit is far above what it takes, so that it fails only when something is
//! wrong in kind; `--nocapture` shows the figures.
#![allow(clippy::disallowed_methods)] // a test measures time

use std::time::{Duration, Instant};

use pushy_core::node_document::{Fixed, NodeDocument};
use pushy_core::search::{Document, Query, merged, select};

fn fleet(size: usize) -> Vec<(String, Document)> {
    let node = |i: usize| {
        let name = format!("web-{i:05}.example.com");
        let document = NodeDocument {
            fqdn: Some(name.clone()),
            ipaddress: Some(format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255)),
            platform: Some("debian".into()),
            environment: Some(["prod", "staging", "dev"][i % 3].into()),
            roles: vec!["base".into(), format!("role-{}", i % 50)],
            tags: vec![format!("rack-{}", i % 100)],
            whitelist: (0..5)
                .map(|k| (format!("job-{k}"), format!("/opt/jobs/{k} --node {i}").into()))
                .collect(),
            ..NodeDocument::default()
        };
        let node = document.chef_node(&name, &Fixed::default(), None);
        (name.clone(), Document::new(&merged(&node), &name))
    };
    (0..size).map(node).collect()
}

#[test]
fn a_fleet_of_10000_is_searched_in_milliseconds() {
    let fleet = fleet(10_000);
    let check = |query: &str, total: usize| {
        let parsed = Query::parse(query).expect("valid");
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let began = Instant::now();
            let nodes = fleet.iter().map(|(name, document)| (name, document));
            let page = select(nodes, &parsed, None, 0, 1000);
            best = best.min(began.elapsed());
            assert_eq!(page.total, total, "{query}");
        }
        println!("{query}: {best:?}");
        assert!(best < Duration::from_millis(500), "{query}: {best:?}");
    };
    check("*:*", 10_000);
    check("name:*00042*", 1);
    check("role:role-7 AND NOT chef_environment:prod", 133);
    check("*:*4242*", 1);
    check("push_jobs_whitelist_*:\"opt jobs 3\"", 10_000);
    check("push_jobs_whitelist_job-3:*opt*jobs*", 0);
    check("name:*1*2*3*4*", 1);
    check("ipaddress:[10.0.1.0 TO 10.0.1.255}", 174);
}
