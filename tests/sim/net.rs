//! A network of TCP streams with TCP's faults: refused, cut at any byte (what was in flight is lost), stalled,
//! half-open, slow. Within a stream bytes keep their order; across streams anything goes.

use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// A stream's number; never used twice.
pub type LinkId = u64;

/// The ends of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Who connected.
    Client,
    /// Who listened.
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// The server's two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// CURVE, both directions.
    Command,
    /// Clear, heartbeats only.
    Heartbeat,
}

#[derive(Debug, Default)]
struct Pipe {
    flying: VecDeque<Vec<u8>>,
    last_arrival: u64,
    stalled_until: u64,
}

/// One stream.
#[derive(Debug)]
pub struct Link {
    /// Which host connected.
    pub host: usize,
    port: Port,
    latency: u64,
    up: Pipe,
    down: Pipe,
    vanishing: bool,
    dead: bool,
}

impl Link {
    fn pipe(&mut self, to: Side) -> &mut Pipe {
        match to {
            Side::Server => &mut self.up,
            Side::Client => &mut self.down,
        }
    }
}

/// Something that will happen on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetEvent {
    /// The next piece of a stream arrives at an end.
    Arrive {
        /// The stream.
        link: LinkId,
        /// Where.
        to: Side,
    },
    /// An end learns that the stream is gone.
    Gone {
        /// The stream.
        link: LinkId,
        /// Which end learns it.
        at: Side,
    },
}

/// All streams.
#[derive(Debug, Default)]
pub struct Net {
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
    /// Slow network: every latency is multiplied by this.
    pub slowness: u64,
}

fn below(random: &mut ChaCha8Rng, limit: u64) -> u64 {
    random.next_u64() % limit.max(1)
}

impl Net {
    /// A stream from `host`; both ends may write at once.
    pub fn connect(&mut self, host: usize, port: Port, random: &mut ChaCha8Rng) -> LinkId {
        self.next += 1;
        let link = Link {
            host,
            port,
            latency: 1 + below(random, 20),
            up: Pipe::default(),
            down: Pipe::default(),
            vanishing: false,
            dead: false,
        };
        self.links.insert(self.next, link);
        self.next
    }

    /// The stream, while either end may still hear of it.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// Streams that carry bytes, in order of their numbers.
    pub fn alive(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, l)| !l.dead && !l.vanishing).map(|(id, _)| *id).collect()
    }

    /// The same, to one of the server's ports.
    pub fn alive_to(&self, port: Port) -> Vec<LinkId> {
        self.alive().into_iter().filter(|id| self.links.get(id).is_some_and(|l| l.port == port)).collect()
    }

    /// Puts bytes on their way; answers when they arrive.
    pub fn send(&mut self, now: u64, id: LinkId, to: Side, bytes: Vec<u8>) -> Option<u64> {
        let slowness = self.slowness.max(1);
        let link = self.links.get_mut(&id).filter(|l| !l.dead)?;
        let latency = link.latency * slowness;
        let pipe = link.pipe(to);
        let at = (now + latency).max(pipe.last_arrival);
        pipe.last_arrival = at;
        pipe.flying.push_back(bytes);
        Some(at)
    }

    /// The piece that arrives now; `Err(at)`: it is stalled until then.
    pub fn arrive(&mut self, now: u64, id: LinkId, to: Side) -> Result<Option<Vec<u8>>, u64> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(None) };
        if link.dead {
            return Ok(None);
        }
        let vanishing = link.vanishing;
        let pipe = link.pipe(to);
        if now < pipe.stalled_until {
            return Err(pipe.stalled_until);
        }
        let piece = pipe.flying.pop_front();
        Ok(if vanishing { None } else { piece })
    }

    /// Cuts the stream: each direction delivers a random prefix of what was in flight, the rest is lost.
    pub fn cut(&mut self, id: LinkId, random: &mut ChaCha8Rng) -> [(Side, Vec<u8>); 2] {
        let mut last = [(Side::Client, Vec::new()), (Side::Server, Vec::new())];
        let Some(link) = self.links.get_mut(&id).filter(|l| !l.dead) else { return last };
        link.dead = true;
        for (side, bytes) in &mut last {
            let vanishing = link.vanishing;
            let flying: Vec<u8> = link.pipe(*side).flying.drain(..).flatten().collect();
            if !vanishing {
                let keep = below(random, flying.len() as u64 + 1) as usize;
                bytes.extend_from_slice(&flying[..keep]);
            }
        }
        last
    }

    /// One end closes: what it had sent before still arrives, then the other end learns it.
    pub fn close(&mut self, id: LinkId, by: Side) -> (Vec<u8>, u64) {
        let Some(link) = self.links.get_mut(&id).filter(|l| !l.dead) else { return (Vec::new(), 0) };
        link.dead = true;
        let vanishing = link.vanishing;
        let latency = link.latency;
        let flying: Vec<u8> = link.pipe(by.other()).flying.drain(..).flatten().collect();
        (if vanishing { Vec::new() } else { flying }, latency)
    }

    /// Nothing moves towards `to` until then.
    pub fn stall(&mut self, id: LinkId, to: Side, until: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.pipe(to).stalled_until = until;
        }
    }

    /// Bytes vanish both ways from now on; neither end hears of it by itself.
    pub fn half_open(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.vanishing = true;
        }
    }

    /// Streams that stand still or whose bytes vanish.
    pub fn suffering(&self) -> Vec<LinkId> {
        let stands = |l: &Link| l.vanishing || l.up.stalled_until > 0 || l.down.stalled_until > 0;
        self.links.iter().filter(|(_, l)| !l.dead && stands(l)).map(|(id, _)| *id).collect()
    }
}
