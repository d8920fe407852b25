//! Output of commands from their nodes to whoever asks (extension `output`): server and agents as real programs, all of
//! it over real sockets.
//!
//! `PUSHY_OUTPUT_LINES` asks for a longer one than a test of a few seconds can bear: 110000000 lines are 1 GB.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushy_core::api::Channel;
use pushy_core::client::{Client, OutputEnd, OutputPiece, OutputStream, Settings};
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{JobOptions, JobRequest, JobStatus};
use pushy_core::output::{OutputChannel, Source};
use pushy_tests::site::Site;
use tokio::time::{sleep, timeout};

/// For everything that is to happen, on a machine with other things to do.
const LIMIT: Duration = Duration::from_secs(60);

fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("a name")
}

fn client(site: &Site) -> Client {
    let key = fs::read(site.path("server/admin/.chef/admin.pem")).expect("the administrator's key");
    let key = pushy_core::auth::SigningKey::from_pem(key).expect("a key");
    let url = format!("http://{}/organizations/acme", site.host());
    Client::new(Settings::new(url, "admin").with_key(key, "admin.pem")).expect("a client")
}

async fn available(client: &Client, names: &[String]) {
    let ready = async {
        loop {
            if let Ok(states) = client.node_states().await
                && states.iter().filter(|state| state.availability == "available").count() >= names.len()
            {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, ready).await.expect("the nodes become available");
}

async fn start(client: &Client, command: &str, nodes: &[String]) -> JobId {
    let request = JobRequest {
        command: command.into(),
        nodes: nodes.iter().map(|name| node(name)).collect(),
        run_timeout: None,
        quorum: None,
        options: JobOptions { capture: true, ..JobOptions::default() },
    };
    client.start_job(&request).await.expect("the job starts").id
}

async fn ended(client: &Client, id: &JobId, limit: Duration) -> JobStatus {
    let end = async {
        loop {
            let status = client.job(id).await.expect("the job").status();
            if status.is_terminal() {
                return status;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(limit, end).await.expect("the job ends")
}

/// Both channels and the end.
async fn whole(mut stream: OutputStream) -> (Vec<u8>, Vec<u8>, OutputEnd) {
    let mut sides = [Vec::new(), Vec::new()];
    loop {
        match timeout(LIMIT, stream.next()).await.expect("in time").expect("output") {
            OutputPiece::Bytes { stderr, bytes } => sides[usize::from(stderr)].extend(bytes),
            OutputPiece::End(end) => {
                let [out, err] = sides;
                return (out, err, end);
            }
        }
    }
}

/// What `seq 1 LAST` prints, compared as it comes.
struct Counting {
    next: u64,
    line: Vec<u8>,
    bytes: u64,
}

impl Counting {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.line.is_empty() {
                self.line = format!("{}\n", self.next).into_bytes();
                self.next += 1;
            }
            let count = self.line.len().min(rest.len());
            assert!(rest[..count] == self.line[..count], "line {} is not as it was printed", self.next - 1);
            self.line.drain(..count);
            rest = &rest[count..];
        }
    }
}

#[tokio::test]
async fn a_long_output_arrives_whole_and_the_server_stays_small() {
    let lines: u64 =
        std::env::var("PUSHY_OUTPUT_LINES").ok().and_then(|n| n.parse().ok()).unwrap_or(8_500_000);
    let limit = LIMIT + Duration::from_secs(lines / 100_000);
    let mut site = Site::start(&[], "");
    site.start_agent("web-1", &[("count", format!("seq 1 {lines}"))]);
    let client = client(&site);
    let nodes = ["web-1".to_owned()];
    available(&client, &nodes).await;
    let id = start(&client, "count", &nodes).await;
    assert_eq!(ended(&client, &id, limit).await, JobStatus::Complete);
    let before = site.server_memory_kb();
    let began = Instant::now();
    let mut counting = Counting { next: 1, line: Vec::new(), bytes: 0 };
    let mut most = before;
    let mut looked = 0;
    let mut stream = client.stream_output(&id, &node("web-1"), OutputChannel::Stdout, false);
    let end = loop {
        match timeout(LIMIT, stream.next()).await.expect("in time").expect("output") {
            OutputPiece::Bytes { bytes, .. } => counting.take(&bytes),
            OutputPiece::End(end) => break end,
        }
        if counting.bytes - looked > 4 << 20 {
            looked = counting.bytes;
            most = most.max(site.server_memory_kb());
        }
    };
    let (took, grown) = (began.elapsed(), most.saturating_sub(before));
    println!("{} bytes in {took:.1?}; the server grew by {grown} KB from {before} KB", counting.bytes);
    assert_eq!(end, OutputEnd { done: true, lost: 0, source: Source::Spool });
    assert_eq!((counting.next, counting.line.len()), (lines + 1, 0), "all of it");
    assert!(grown < 32 << 10, "the server grew by {grown} KB");
    // What is stored is bounded: both ends and a line between them.
    let stored = client.output(&id, &node("web-1"), Channel::Stdout).await.expect("stored");
    assert!(stored.len() < 65_536, "{}", stored.len());
    let stored = String::from_utf8(stored).expect("text");
    assert!(stored.starts_with("1\n2\n") && stored.ends_with(&format!("{lines}\n")));
    assert!(stored.contains("bytes left out"));
}

#[tokio::test]
async fn output_is_seen_while_it_is_printed_over_a_restart_of_the_server() {
    let mut site = Site::start(&[], "");
    let go = site.path("go");
    let script = site.path("talk.sh");
    let text = "printf 'one\\n'; sleep 0.3; printf 'oops\\377\\000' >&2\n\
                while [ ! -e \"$1\" ]; do sleep 0.05; done\nprintf 'two\\n\\033[1mno end'\n";
    fs::write(&script, text).expect("the script is written");
    let whitelist =
        [("talk", format!("sh {} {}", script.display(), go.display())), ("quiet", "true".to_owned())];
    site.start_agent("web-1", &whitelist);
    let client = client(&site);
    let nodes = ["web-1".to_owned()];
    available(&client, &nodes).await;
    let id = start(&client, "talk", &nodes).await;
    // Asked for before it has begun.
    let mut both = client.stream_output(&id, &node("web-1"), OutputChannel::Both, true);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match timeout(LIMIT, both.next()).await.expect("while it runs").expect("output") {
            OutputPiece::Bytes { stderr, bytes } => seen.push((stderr, bytes)),
            OutputPiece::End(end) => panic!("{end:?}"),
        }
    }
    assert_eq!(seen, [(false, b"one\n".to_vec()), (true, b"oops\xff\0".to_vec())]);
    // What there is so far, without waiting.
    let so_far = client.stream_output(&id, &node("web-1"), OutputChannel::Stdout, false);
    let (out, err, end) = whole(so_far).await;
    assert_eq!((&out[..], &err[..]), (&b"one\n"[..], &b""[..]));
    assert_eq!(end, OutputEnd { done: false, lost: 0, source: Source::Spool });
    site.kill_server();
    let rest = tokio::spawn(whole(both));
    site.start_server();
    fs::write(&go, "").expect("go");
    let (out, err, end) = rest.await.expect("the rest");
    assert_eq!((&out[..], &err[..]), (&b"two\n\x1b[1mno end"[..], &b""[..]), "nothing comes twice");
    assert_eq!(end, OutputEnd { done: true, lost: 0, source: Source::Spool });
    assert_eq!(ended(&client, &id, LIMIT).await, JobStatus::Complete);
    let again = whole(client.stream_output(&id, &node("web-1"), OutputChannel::Both, true)).await;
    assert_eq!(again, (b"one\ntwo\n\x1b[1mno end".to_vec(), b"oops\xff\0".to_vec(), end));
    // The agent's next life still has it.
    site.agents()[0].kill();
    site.start_agent_again("web-1");
    available(&client, &nodes).await;
    let again = whole(client.stream_output(&id, &node("web-1"), OutputChannel::Stderr, false)).await;
    assert_eq!(again, (vec![], b"oops\xff\0".to_vec(), end));
    // Without the node, what is stored.
    for agent in site.agents() {
        agent.stop();
    }
    let state = node("web-1");
    until_offline(&client, &state).await;
    let (out, _, end) = whole(client.stream_output(&id, &state, OutputChannel::Stdout, true)).await;
    assert_eq!((&out[..], end.source), (&b"one\ntwo\n\x1b[1mno end"[..], Source::Stored));
}

async fn until_offline(client: &Client, name: &NodeName) {
    let gone = async {
        while client.node_state(name).await.expect("a state").availability == "available" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("the node goes offline");
}

#[test]
fn two_hundred_nodes_arrive_without_a_drop() {
    const NODES: usize = 200;
    const BYTES: usize = 64 << 10;
    let site = Site::start(&[], "");
    let names: Vec<String> = (0..NODES).map(|n| format!("n{n:03}")).collect();
    let keys = site.add_nodes(&names);
    // One runtime for all agents: each is a whole agent with connections and processes of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut controls = Vec::new();
    for (name, key) in names.iter().zip(&keys) {
        let file = site.path(&format!("{name}.rb"));
        // Each prints its own.
        let text = format!(
            "chef_server_url 'http://{}/organizations/acme'\nnode_name '{name}'\nclient_key '{}'\n\
             state_dir '{}'\npublish_node false\n\
             whitelist({{ 'print' => 'yes {name} of the two hundred | head -c {BYTES}' }})\n",
            site.host(),
            key.display(),
            site.path(&format!("{name}.state")).display(),
        );
        fs::write(&file, text).expect("the agent's configuration is written");
        let args = pushy_agent::Args { config: Some(file), ..pushy_agent::Args::default() };
        let config = pushy_agent::Config::load(args).expect("a configuration");
        let (control, orders) = tokio::sync::mpsc::channel(1);
        controls.push(control);
        runtime.spawn(pushy_agent::run(config, orders));
    }
    runtime.block_on(async {
        let client = Arc::new(client(&site));
        available(&client, &names).await;
        let id = start(&client, "print", &names).await;
        let began = Instant::now();
        let mut streams = tokio::task::JoinSet::new();
        for name in &names {
            let stream = client.stream_output(&id, &node(name), OutputChannel::Both, true);
            let name = name.clone();
            streams.spawn(async move { (name, whole(stream).await) });
        }
        let mut arrived = 0;
        while let Some(done) = streams.join_next().await {
            let (name, (out, err, end)) = done.expect("a stream");
            let line = format!("{name} of the two hundred\n");
            let expected: Vec<u8> = line.bytes().cycle().take(BYTES).collect();
            assert!(out == expected && err.is_empty(), "{name}: {} bytes", out.len());
            assert_eq!(end, OutputEnd { done: true, lost: 0, source: Source::Spool }, "{name}");
            arrived += 1;
        }
        assert_eq!(arrived, NODES);
        println!("{NODES} times {BYTES} bytes in {:.1?}", began.elapsed());
        assert_eq!(ended(&client, &id, LIMIT).await, JobStatus::Complete);
    });
    let spooled = |name: &String| {
        let dir = site.path(&format!("{name}.state")).join("output");
        fs::read_dir(dir).is_ok_and(|files| files.flatten().any(|file| is_large(&file.path())))
    };
    assert!(names.iter().all(spooled), "kept until fetched or expired");
    drop(controls);
    runtime.shutdown_timeout(Duration::from_secs(2));
}

fn is_large(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() > 64 << 10)
}
