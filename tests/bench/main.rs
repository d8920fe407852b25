//! The figures of the push server at fleet size, each with how it was measured: `cargo run --release -p pushy-tests --bin
//! bench`. The fleet runs in a process of its own; give both a core.
//!
//! Without arguments all are measured, which takes about fifteen minutes; else those named:
//! `job-1000 job-9500 memory restart idle file node-states job-rate finished-jobs listeners`. `--quick` takes one round instead of five and shorter waits.

use std::process::ExitCode;
use std::time::{Duration, Instant};

mod lab;
mod load;
mod rest;

use lab::{Lab, Outcome};

/// One figure with its limit.
struct Figure {
    what: &'static str,
    value: f64,
    unit: &'static str,
    limit: Limit,
    method: &'static str,
}

/// What a figure must keep.
#[derive(Clone, Copy)]
enum Limit {
    Most(f64),
    Least(f64),
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Limit::Most(limit) => value <= limit,
            Limit::Least(limit) => value >= limit,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, limit) = match self {
            Limit::Most(limit) => ("at most", limit),
            Limit::Least(limit) => ("at least", limit),
        };
        f.pad(&format!("{word} {limit}"))
    }
}

/// How thorough to be.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    settle: Duration,
}

type Bench = fn(Effort) -> Outcome<Vec<Figure>>;

const BENCHES: [(&str, Bench); 10] = [
    ("job-1000", |effort| job(effort, 1000, [0.2, 0.15])),
    ("job-9500", |effort| job(effort, 9500, [2.0, 1.5])),
    ("memory", memory),
    ("restart", restart),
    ("idle", idle),
    ("file", file),
    ("node-states", rest::node_states),
    ("job-rate", rest::job_rate),
    ("finished-jobs", rest::finished_jobs),
    ("listeners", rest::listeners),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let wanted: Vec<&String> = args.iter().filter(|arg| *arg != "--quick").collect();
    if let Some(unknown) = wanted.iter().find(|w| BENCHES.iter().all(|(name, _)| name != *w)) {
        eprintln!("bench: nothing is called {unknown}; see the head of tests/bench/main.rs");
        return ExitCode::FAILURE;
    }
    let settle = Duration::from_secs(if quick { 10 } else { 60 });
    let effort = Effort { rounds: if quick { 1 } else { 5 }, settle };
    let mut good = true;
    for (name, bench) in BENCHES {
        if !wanted.is_empty() && !wanted.iter().any(|w| *w == name) {
            continue;
        }
        match bench(effort) {
            Ok(figures) => {
                for f in figures {
                    let verdict = if f.limit.holds(f.value) { "ok" } else { "MISSED" };
                    good &= f.limit.holds(f.value);
                    println!("{:<44} {:>9.3} {:<8} {:<15} {verdict}", f.what, f.value, f.unit, f.limit);
                    println!("    {}", f.method);
                }
            }
            Err(error) => {
                good = false;
                println!("{name}: could not be measured: {error}");
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A no-op job on all nodes.
fn job(effort: Effort, nodes: usize, limits: [f64; 2]) -> Outcome<Vec<Figure>> {
    let mut lab = Lab::start(nodes, 10.0)?;
    lab.start_fleet()?;
    // One job warms up both sides.
    lab.job(nodes, None)?;
    let (mut times, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let run = lab.job(nodes, None)?;
        times.push(run.seconds);
        cpus.push(run.cpu);
    }
    let (time, cpu) = if nodes == 1000 {
        ("no-op job on 1,000 nodes", "server CPU of a job on 1,000 nodes")
    } else {
        ("no-op job on 9,500 nodes", "server CPU of a job on 9,500 nodes")
    };
    Ok(vec![
        Figure {
            what: time,
            value: median(times),
            unit: "s",
            limit: Limit::Most(limits[0]),
            method: "median of the rounds; from sending POST jobs to the first GET that says complete",
        },
        Figure {
            what: cpu,
            value: median(cpus),
            unit: "s",
            limit: Limit::Most(limits[1]),
            method: "median of the rounds; user and system time of all threads in that span, /proc/PID/task/*/schedstat",
        },
    ])
}

fn memory(effort: Effort) -> Outcome<Vec<Figure>> {
    let nodes = 5000;
    let mut lab = Lab::start(nodes, 10.0)?;
    let before = lab.rss()?;
    lab.start_fleet()?;
    std::thread::sleep(effort.settle);
    let after = lab.rss()?;
    Ok(vec![Figure {
        what: "server memory of an idle node",
        value: (after - before) / nodes as f64,
        unit: "kB",
        limit: Limit::Most(20.0),
        method: "(VmRSS with 5,000 nodes, both connections, after a minute − VmRSS before they came) / 5,000",
    }])
}

fn restart(effort: Effort) -> Outcome<Vec<Figure>> {
    let nodes = 9500;
    let mut lab = Lab::start(nodes, 10.0)?;
    lab.start_fleet()?;
    lab.wait_available(nodes, Duration::from_secs(120))?;
    let mut times = Vec::new();
    for _ in 0..effort.rounds {
        lab.stop_server()?;
        std::thread::sleep(Duration::from_secs(2));
        lab.start_server()?;
        let up = Instant::now();
        lab.wait_available(nodes, Duration::from_secs(120))?;
        times.push(up.elapsed().as_secs_f64());
    }
    Ok(vec![Figure {
        what: "9,500 nodes back after a restart of 2 s",
        value: median(times),
        unit: "s",
        limit: Limit::Most(15.0),
        method: "median; from the server's `ready` until node_states says available for all",
    }])
}

fn idle(effort: Effort) -> Outcome<Vec<Figure>> {
    let mut lab = Lab::start(1000, 10.0)?;
    lab.start_fleet()?;
    std::thread::sleep(Duration::from_secs(10));
    let (start, cpu) = (Instant::now(), lab.cpu()?);
    std::thread::sleep(effort.settle);
    let share = (lab.cpu()? - cpu) / start.elapsed().as_secs_f64() * 100.0;
    Ok(vec![Figure {
        what: "idle CPU with 1,000 nodes, heartbeats of 10 s",
        value: share,
        unit: "%",
        limit: Limit::Most(0.7),
        method: "of one core, over a minute, all threads",
    }])
}

fn file(effort: Effort) -> Outcome<Vec<Figure>> {
    let nodes = 2000;
    let mut lab = Lab::start(nodes, 10.0)?;
    lab.start_fleet()?;
    lab.job(nodes, None)?;
    let mut growths = Vec::new();
    for _ in 0..effort.rounds {
        let before = lab.rss()?;
        let watch = lab.watch_rss();
        lab.job(nodes, Some(100_000))?;
        growths.push((watch.most() - before) / 1024.0);
    }
    Ok(vec![Figure {
        what: "memory growth by a 100,000-byte file on 2,000",
        value: median(growths),
        unit: "MB",
        limit: Limit::Most(128.0),
        method: "median; most VmRSS seen every 5 ms during the job − VmRSS before",
    }])
}
