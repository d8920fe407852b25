//! What a seed does to the world: jobs and faults, with the moment of each.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

use crate::node_host::COMMANDS;
use crate::twist::Twist;

/// One thing done to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// An operator starts a job on the nodes of this bit mask.
    StartJob {
        /// Index into `COMMANDS`.
        command: usize,
        /// Which nodes, plus one that does not exist when the highest bit is set.
        nodes: u64,
        /// Yes votes needed, as a share in percent.
        quorum: u64,
        /// Seconds.
        run_timeout: u32,
    },
    /// The same once the first node is available, if it is within so many tries.
    Tempt(Box<Op>, u32),
    /// An operator gives up an unfinished job, or some of its nodes.
    Cancel {
        /// Which of them.
        which: u64,
        /// Which of its nodes; 0: the whole job.
        nodes: u64,
    },
    /// A stream is cut, somewhere within what is in flight.
    Cut(u64),
    /// A stream stands still for milliseconds, in one direction.
    Stall(u64, u64),
    /// A stream's bytes vanish; nobody is told for milliseconds.
    HalfOpen(u64, u64),
    /// A node's command stream takes nothing more from it (its window is shut), and is cut after milliseconds: what the node
    /// says meanwhile waits in its own queue, if it has one, for the next stream.
    ShutWindow(u64, u64),
    /// New streams are refused for milliseconds.
    Refuse(u64),
    /// Every stream is cut, and new ones are refused for milliseconds, while configurations can be had.
    Outage(u64),
    /// Everything takes this many times longer, for milliseconds.
    Slow(u64, u64),
    /// The server dies and starts again after milliseconds.
    ServerCrash(u64),
    /// An agent dies and starts again after milliseconds.
    NodeCrash(u64, u64),
    /// The store fails for milliseconds.
    StoreFails(u64),
    /// The store takes longer by the second number, for milliseconds.
    StoreSlow(u64, u64),
    /// A host's wall clock steps by seconds; host 0 is the server.
    ClockStep(u64, i64),
    /// An attacker sends a frame recorded before on a connection of its own, or to a node.
    Replay(u64),
}

/// Names of the faults, for the report.
pub const FAULTS: [&str; 12] = [
    "cut",
    "stall",
    "half-open",
    "refused",
    "slow",
    "server-crash",
    "node-crash",
    "store-fails",
    "store-slow",
    "clock-step",
    "replay",
    "shut-window",
];

/// Where `node-crash` is among [`FAULTS`].
pub const NODE_CRASH: usize = 6;

impl Op {
    /// Which of [`FAULTS`] it is.
    pub fn fault(&self) -> Option<usize> {
        Some(match self {
            Op::StartJob { .. } | Op::Cancel { .. } | Op::Tempt(..) => return None,
            Op::Cut(_) => 0,
            Op::Stall(..) => 1,
            Op::HalfOpen(..) => 2,
            Op::Refuse(_) | Op::Outage(_) => 3,
            Op::Slow(..) => 4,
            Op::ServerCrash(_) => 5,
            Op::NodeCrash(..) => 6,
            Op::StoreFails(_) => 7,
            Op::StoreSlow(..) => 8,
            Op::ClockStep(..) => 9,
            Op::Replay(_) => 10,
            Op::ShutWindow(..) => 11,
        })
    }
}

/// Whether operators change their minds in this seed: in half of them, none of which is kept as a regression.
pub fn cancels(seed: u64) -> bool {
    seed % 4 >= 2
}

/// A schedule: sorted by time, in milliseconds, all before `until`. With `cancels` operators change their minds.
pub fn generate(random: &mut ChaCha8Rng, until: u64, cancels: bool) -> Vec<(u64, Op)> {
    let count = 12 + random.next_u64() % 24;
    let mut ops: Vec<(u64, Op)> = (0..count).map(|_| (random.next_u64() % until, one(random))).collect();
    // Drawn after all else. A job is put to every node while one cannot answer: what that says of before and after
    // comes late.
    for _ in 0..random.next_u64() % 3 {
        let (at, wait) = (random.next_u64() % until, 1_000 + random.next_u64() % 6_000);
        ops.push((at, Op::ShutWindow(random.next_u64() % (1 << 20), wait)));
        ops.push(((at + random.next_u64() % wait).min(until - 1), job_for_all(random)));
    }
    if cancels {
        for _ in 0..2 + random.next_u64() % 4 {
            ops.push((random.next_u64() % until, cancel(random)));
        }
        // A job that would go on for long is given up while somebody is away.
        let (at, wait) = (random.next_u64() % (until / 2), 1_000 + random.next_u64() % 20_000);
        ops.push((at, Op::StartJob { command: 3, nodes: (1 << 60) - 1, quorum: 30, run_timeout: 60 }));
        if random.next_u64() % 2 == 0 {
            ops.push((at + wait - 60, Op::Refuse(500 + random.next_u64() % 4_000)));
            for _ in 0..3 {
                ops.push((at + wait - 50, Op::Cut(random.next_u64() % (1 << 20))));
            }
        }
        ops.push((at + wait, cancel(random)));
    }
    ops.sort_by_key(|(at, _)| *at);
    ops
}

/// What a twist adds to the schedule of its seed.
pub fn twisted(twist: Twist, random: &mut ChaCha8Rng, until: u64) -> Vec<(u64, Op)> {
    let mut ops = Vec::new();
    match twist {
        Twist::None => {}
        Twist::RogueNode => {
            for _ in 0..16 {
                let at = random.next_u64() % until;
                ops.push((at, Op::Tempt(Box::new(job_with_the_rogue(random)), 40)));
            }
        }
        Twist::RogueServer | Twist::SlowHosts => {
            for _ in 0..4 {
                ops.push((random.next_u64() % until, job_for_all(random)));
            }
            if random.next_u64() % 2 == 0 {
                let at = 1_000 + random.next_u64() % (until / 3);
                // A command that outlasts it; longer than a node waits before it asks whether the server has moved.
                ops.push((at.saturating_sub(1_000), job_for_all(random)));
                ops.push((at, Op::Outage(32_000 + random.next_u64() % 8_000)));
            }
        }
    }
    ops
}

/// Long enough to be talked into.
fn job_with_the_rogue(random: &mut ChaCha8Rng) -> Op {
    let mut pick = |limit: u64| random.next_u64() % limit;
    Op::StartJob {
        command: [0, 1, 2, 2, 2, 2, 3][pick(7) as usize],
        nodes: 1 | [(1 << 60) - 1, pick(1 << 60), 0][pick(3) as usize],
        quorum: [0, 0, 30, 50, 100][pick(5) as usize],
        run_timeout: [3, 3, 8, 20][pick(4) as usize],
    }
}

fn cancel(random: &mut ChaCha8Rng) -> Op {
    let nodes = if random.next_u64() % 3 == 0 { random.next_u64() } else { 0 };
    Op::Cancel { which: random.next_u64(), nodes }
}

fn job_for_all(random: &mut ChaCha8Rng) -> Op {
    let mut pick = |limit: u64| random.next_u64() % limit;
    Op::StartJob {
        command: [0, 2, 2, 3][pick(4) as usize],
        nodes: (1 << 60) - 1,
        quorum: [50, 100][pick(2) as usize],
        run_timeout: 20,
    }
}

fn one(random: &mut ChaCha8Rng) -> Op {
    let mut pick = |limit: u64| random.next_u64() % limit;
    match pick(20) {
        0..=6 => Op::StartJob {
            // Mostly commands that run.
            command: [0, 0, 0, 1, 2, 2, 2, 3, 4, 5, 6][pick(11) as usize] % COMMANDS.len(),
            nodes: 1 + pick(u64::MAX),
            quorum: [0, 30, 50, 100, 100, 100][pick(6) as usize],
            run_timeout: [0, 3, 8, 20, 20][pick(5) as usize],
        },
        7 | 8 => Op::Cut(pick(1 << 20)),
        9 => Op::Stall(pick(1 << 20), 100 + pick(15_000)),
        10 => Op::HalfOpen(pick(1 << 20), 1_000 + pick(40_000)),
        11 => Op::Refuse(pick(8_000)),
        12 => Op::Slow(2 + pick(60), pick(8_000)),
        13 => Op::ServerCrash(1 + pick(12_000)),
        14 => Op::NodeCrash(pick(1 << 20), 1 + pick(8_000)),
        15 => Op::StoreFails(pick(6_000)),
        16 => Op::StoreSlow(pick(8_000), 1 + pick(3_000)),
        17 => Op::ClockStep(pick(8), pick(801) as i64 - 400),
        _ => Op::Replay(pick(1 << 20)),
    }
}
