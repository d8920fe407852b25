//! What a share of the seeds has beside honest peers on a hostile network.

/// What is out of the ordinary in a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twist {
    /// Nothing.
    None,
    /// The first node has valid keys and breaks the protocol.
    RogueNode,
    /// The server has valid keys and breaks the protocol.
    RogueServer,
    /// Checks, starts, kills and configuration requests take long, lifetimes are short, connections die young.
    SlowHosts,
}

impl Twist {
    /// Every fourth seed has one. Seeds with originals have none.
    pub fn of(seed: u64) -> Twist {
        match (seed % 3, seed % 10) {
            (0 | 1, 1 | 4) => Twist::RogueNode,
            (0 | 1, 3) => Twist::RogueServer,
            (0 | 1, 8) => Twist::SlowHosts,
            _ => Twist::None,
        }
    }

    /// How long things take on a host.
    pub fn tempo(self) -> Tempo {
        match self {
            Twist::None => Tempo { checks: 30, start: 5, kill: 3_000 },
            // Votes stay open for long enough to be talked into.
            Twist::RogueNode => Tempo { checks: 1_500, start: 100, kill: 1_000 },
            Twist::RogueServer | Twist::SlowHosts => Tempo { checks: 2_500, start: 1_500, kill: 4_000 },
        }
    }

    /// The longest that a configuration request takes beyond the way there and back, in milliseconds; some of those that may
    /// take long fail.
    pub fn rest(self) -> u64 {
        match self {
            Twist::None | Twist::RogueNode => 0,
            Twist::RogueServer | Twist::SlowHosts => 6_000,
        }
    }

    /// How long our server's configurations may be used, in seconds.
    pub fn lifetime(self) -> u32 {
        if self == Twist::SlowHosts { 12 } else { 40 }
    }
}

/// The longest times on a host, in milliseconds; each time is anything below.
#[derive(Debug, Clone, Copy)]
pub struct Tempo {
    /// Until the checks before a vote are done.
    pub checks: u64,
    /// Until a process exists.
    pub start: u64,
    /// Until a process that is killed is gone.
    pub kill: u64,
}
