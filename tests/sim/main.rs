//! Simulation: one server, a few nodes, a hostile network, one clock; everything follows from a seed (decision 28).
//!
//! `PUSHY_SIM_SEEDS=N` sets how many seeds are run, `PUSHY_SIM_SEED=S` runs one and prints its trace, with the planted
//! defect that `PUSHY_SIM_PLANTED=NAME` names. Real bytes travel: ZMTP with CURVE, signatures, JSON. A third of the seeds has
//! originals as peers, a quarter a rogue or slow hosts ([`twist`]). Not covered: the programs around the machines, real
//! processes and disks, REST's authentication; those have tests of their own.

// A test program: nothing is reachable from outside, and `pub` says what a module offers the others.
#![allow(unreachable_pub)]

mod duties;
mod host;
mod keys;
mod ledger;
mod net;
mod node_host;
mod operate;
mod ops;
mod original_node;
mod original_server;
mod push;
#[cfg(test)]
mod regressions;
mod rogue_node;
mod rogue_server;
mod rows;
mod server_host;
mod store;
mod twist;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pushy_core::node::Bug;
use pushy_core::server::PlantedBug;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use ledger::Broken;
use ops::FAULTS;
use twist::Twist;
use world::World;

/// Operations and faults happen before this, in milliseconds.
const CALM: u64 = 60_000;
/// So long after that every one of our nodes has heard the server: a back-off of 10 s, a heartbeat, 3 s to end a process.
const RETURNED: u64 = 18_000;
/// After that every one of our nodes must be available within this.
const HEALED: u64 = 45_000;
/// An original client needs its own timer: up to 120 s after a failed fetch (decision 4).
const HEALED_ORIGINAL: u64 = 135_000;

#[derive(Default)]
struct Outcome {
    faults: [u64; FAULTS.len()],
    jobs: usize,
    rows: BTreeMap<String, u64>,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.jobs += other.jobs;
        for (sum, count) in self.faults.iter_mut().zip(other.faults) {
            *sum += count;
        }
        for (row, count) in other.rows {
            *self.rows.entry(row).or_default() += count;
        }
    }
}

fn run(seed: u64, prepare: impl Fn(&mut World)) -> Result<Outcome, (Broken, Vec<String>)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let nodes = 2 + (random.next_u64() % 4) as usize;
    // Every third seed has original clients among the nodes, or an original server. The last node, the attacker's,
    // is ours.
    let originals = if seed % 3 == 2 { (random.next_u64() % nodes as u64) as usize } else { 0 };
    let original_server = seed % 3 == 2 && originals == 0;
    let twist = Twist::of(seed);
    let mut world = World::new(random.next_u64(), nodes, originals, original_server, twist);
    prepare(&mut world);
    // The seeds of the regressions are not among those with cancels.
    world.schedule(ops::generate(&mut random, CALM, ops::cancels(seed)));
    world.schedule(ops::twisted(twist, &mut random, CALM));
    let healed = if originals > 0 { HEALED_ORIGINAL } else { HEALED };
    let result = drive(&mut world, healed);
    world.count_rows();
    match result {
        Ok(()) => {
            Ok(Outcome { faults: world.faults, jobs: world.ledger.started_jobs.len(), rows: world.rows })
        }
        Err(broken) => {
            let mut trace = std::mem::take(&mut world.trace);
            trace.extend(world.server.log().iter().map(|l| format!("server log {l}")));
            Err((format!("seed {seed} at {}: {broken}", world.now()), trace))
        }
    }
}

fn drive(world: &mut World, healed: u64) -> Result<(), Broken> {
    world.run(CALM)?;
    world.heal()?;
    // Whoever was away is back by now, and has given up what was cancelled meanwhile.
    world.run(CALM + RETURNED)?;
    world.ledger.check_cancelled()?;
    // Every job has ended by then: 6 s of voting, and 20 s of running, or 60 s from before the middle of the storm on.
    world.run(CALM + healed)?;
    world.ledger.settle(&world.server.kept().stored)?;
    world.duties.settle(world.now())?;
    // A node that is just then changing its keys is back within moments.
    for _ in 0..20 {
        if world.missing().is_empty() {
            return Ok(());
        }
        world.run(world.now() + 250)?;
    }
    Err(format!("not available after {healed} ms of calm: {:?}", world.missing()))
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn seeds() {
    if let Ok(seed) = std::env::var("PUSHY_SIM_SEED") {
        let seed = seed.parse().expect("PUSHY_SIM_SEED is a number");
        let planted = planted().into_iter().map(|(_, bug)| bug).next();
        let only = std::env::var("PUSHY_SIM_PLANTED").is_ok();
        let prepare = |world: &mut World| {
            world.traced = true;
            planted.iter().filter(|_| only).for_each(|bug| bug.plant(world));
        };
        let (broken, trace) = match run(seed, prepare) {
            Ok(outcome) => return println!("seed {seed}: {} jobs, no rule broken", outcome.jobs),
            Err(failure) => failure,
        };
        panic!("{}\n{broken}", trace.join("\n"));
    }
    let seeds = number("PUSHY_SIM_SEEDS", 500);
    let next = AtomicU64::new(0);
    let totals = Mutex::new((Outcome::default(), Vec::new()));
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let outcome = run(seed, |_| ());
                    let mut totals = totals.lock().expect("no worker panics");
                    match outcome {
                        Ok(outcome) => totals.0.add(outcome),
                        Err((broken, _)) => totals.1.push(broken),
                    }
                }
            });
        }
    });
    let (total, broken) = totals.into_inner().expect("no worker panics");
    println!("simulation: {seeds} seeds, {} jobs, {} failures", total.jobs, broken.len());
    for (name, count) in FAULTS.iter().zip(total.faults) {
        println!("  fault {name:<14} {count}");
    }
    for (row, count) in &total.rows {
        println!("  row {row:<44} {count}");
    }
    let shown: Vec<&String> = broken.iter().take(20).collect();
    assert!(broken.is_empty(), "{} seeds broke a rule:\n{shown:#?}", broken.len());
    let wrong = rows::contradictions(&total.rows, seeds >= 10_000);
    assert!(wrong.is_empty(), "the lists of rows.rs do not fit:\n{wrong:#?}");
    if seeds >= 10_000 {
        for (name, count) in FAULTS.iter().zip(total.faults) {
            assert!(count >= 1_000, "fault {name} happened {count} times only");
        }
    }
}

/// Every defect planted in our machines is found, so that a simulation that finds nothing means something.
#[test]
fn planted_defects_are_found() {
    let seeds = number("PUSHY_SIM_PLANTED_SEEDS", 2_000);
    let mut missed = Vec::new();
    for (name, bug) in planted() {
        match first_failure(seeds, |world| bug.plant(world)) {
            Some(broken) => println!("planted {name}: {broken}"),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found within {seeds} seeds: {missed:?}");
}

#[derive(Clone, Copy)]
enum Planted {
    Server(PlantedBug),
    Node(Bug),
}

impl Planted {
    fn plant(self, world: &mut World) {
        match self {
            Planted::Server(bug) => world.server.plant(bug),
            Planted::Node(bug) => world.hosts.iter_mut().for_each(|h| h.plant(bug)),
        }
    }
}

/// The defects by name; only the one of `PUSHY_SIM_PLANTED`, if that is set.
fn planted() -> Vec<(String, Planted)> {
    let server = PlantedBug::ALL.iter().map(|b| (format!("{b:?}"), Planted::Server(*b)));
    let node = Bug::ALL.iter().map(|b| (format!("{b:?}"), Planted::Node(*b)));
    let only = std::env::var("PUSHY_SIM_PLANTED").ok();
    let all: Vec<_> =
        server.chain(node).filter(|(name, _)| only.as_ref().is_none_or(|o| o == name)).collect();
    assert!(!all.is_empty(), "PUSHY_SIM_PLANTED names none of the planted defects: {only:?}");
    all
}

fn first_failure(seeds: u64, prepare: impl Fn(&mut World) + Sync) -> Option<Broken> {
    let next = AtomicU64::new(0);
    let found = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || found.lock().expect("no worker panics").is_some() {
                        break;
                    }
                    if let Err((broken, _)) = run(seed, &prepare) {
                        *found.lock().expect("no worker panics") = Some(broken);
                    }
                }
            });
        }
    });
    found.into_inner().expect("no worker panics")
}
