//! Many simulated nodes in one process, over real sockets with CURVE, for measuring any push server, ours or the
//! original: they acknowledge and succeed at once.
//!
//! All nodes share one client key, so register them with its public half. Each node has a source address of its
//! own out of 127.0.0.0/8, as a fleet has, unless `--no-bind`. Prints a line `TIME open N subscribed N done N aborted N`
//! (Unix milliseconds) whenever a number changes, at most every 20 ms. Ends when its input does.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pushy_core::auth::SigningKey;
use pushy_core::ids::{IncarnationId, NodeName, OrgName};
use pushy_core::message::NodeIdentity;
use pushy_core::node_config::NodeConfig;
use pushy_core::zmtp::CurveSecret;
use pushy_tests::http::{Http, wall};
use rand_core::OsRng;

mod member;

use member::{Counters, Member};

const USAGE: &str = "fleet --url http://HOST:PORT --org ORG --key FILE --nodes N [--prefix NAME] [--no-bind]
  nodes are called NAME1 … NAMEN [fleet]; FILE is the private key they share";

/// Configurations fetched side by side.
const FETCHERS: usize = 2;
/// Connections that are being made at the same time at the start.
const STARTING: usize = 200;

struct Options {
    host: String,
    org: OrgName,
    key: SigningKey,
    nodes: usize,
    prefix: String,
    bind: bool,
}

fn options() -> Result<Options, String> {
    let (mut url, mut org, mut key, mut nodes) = (None, None, None, None);
    let (mut prefix, mut bind) = ("fleet".to_owned(), true);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--url" => url = Some(value()?),
            "--org" => org = Some(OrgName::new(&value()?).map_err(|e| e.to_string())?),
            "--key" => {
                let path = value()?;
                let text = std::fs::read(&path).map_err(|e| format!("{path}: {e}"))?;
                key = Some(SigningKey::from_pem(text).map_err(|e| format!("{path}: {e}"))?);
            }
            "--nodes" => nodes = value()?.parse().ok(),
            "--prefix" => prefix = value()?,
            "--no-bind" => bind = false,
            _ => return Err(USAGE.into()),
        }
    }
    let host = url.and_then(|u| Some(u.strip_prefix("http://")?.trim_end_matches('/').to_owned()));
    match (host, org, key, nodes) {
        (Some(host), Some(org), Some(key), Some(nodes)) => {
            Ok(Options { host, org, key, nodes, prefix, bind })
        }
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    let run = || {
        let options = options()?;
        let descriptors = pushy_server::broker::raise_descriptor_limit();
        if descriptors < 2 * options.nodes + 50 {
            return Err(format!("{descriptors} open files are allowed, {} nodes need more", options.nodes));
        }
        let members = fetch_all(&options)?;
        eprintln!("{} configurations fetched", members.len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        tokio::task::LocalSet::new().block_on(&runtime, live(members));
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("fleet: {text}");
            ExitCode::FAILURE
        }
    }
}

fn fetch_all(options: &Options) -> Result<Vec<Member>, String> {
    std::thread::scope(|scope| {
        let fetchers: Vec<_> = (0..FETCHERS)
            .map(|first| {
                scope.spawn(move || {
                    let mut http = Http::new(&options.host);
                    (first..options.nodes).step_by(FETCHERS).map(|i| fetch(options, &mut http, i)).collect()
                })
            })
            .collect();
        let parts: Result<Vec<Vec<Member>>, String> = fetchers
            .into_iter()
            .map(|f| f.join().unwrap_or_else(|_| Err("a fetcher panicked".into())))
            .collect();
        Ok(parts?.into_iter().flatten().collect())
    })
}

/// Registers one node: its configuration and its keys.
fn fetch(options: &Options, http: &mut Http, i: usize) -> Result<Member, String> {
    let name = format!("{}{}", options.prefix, i + 1);
    let failed = |what: String| format!("node {name}: {what}");
    let curve = CurveSecret::generate(&mut OsRng);
    let ccpk = pushy_core::api::escape_query(&curve.public().to_z85());
    let path = format!("/organizations/{}/pushy/config/{name}?ccpk={ccpk}&version=2.0", options.org);
    let (status, body) =
        http.call((&name, &options.key), "GET", &path, "").map_err(|e| failed(e.to_string()))?;
    if status != 200 {
        return Err(failed(format!("status {status}: {}", String::from_utf8_lossy(&body))));
    }
    let config = NodeConfig::from_json(&body).map_err(|e| failed(e.to_string()))?;
    let address = |text: &str| -> Result<SocketAddr, String> {
        let text = text.strip_prefix("tcp://").unwrap_or(text);
        let found = text.to_socket_addrs().map_err(|e| failed(format!("{text}: {e}")))?;
        found.into_iter().find(SocketAddr::is_ipv4).ok_or_else(|| failed(format!("{text} has no address")))
    };
    Ok(Member {
        identity: NodeIdentity {
            node: NodeName::new(&name).map_err(|e| failed(e.to_string()))?,
            client: name.clone(),
            org: options.org.clone(),
            incarnation: IncarnationId::generate(&mut OsRng),
        },
        session: config.session_key(&options.key).map_err(|e| failed(e.to_string()))?,
        curve: Arc::new(curve),
        server: config.curve_public_key.ok_or_else(|| failed("the server has no CURVE key".into()))?,
        command: address(&config.command_addr)?,
        heartbeat: address(&config.heartbeat_addr)?,
        interval: Duration::from_millis(config.interval.0),
        source: options.bind.then(|| IpAddr::V4(Ipv4Addr::from(0x7f01_0001 + i as u32))),
        sequence: 0,
        job: None,
    })
}

/// Runs all nodes until the input ends.
async fn live(members: Vec<Member>) {
    let counters = Rc::new(Counters::default());
    let starting = Rc::new(tokio::sync::Semaphore::new(STARTING));
    for member in members {
        tokio::task::spawn_local(member.live(Rc::clone(&counters), Rc::clone(&starting)));
    }
    let (sender, mut ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(sender);
    });
    let mut said = String::new();
    loop {
        let c = &counters;
        let [open, subscribed, done, aborted] = [&c.open, &c.subscribed, &c.done, &c.aborted].map(Cell::get);
        let line = format!("open {open} subscribed {subscribed} done {done} aborted {aborted}");
        if line != said {
            println!("{} {line}", wall().0 / 1000);
            said = line;
        }
        tokio::select! {
            _ = &mut ended => return,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}
