//! Figures of the REST API: node states, job creation, finished jobs, listeners of a feed (decision 34).

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::lab::{Lab, Outcome, text};
use crate::load::{Line, closed_loop, open_loop, runtime};
use crate::{Effort, Figure, Limit, median};

const API: &str = "/organizations/acme/pushy";

pub(crate) fn node_states(effort: Effort) -> Outcome<Vec<Figure>> {
    let mut lab = Lab::start(1000, 10.0)?;
    lab.start_fleet()?;
    let path = format!("{API}/node_states");
    let requests: Vec<Vec<u8>> =
        (0..256).map(|n| lab.sender().request("GET", &path, "", n)).collect::<Outcome<_>>()?;
    let runtime = runtime()?;
    let host = lab.sender().host.to_owned();
    runtime.block_on(closed_loop(&host, 16, &requests, Duration::from_secs(1)))?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let (start, cpu) = (Instant::now(), lab.cpu()?);
        let count = runtime.block_on(closed_loop(&host, 16, &requests, Duration::from_secs(5)))? as f64;
        rates.push(count / start.elapsed().as_secs_f64());
        costs.push((lab.cpu()? - cpu) * 1e6 / count);
    }
    Ok(vec![
        Figure {
            what: "GET node_states of 1,000 nodes",
            value: median(rates),
            unit: "1/s",
            limit: Limit::Least(5000.0),
            method: "median of the rounds of 5 s; 16 kept connections, 256 requests signed beforehand, every signature checked",
        },
        Figure {
            what: "server CPU of such a request",
            value: median(costs),
            unit: "µs",
            limit: Limit::Most(200.0),
            method: "median of the rounds; user and system time of all threads, /proc/PID/task/*/schedstat",
        },
    ])
}

fn jobs(lab: &Lab, count: usize, nodes: usize) -> Outcome<Vec<Vec<u8>>> {
    let body = |n: usize| format!(r#"{{"command":"chef-client","nodes":["fleet{}"]}}"#, n % nodes + 1);
    let path = format!("{API}/jobs");
    (0..count).map(|n| lab.sender().request("POST", &path, &body(n), n)).collect()
}

pub(crate) fn job_rate(effort: Effort) -> Outcome<Vec<Figure>> {
    let nodes = 500;
    let mut lab = Lab::start(nodes, 10.0)?;
    lab.start_fleet()?;
    let span = if effort.rounds > 1 { 30 } else { 10 };
    let requests = jobs(&lab, span * 500, nodes)?;
    let host = lab.sender().host.to_owned();
    let cpu = lab.cpu()?;
    let latencies = runtime()?.block_on(open_loop(&host, 100, &requests, Duration::from_millis(2)))?;
    let cpu = (lab.cpu()? - cpu) * 1e6 / requests.len() as f64;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "    latencies in ms: median {:.2}, p90 {:.2}, p99.9 {:.2}, most {:.2}; {cpu:.0} µs of server CPU a job",
        at(0.5),
        at(0.9),
        at(0.999),
        at(1.0)
    );
    Ok(vec![Figure {
        what: "p99 of job creation at 500 jobs/s",
        value: at(0.99),
        unit: "ms",
        limit: Limit::Most(20.0),
        method: "open loop, 100 connections, 30 s, one node each out of 500, signed beforehand; from the time a request was due to its 201",
    }])
}

pub(crate) fn finished_jobs(_: Effort) -> Outcome<Vec<Figure>> {
    let nodes = 500;
    let mut lab = Lab::start(nodes, 10.0)?;
    lab.start_fleet()?;
    let runtime = runtime()?;
    let host = lab.sender().host.to_owned();
    // Feeds of organizations remember a minute, finished jobs stay in memory for five seconds.
    let settle = Duration::from_secs(66);
    let mut seen = Vec::new();
    // The first are as many as a feed ever remembers: what a minute of them needs is not what they leave behind.
    for count in [60_000, 100_000] {
        for _ in 0..count / 10_000 {
            let requests = jobs(&lab, 10_000, nodes)?;
            runtime.block_on(open_loop(&host, 20, &requests, Duration::from_micros(1250)))?;
        }
        std::thread::sleep(settle);
        seen.push(lab.rss()? / 1024.0);
    }
    println!("    VmRSS in MB: {:.1} after 60,000 jobs, {:.1} after 160,000", seen[0], seen[1]);
    Ok(vec![Figure {
        what: "memory that 100,000 finished jobs leave behind",
        value: seen[1] - seen[0],
        unit: "MB",
        limit: Limit::Most(5.0),
        method: "VmRSS 66 s after 160,000 jobs at 800/s − VmRSS 66 s after the first 60,000",
    }])
}

pub(crate) fn listeners(_: Effort) -> Outcome<Vec<Figure>> {
    let (nodes, count) = (100, 1000);
    let mut lab = Lab::start(nodes, 10.0)?;
    lab.start_fleet()?;
    // The nodes hold still until everybody listens.
    lab.hold_fleet(true)?;
    let job = lab.start_job(nodes)?;
    let before = lab.rss()?;
    let request = lab.sender().request("GET", &format!("{API}/job_status_feed/{job}"), "", 0)?;
    let runtime = runtime()?;
    let host = lab.sender().host.to_owned();
    let mut lines: Vec<Line> = runtime.block_on(async {
        let mut lines = Vec::new();
        for _ in 0..count {
            let mut line = Line::open(&host).await?;
            line.send(&request).await?;
            line.head("200").await?;
            line.forget();
            lines.push(line);
        }
        Outcome::Ok(lines)
    })?;
    let idle = (lab.rss()? - before) / count as f64;
    let watch = lab.watch_rss();
    lab.hold_fleet(false)?;
    let (begun, cpu) = (Instant::now(), lab.cpu()?);
    let lengths = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for mut line in lines.drain(..) {
            tasks.spawn(async move { line.read_to_end().await });
        }
        tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await.map_err(text)
    })?;
    let (took, cpu) = (begun.elapsed().as_secs_f64(), lab.cpu()? - cpu);
    let lengths: Vec<usize> = lengths.into_iter().collect::<Outcome<_>>()?;
    let bytes = lengths.iter().max().copied().unwrap_or(0);
    println!(
        "    {idle:.1} kB a listener before the first node says something; {bytes} bytes each; {cpu:.2} s of server CPU"
    );
    Ok(vec![
        Figure {
            what: "memory of a listener to a job's feed",
            value: (watch.most() - before) / count as f64,
            unit: "kB",
            limit: Limit::Most(40.0),
            method: "(most VmRSS until 1,000 listeners have had all 303 events − VmRSS before they came) / 1,000",
        },
        Figure {
            what: "303 events to 1,000 listeners",
            value: took,
            unit: "s",
            limit: Limit::Most(10.0),
            method: "from letting 100 nodes go until the last listener has the end of its stream",
        },
    ])
}
