//! Many who listen, some who are cut off again and again, one who does not keep up (decision 34).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pushy_core::feed::{Entry, Reader};
use pushy_server::admin::{Command, NewKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::lab::{DEADLINE, Lab, public_key};
use crate::listener::{Listener, words};
use crate::ops::{metrics_of, plain};
use crate::puppet::{Line, Puppet};

/// So many nodes, available.
async fn fleet(lab: &Lab, count: usize) -> Vec<Line> {
    let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
    let nodes = names.iter().map(|name| NewKey { name: name.clone(), public_key: public_key(1) }).collect();
    lab.operate(Command::NodeAdd { org: Some("acme".into()), nodes }).await.expect("nodes");
    let mut lines = Vec::new();
    for name in &names {
        let actor = crate::lab::Actor::numbered(name, 1);
        lines.push(Puppet::new(lab, actor).await.online(lab).await);
    }
    for name in &names {
        lab.state_until(name, |state| state["availability"] == "available").await;
    }
    lines
}

fn job_on(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
    serde_json::json!({ "command": "x", "nodes": names }).to_string()
}

/// Reads until the last chunk; what is left of the connection's bytes behind the head.
async fn whole(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n0\r\n\r\n") {
        let count = tokio::time::timeout(DEADLINE, stream.read_buf(&mut bytes)).await.expect("in time");
        assert!(count.is_ok_and(|count| count > 0), "the feed broke");
    }
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    bytes.split_off(head + 4)
}

/// The bytes of chunks, whole or cut.
pub(crate) fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let from = &bytes[line + 2..];
        body.extend(&from[..size.min(from.len())]);
        bytes = from.get(size + 2..).unwrap_or_default();
    }
    body
}

fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::default();
    reader.push(bytes).expect("a readable feed");
    std::iter::from_fn(|| reader.next_entry()).collect()
}

#[tokio::test]
async fn a_thousand_listen_to_a_job_on_a_hundred_nodes() {
    pushy_server::broker::raise_descriptor_limit();
    let lab = Lab::start_with("heartbeat_interval = 5\n").await;
    let lines = fleet(&lab, 100).await;
    let id = lab.post(&lab.admin, &job_on(100)).await.job_id();
    let path = format!("~/job_status_feed/{id}");
    let mut listeners = Vec::new();
    for _ in 0..1000 {
        listeners.push(lab.call("GET", &path).by(&lab.admin).start().await);
    }
    let begun = Instant::now();
    let mut nodes = JoinSet::new();
    for mut line in lines {
        nodes.spawn(async move {
            let job = line.take_job().await;
            line.succeed(&job, "").await;
            line
        });
    }
    let mut tasks = JoinSet::new();
    for mut stream in listeners {
        tasks.spawn(async move { whole(&mut stream).await });
    }
    let first = tasks.join_next().await.expect("a listener").expect("no panic");
    let told = entries(&unchunked(&first));
    while let Some(other) = tasks.join_next().await {
        assert!(other.expect("no panic") == first, "two listeners differ");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let words = words(&told);
    assert_eq!((words.len(), words[0].as_str()), (303, "start"));
    assert_eq!(words[302], "job_complete(complete)");
    for node in 0..100 {
        let of = format!("(n{node}:");
        let alone = format!("(n{node})");
        let own: Vec<&String> = words.iter().filter(|w| w.contains(&of) || w.ends_with(&alone)).collect();
        let expected = ["quorum_vote", "run_start", "run_complete"];
        assert!(own.len() == 3 && own.iter().zip(expected).all(|(w, e)| w.starts_with(e)), "{own:?}");
    }
    nodes.join_all().await;
    println!("{took:?} for 303 events to 1000 listeners");
    lab.stop().await;
}

/// A small generator: what is random here can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Listens until there is an event that is the last of interest, cut off after a random number of bytes each time; answers what came.
async fn listen_with_cuts(
    lab: &Lab,
    path: &str,
    after: Option<String>,
    random: &mut Random,
    cuts: &AtomicUsize,
    is_last: impl Fn(&Entry) -> bool,
) -> Vec<Entry> {
    let mut told: Vec<Entry> = Vec::new();
    let end = Instant::now() + 6 * DEADLINE;
    while !told.iter().any(&is_last) {
        assert!(Instant::now() < end, "{cuts:?} cuts, {told:?}");
        let id = told.last().and_then(|entry| entry.id.clone()).or_else(|| after.clone());
        let mut call = lab.call("GET", path).by(&lab.admin);
        if let Some(id) = &id {
            call = call.header("Last-Event-ID", id);
        }
        let mut stream = call.start().await;
        // From within the head of the answer to some events later.
        let mut left = 120 + random.below(700) as usize;
        let mut bytes = vec![0; left];
        let mut read = 0;
        let patience = Duration::from_millis(5 + random.below(100));
        while left > 0 {
            let more = tokio::time::timeout(patience, stream.read(&mut bytes[read..])).await;
            let Ok(Ok(count @ 1..)) = more else { break };
            (read, left) = (read + count, left - count);
        }
        drop(stream);
        cuts.fetch_add(1, Ordering::SeqCst);
        let head = bytes[..read].windows(4).position(|w| w == b"\r\n\r\n");
        told.extend(head.map_or(Vec::new(), |head| entries(&unchunked(&bytes[head + 4..read]))));
    }
    told.truncate(told.iter().position(is_last).map_or(0, |at| at + 1));
    told
}

#[tokio::test]
async fn five_hundred_cuts_lose_nothing_and_double_nothing() {
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = seed as u64 | 1;
    println!("seed {seed}");
    let lab = Arc::new(Lab::start_with("heartbeat_interval = 5\nlinger = 60\n").await);
    let lines = fleet(&lab, 40).await;
    let mut organization = Listener::open(&lab, &lab.admin, "~/job_status_feed", None).await;
    let id = lab.post(&lab.admin, &job_on(40)).await.job_id();
    let first = organization.next().await;
    let path = format!("~/job_status_feed/{id}");
    let cuts = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        let (lab, cuts, path) = (Arc::clone(&lab), Arc::clone(&cuts), path.clone());
        let first = first.id.clone();
        tasks.spawn(async move {
            let mut random = Random(seed.wrapping_add(number * 7919) | 1);
            let of_job = number % 2 == 0;
            let (path, after) = if of_job { (path.as_str(), None) } else { ("~/job_status_feed", first) };
            let is_last = |e: &Entry| e.name == "job_complete" && e.data.contains("\"complete\"");
            (of_job, listen_with_cuts(&lab, path, after, &mut random, &cuts, is_last).await)
        });
    }
    // The nodes take their time, the last one until the feed was cut often enough; other jobs come and go meanwhile.
    let random = Arc::new(Mutex::new(Random(seed)));
    let mut nodes = JoinSet::new();
    for (number, mut line) in lines.into_iter().enumerate() {
        let (random, cuts) = (Arc::clone(&random), Arc::clone(&cuts));
        let pause = move || Duration::from_millis(random.lock().expect("no panic").below(1500));
        nodes.spawn(async move {
            let job = line.take_job().await;
            tokio::time::sleep(pause()).await;
            while number == 0 && cuts.load(Ordering::SeqCst) < 500 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            line.succeed(&job, "").await;
            line
        });
    }
    for _ in 0..40 {
        lab.post(&lab.admin, r#"{"command":"y","nodes":["nobody"]}"#).await.check_status(201);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nodes.join_all().await;
    let told = tasks.join_all().await;
    let whole = Listener::open(&lab, &lab.admin, &path, None).await.rest().await;
    assert_eq!(whole.len(), 3 * 40 + 3);
    let mut of_organization = vec![organization.next().await];
    while !of_organization.last().expect("one").data.contains("\"complete\"") {
        of_organization.push(organization.next().await);
    }
    words(&of_organization);
    for (of_job, told) in told {
        assert_eq!(told, if of_job { &whole[..] } else { &of_organization[..] }, "seed {seed}");
    }
    println!("{cuts:?} cuts");
    Arc::into_inner(lab).expect("all tasks have ended").stop().await;
}

#[tokio::test]
async fn one_who_does_not_keep_up_is_let_go_and_harms_nobody() {
    let settings = "heartbeat_interval = 5\nsend_timeout = 0.3\nmetrics_listen = \"127.0.0.1:0\"\n";
    let lab = Lab::start_with(settings).await;
    let path = "/organizations/acme/pushy/job_status_feed";
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Listener::open(&lab, &lab.admin, path, None).await);
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    let mut slow = socket.connect(lab.address).await.expect("a connection");
    slow.write_all(&lab.call("GET", path).by(&lab.admin).request()).await.expect("sent");
    let mut head = [0; 15];
    slow.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    // What it does not take fills the kernel's buffers and then waits.
    let job = format!(r#"{{"command":"{}","nodes":["nobody"]}}"#, "x".repeat(900_000));
    for _ in 0..10 {
        lab.post(&lab.admin, &job).await.check_status(201);
        for other in &mut others {
            assert_eq!(other.next().await.name, "start");
            assert_eq!(other.next().await.name, "job_complete");
        }
    }
    // The server lets go of it, without the end that a whole body has.
    let end = Instant::now() + DEADLINE;
    let left = "pushy_feed_subscribers{feed=\"organization\"} 3";
    while !plain(metrics_of(&lab), "/metrics").await.1.lines().any(|line| line == left) {
        assert!(Instant::now() < end, "the slow one is still listened to");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, slow.read_to_end(&mut rest)).await.expect("an end in time");
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "{} bytes", rest.len());
    assert!(rest.len() < 9_000_000, "{} bytes", rest.len());
    // It can come back.
    let mut again = Listener::open(&lab, &lab.admin, path, Some("org-1")).await;
    assert_eq!(again.next().await.name, "start_of_history");
    lab.stop().await;
}
