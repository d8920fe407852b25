//! Event feeds (section 8): one for each job in memory and one for each organization, with any number of listeners.
//!
//! A job's events are stored before they are told (decision 10), so its feed goes on after a restart where it stopped, with
//! the same ids. The numbers of an organization's feed begin anew with each start, far from those before: who resumes
//! with one of before gets `start_of_history` and everything of the retention, nothing is left out silently.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use pushy_core::event::Event;
use pushy_core::feed::Frame;
use pushy_core::ids::{JobId, OrgId};
use pushy_core::time::Wall;
use tokio::sync::Notify;

use crate::store::{KeptFeed, Store};

mod body;
mod log;

pub use body::{FeedBody, Lost};
use log::Log;

/// An organization's feed remembers no more than this many bytes, however long its retention.
const MOST_BYTES: usize = 8 << 20;
/// Ended feeds are forgotten at most this often, together.
const ROUND: Duration = Duration::from_millis(500);
/// Without any that ended this round comes all the same.
const IDLE: Duration = Duration::from_secs(3600);
/// The numbers of an organization's feed begin at this times the number of the server's start.
const NUMBERS: u64 = 1_000_000_000;

/// How feeds behave; see the settings of the same names.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A silent feed says something after this.
    pub keep_alive: Duration,
    /// An organization's feed remembers this long.
    pub retention: Duration,
    /// A finished job's feed can be asked for this long.
    pub linger: Duration,
}

/// What became of a request for a job's feed.
#[derive(Debug)]
pub enum JobFeed {
    /// Here it is.
    Open(FeedBody),
    /// No job in memory has this id in this organization.
    Unknown,
    /// The server is stopping.
    Stopping,
}

/// All feeds of the server.
pub struct Hub {
    settings: Settings,
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// Something has ended: [`Hub::reap`] has work.
    ended: Notify,
}

#[derive(Default)]
struct State {
    jobs: HashMap<JobId, (OrgId, Arc<Log>)>,
    orgs: HashMap<OrgId, OrgFeed>,
    first_number: u64,
    /// Ended feeds that leave memory, by time.
    lingering: VecDeque<(Instant, JobId)>,
    /// Ended feeds that leave the store, by time.
    kept: VecDeque<(Instant, JobId)>,
    closed: bool,
}

struct OrgFeed {
    log: Arc<Log>,
    /// Stamps of a stream rise (8.6, H16), also across jobs.
    last: Wall,
}

impl Hub {
    /// The feeds as the store has them. `start` is the number of this start of the server.
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        feeds: Vec<KeptFeed>,
        start: u64,
        now: Wall,
    ) -> Hub {
        let mut state = State { first_number: start.saturating_mul(NUMBERS) + 1, ..State::default() };
        let here = Instant::now();
        let since = |frame: &Frame| {
            let micros = frame.at().map_or(0, |at| now.0.saturating_sub(at.0).max(0));
            Duration::from_micros(micros.unsigned_abs())
        };
        let mut history: Vec<(Duration, Frame, OrgId, JobId)> = Vec::new();
        let mut over: Vec<(Duration, JobId)> = Vec::new();
        for feed in feeds {
            let KeptFeed { org, job, frames } = feed;
            let ended = frames.last().filter(|last| last.name() == "job_complete").map(since);
            for frame in frames.iter().filter(|frame| matches!(frame.name(), "start" | "job_complete")) {
                let age = since(frame);
                if age < settings.retention {
                    history.push((age, frame.clone(), org.clone(), job.clone()));
                }
            }
            let log = Log::new(0);
            for frame in frames {
                log.push(here, frame);
            }
            if let Some(age) = ended {
                log.end();
                over.push((age, job.clone()));
                if age >= settings.linger {
                    continue;
                }
            }
            state.jobs.insert(job, (org, Arc::new(log)));
        }
        over.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        for (age, job) in over {
            state.lingering.push_back((here + settings.linger.saturating_sub(age), job.clone()));
            state.kept.push_back((here + settings.keep().saturating_sub(age), job));
        }
        history.sort_by_key(|(age, ..)| std::cmp::Reverse(*age));
        for (age, frame, org, job) in history {
            if let Some(at) = frame.at() {
                state.tell_org(org, &job, at, &frame, here + (settings.retention - age));
            }
        }
        Hub { settings, store, state: Mutex::new(state), ended: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves feeds that are as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to a job, and is stored.
    pub fn publish(&self, org: OrgId, job: JobId, at: Wall, event: &Event, frame: Frame) {
        let now = Instant::now();
        let mut state = self.lock();
        let told_to_org = matches!(event, Event::Start | Event::JobComplete { .. });
        if told_to_org {
            let log = state.tell_org(org.clone(), &job, at, &frame, now + self.settings.retention);
            log.forget(now, MOST_BYTES);
        }
        let log = match state.jobs.entry(job.clone()) {
            Entry::Occupied(known) => Arc::clone(&known.get().1),
            Entry::Vacant(new) => Arc::clone(&new.insert((org, Arc::new(Log::new(0)))).1),
        };
        log.push(now, frame);
        if matches!(event, Event::JobComplete { .. }) {
            log.end();
            if state.lingering.is_empty() {
                self.ended.notify_one();
            }
            state.lingering.push_back((now + self.settings.linger, job.clone()));
            state.kept.push_back((now + self.settings.keep(), job));
        }
    }

    /// The feed of a job in memory, after the event with this id or, for none or an unknown one, from the beginning (8.2).
    /// With `expected`, one that the store has and nothing is told of yet is waited for.
    pub fn job(&self, org: &OrgId, job: &JobId, after: Option<&str>, expected: bool) -> JobFeed {
        let mut state = self.lock();
        if state.closed {
            return JobFeed::Stopping;
        }
        if expected && !state.jobs.contains_key(job) {
            state.jobs.insert(job.clone(), (org.clone(), Arc::new(Log::new(0))));
        }
        let Some((_, log)) = state.jobs.get(job).filter(|(of, _)| of == org) else { return JobFeed::Unknown };
        let (_, end, over) = log.span();
        let told = after.and_then(|id| number(id, "job-")).filter(|number| *number <= end).unwrap_or(0);
        // Live feeds begin with a blank line when there is nothing to replay (8.1).
        let before = (told == end && !over).then(|| Bytes::from_static(b"\n\n"));
        JobFeed::Open(FeedBody::new(Arc::clone(log), told, before, self.settings.keep_alive))
    }

    /// The feed of an organization: what comes from now on, or everything after the event with this id, or all that is
    /// remembered when nobody knows the id (8.2). `None` when the server is stopping.
    pub fn organization(&self, org: &OrgId, after: Option<&str>, now: Wall) -> Option<FeedBody> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let first_number = state.first_number;
        let log = Arc::clone(&state.org(org.clone()).log);
        log.forget(Instant::now(), MOST_BYTES);
        let (first, end, _) = log.span();
        let known = after.and_then(|id| number(id, "org-")?.checked_sub(first_number));
        let (next, before) = match (after, known.filter(|position| (first..end).contains(position))) {
            (None, _) => (end, None),
            (Some(_), Some(position)) => (position + 1, None),
            (Some(_), None) => (first, Some(self.start_of_history(&log, now))),
        };
        Some(FeedBody::new(log, next, before, self.settings.keep_alive))
    }

    fn start_of_history(&self, log: &Log, now: Wall) -> Bytes {
        let retention = i64::try_from(self.settings.retention.as_micros()).unwrap_or(i64::MAX);
        let mut at = now.0.saturating_sub(retention);
        // Stamps rise, whatever the clock did meanwhile.
        let oldest = log.oldest().and_then(|event| Frame::split(&event).first().and_then(Frame::at));
        if let Some(oldest) = oldest {
            at = at.min(oldest.0.saturating_sub(1));
        }
        Bytes::from_owner(Frame::start_of_history(Wall(at)))
    }

    /// Ends all feeds: the server stops.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (_, log) in state.jobs.values() {
            log.end();
        }
        for feed in state.orgs.values() {
            feed.log.end();
        }
    }

    /// How many listen to feeds of jobs in memory, and to those of organizations.
    pub fn listeners(&self) -> (usize, usize) {
        let state = self.lock();
        let jobs = state.jobs.values().map(|(_, log)| log.listeners()).sum();
        (jobs, state.orgs.values().map(|feed| feed.log.listeners()).sum())
    }

    /// Forgets feeds that ended and what organizations need not remember any more, for ever.
    pub async fn reap(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                let now = Instant::now();
                while let Some(job) = due(&mut state.lingering, now) {
                    state.jobs.remove(&job);
                }
                let gone: Vec<JobId> = std::iter::from_fn(|| due(&mut state.kept, now)).collect();
                if !gone.is_empty() {
                    self.store.forget_feeds(gone);
                }
                // Nobody may ask or tell anything for a long time.
                for feed in state.orgs.values() {
                    feed.log.forget(now, MOST_BYTES);
                }
                let fronts = [state.lingering.front(), state.kept.front()];
                fronts.into_iter().flatten().map(|(at, _)| *at).min()
            };
            let at = next.map_or(Instant::now() + IDLE, |at| at.max(Instant::now() + ROUND));
            tokio::select! {
                () = tokio::time::sleep_until(tokio::time::Instant::from_std(at)) => {}
                () = self.ended.notified() => {}
            }
        }
    }
}

impl Settings {
    /// How long an ended feed stays in the store: a server that starts again must know what organizations were told.
    fn keep(&self) -> Duration {
        self.linger.max(self.retention)
    }
}

impl State {
    fn org(&mut self, org: OrgId) -> &mut OrgFeed {
        self.orgs.entry(org).or_insert_with(|| OrgFeed { log: Arc::new(Log::new(0)), last: Wall(i64::MIN) })
    }

    fn tell_org(&mut self, org: OrgId, job: &JobId, at: Wall, frame: &Frame, until: Instant) -> &Log {
        let first_number = self.first_number;
        let feed = self.org(org);
        let at = Wall(at.0.max(feed.last.0.saturating_add(1)));
        feed.last = at;
        let (_, end, _) = feed.log.span();
        feed.log.push(until, frame.of_organization(first_number + end, job, at));
        &feed.log
    }
}

fn due(queue: &mut VecDeque<(Instant, JobId)>, now: Instant) -> Option<JobId> {
    if queue.front()?.0 > now {
        return None;
    }
    queue.pop_front().map(|(_, job)| job)
}

/// The number in an id of ours.
fn number(id: &str, prefix: &str) -> Option<u64> {
    let digits = id.strip_prefix(prefix)?;
    // Anything else that parses as a number is not an id that was given out.
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}
