//! Streams of output beside nodes that know nothing of them (decisions 20 and 37).

use std::time::Duration;

use pushy_core::message::{JobRef, JobState, NodeMessage};
use pushy_core::output::{Kind, Source, Unframer, Word};

use crate::feeds_many::unchunked;
use crate::lab::{DEADLINE, Lab};
use crate::puppet::Puppet;

/// What a stream said: output by channel, and words.
fn read(body: &[u8]) -> ([Vec<u8>; 2], Vec<Word>) {
    let (mut sides, mut words) = ([Vec::new(), Vec::new()], Vec::new());
    let body = unchunked(body);
    let (mut unframer, mut rest) = (Unframer::default(), &body[..]);
    while let Some(piece) = unframer.next(&mut rest).expect("records") {
        match piece.kind {
            Kind::KeepAlive => {}
            Kind::Stdout => sides[0].extend(piece.bytes),
            Kind::Stderr => sides[1].extend(piece.bytes),
            Kind::Word => words.push(Word::read(piece.bytes).expect("a word")),
        }
    }
    assert!(unframer.is_between());
    (sides, words)
}

#[tokio::test]
async fn an_original_node_never_hears_of_it() {
    let lab = Lab::start().await;
    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.connect(&lab).await.expect("a handshake");
    // As the original: without caps.
    let beat = || NodeMessage::Heartbeat { state: Some(JobState::Idle), job: JobRef::None, caps: None };
    line.say(beat()).await;
    line.expect("abort").await;
    line.say(NodeMessage::Aborted { job: JobRef::None, reason: None }).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;
    let body = r#"{"command":"date","nodes":["web-1"],"capture_output":true}"#;
    let id = lab.post(&lab.admin, body).await.job_id();
    let path = |channel: &str, query: &str| format!("~/jobs/{id}/stream/web-1/{channel}{query}");
    let now = lab.get(&lab.admin, &path("stdout", "")).await;
    assert_eq!(read(&now.body), (Default::default(), vec![Word::End { done: false, lost: 0 }]));
    let followed = path("both", "?follow=1");
    let (stream, ()) = tokio::join!(lab.get(&lab.admin, &followed), async {
        let job = line.take_job().await;
        // Everything it is told while somebody listens.
        tokio::time::sleep(Duration::from_millis(300)).await;
        line.succeed(&job, "now\n").await;
    });
    let end = [Word::From(Source::Stored), Word::End { done: true, lost: 0 }];
    assert_eq!(read(&stream.body), ([b"now\n".to_vec(), vec![]], end.to_vec()));
    let stored = lab.get(&lab.admin, &path("stdout", "?source=stored&from=1")).await;
    assert_eq!(read(&stored.body), ([b"ow\n".to_vec(), vec![]], end.to_vec()));
    line.say(beat()).await;
    let mut heard = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), line.next()).await {
        heard.push(message["type"].as_str().unwrap_or_default().to_owned());
    }
    assert!(!heard.iter().any(|kind| kind == "output_request"), "{heard:?}");
    lab.stop().await;
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused() {
    let lab = Lab::start_with("max_output_streams = 1").await;
    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.online(&lab).await;
    lab.state_until("web-1", |state| state["availability"] == "available").await;
    let check = async |path: String, status: u16| {
        let answer = lab.get(&lab.admin, &path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    };
    let id = lab.post(&lab.admin, r#"{"command":"date","nodes":["web-1"]}"#).await.job_id();
    check(format!("~/jobs/{id}/stream/web-1/stdout"), 404).await;
    let job = line.take_job().await;
    line.succeed(&job, "").await;
    lab.job_until(&id, |job| job["status"] == "complete").await;
    let body = r#"{"command":"date","nodes":["web-1"],"capture_output":true}"#;
    let id = lab.post(&lab.admin, body).await.job_id();
    check(format!("~/jobs/{id}/stream/web-2/stdout"), 404).await;
    check(format!("~/jobs/{id}/stream/web-1/stdin"), 404).await;
    check("~/jobs/0123456789abcdef0123456789abcdef/stream/web-1/stdout".into(), 404).await;
    check(format!("~/jobs/{id}/stream/web-1/stdout?from=x"), 400).await;
    // Somebody listens and takes nothing: that is one.
    let path = format!("~/jobs/{id}/stream/web-1/both?follow=1");
    let held = lab.call("GET", &path).by(&lab.admin).start().await;
    let refused = tokio::time::timeout(DEADLINE, async {
        while lab.get(&lab.admin, &format!("~/jobs/{id}/stream/web-1/stdout")).await.status != 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    refused.await.expect("refused");
    drop(held);
    let free = tokio::time::timeout(DEADLINE, async {
        while lab.get(&lab.admin, &format!("~/jobs/{id}/stream/web-1/stdout")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    free.await.expect("the place is free again");
    lab.stop().await;
}
