//! The machine that waits for one job.

use std::collections::VecDeque;

use super::tally::Board;
use super::{Tally, state_line};
use crate::api::JobView;
use crate::error::Error;
use crate::feed::{Entry, KEEP_ALIVE_TIME};
use crate::time::{Millis, Now, Wall};

/// The first pause; each next one is twice as long, up to the poll interval (decision 27).
const FIRST_PAUSE: Millis = Millis(10);
/// Pauses after failures: the first, and the longest.
const RETRY_PAUSE: (Millis, Millis) = (Millis(500), Millis(10_000));
/// A feed from which nothing comes for so long after it was asked for never will: something in between holds it back.
const FIRST_SIGN: Millis = Millis(20_000);
/// A feed that has spoken and then says nothing for so long, not even that it is alive (8.1), is dead.
const SILENCE: Millis = Millis(3 * KEEP_ALIVE_TIME.0);
/// While a feed speaks, the job is asked for this seldom.
const SAFETY: Millis = Millis(10_000);
/// The shortest time between two tallies.
const TALLY_PAUSE: Millis = Millis(100);
/// A tally at least this often: its clock goes on.
const TALLY_TICK: Millis = Millis(1000);

/// How to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// The longest pause between two questions while there is no feed, and the shortest between two lines. At least 10 ms.
    pub poll_interval: Millis,
    /// How long failures may follow each other until the wait is given up (D-78).
    pub patience: Millis,
    /// Whether to tell [`Output::Tally`]s, for a terminal, in place of the lines before the last.
    pub tallies: bool,
    /// The job was started by somebody else some time ago: its age is that of its document.
    pub joined: bool,
    /// Whether to follow the feed, where there is one.
    pub feed: bool,
}

impl Default for WatchOptions {
    /// 1 second, as knife; 2 minutes, which outlasts a server's restart; lines only; with the feed.
    fn default() -> WatchOptions {
        WatchOptions {
            poll_interval: Millis(1000),
            patience: Millis(120_000),
            tallies: false,
            joined: false,
            feed: true,
        }
    }
}

/// What the machine learns.
#[derive(Debug)]
pub enum Input {
    /// The deadline came.
    Tick,
    /// The job as the server shows it.
    Answer(JobView),
    /// The question failed.
    Failed {
        /// How.
        error: Error,
        /// Whether asking again may help: no connection, a time-out, a 5xx.
        transient: bool,
    },
    /// The feed said something, if only that it is alive.
    Heard,
    /// The feed tells of an event; [`Input::Heard`] comes before it.
    Event(Entry),
    /// The feed has ended, broke, or could not be opened.
    FeedEnded {
        /// The server answered, and has none to give: it is not asked for again.
        refused: bool,
    },
}

/// What the machine wants.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask the server for the job; tell the machine by [`Input::Answer`] or [`Input::Failed`].
    Ask,
    /// Open the job's feed after the event with this id, or from its beginning; tell by [`Input::Heard`],
    /// [`Input::Event`] and, once, [`Input::FeedEnded`].
    Listen(Option<String>),
    /// Close the feed. Nothing is to be told of it any more.
    HangUp,
    /// Where the job stands, for a line that is rewritten in place.
    Tally(Tally),
    /// A new state; show it on a line of its own.
    Line(String),
    /// Something the reader should know that is no state; for standard error.
    Notice(String),
    /// The job has ended. The last output.
    Finished(JobView),
    /// The wait was given up, the job goes on. The last output.
    GivenUp(Error),
}

/// The job's feed as the machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// Not open; the first answer from this time on opens it.
    Closed(Millis),
    /// Asked for; it must say something before this time.
    Opening(Millis),
    /// It speaks; it must say something again before this time.
    Live(Millis),
    /// There is none worth asking for.
    None,
}

/// One wait for one job.
///
/// `handle`, then drain `poll_output` to `None`, then wait for an answer, for the feed or for `next_deadline`, whichever is
/// first.
#[derive(Debug)]
pub struct Watch {
    options: WatchOptions,
    /// When to ask; `None` while a question is open or the wait is over.
    ask_at: Option<Millis>,
    pause: Millis,
    /// Lines are at least a poll interval apart, so that early polls (decision 27) show what knife would show.
    quiet_until: Millis,
    shown: String,
    failing_since: Option<Millis>,
    retry_pause: Millis,
    feed: Feed,
    /// Pause before the feed is opened again when it ended without a word.
    feed_pause: Millis,
    /// The id of the last event.
    last_event: Option<String>,
    /// The feed said that the job is over.
    ended: bool,
    board: Option<Board>,
    begun: Millis,
    /// The job's age when the wait began.
    age: Millis,
    tally_at: Option<Millis>,
    last_tally: Option<Millis>,
    over: bool,
    outputs: VecDeque<Output>,
}

impl Watch {
    /// A wait that begins now.
    pub fn new(now: Now, options: WatchOptions) -> Watch {
        let options = WatchOptions { poll_interval: options.poll_interval.max(FIRST_PAUSE), ..options };
        Watch {
            options,
            ask_at: Some(now.mono + FIRST_PAUSE),
            pause: FIRST_PAUSE,
            quiet_until: now.mono + options.poll_interval,
            shown: String::new(),
            failing_since: None,
            retry_pause: RETRY_PAUSE.0,
            feed: if options.feed { Feed::Closed(now.mono) } else { Feed::None },
            feed_pause: RETRY_PAUSE.0,
            last_event: None,
            ended: false,
            board: None,
            begun: now.mono,
            age: Millis(0),
            tally_at: None,
            last_tally: None,
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// When to call `handle(now, Input::Tick)`; `None` while nothing but an answer is awaited, and after the end.
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.over {
            return None;
        }
        let feed = match self.feed {
            Feed::Opening(until) | Feed::Live(until) => Some(until),
            Feed::Closed(_) | Feed::None => None,
        };
        [self.ask_at, feed, self.line_due(), self.tally_at].into_iter().flatten().min()
    }

    /// What to do next; call until `None` after each `handle`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Something happened. After the end nothing has an effect.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Answer(job) => self.answer(now, job),
            Input::Failed { error, transient } => self.failed(now.mono, error, transient),
            Input::Heard => self.heard(now.mono),
            Input::Event(entry) => self.event(now.mono, entry),
            Input::FeedEnded { refused } => self.feed_ended(now.mono, refused),
        }
        if !self.over {
            self.due(now.mono);
        }
    }

    /// Does whatever its time has come for.
    fn due(&mut self, now: Millis) {
        match self.feed {
            Feed::Opening(until) if until <= now => {
                self.outputs.push_back(Output::HangUp);
                self.feed = Feed::None;
            }
            Feed::Live(until) if until <= now => {
                self.outputs.push_back(Output::HangUp);
                self.feed = Feed::Closed(now);
                self.hurry(now);
            }
            _ => {}
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
            self.outputs.push_back(Output::Ask);
        }
        if self.line_due().is_some_and(|at| at <= now) {
            self.show_line(now);
        }
        if self.tally_at.is_some_and(|at| at <= now) {
            self.show_tally(now);
        }
    }

    fn answer(&mut self, now: Now, job: JobView) {
        let at = now.mono;
        self.failing_since = None;
        self.retry_pause = RETRY_PAUSE.0;
        if self.board.is_none() && self.options.joined {
            self.age = age(&job, now.wall);
        }
        if job.status().is_terminal() {
            let line = state_line(&job);
            if line != self.shown {
                self.outputs.push_back(Output::Line(line));
            }
            self.end(Output::Finished(job));
            return;
        }
        self.board = Some(Board::of_job(&job));
        self.tally_changed(at);
        if at >= self.quiet_until {
            self.show_line(at);
        }
        self.pause = Millis(self.pause.0.saturating_mul(2)).min(self.options.poll_interval);
        let mut next = at + self.pause;
        match self.feed {
            Feed::Live(_) if !self.ended => next = at + SAFETY.max(self.options.poll_interval),
            Feed::Closed(from) if from <= at && !self.ended => {
                self.feed = Feed::Opening(at + FIRST_SIGN);
                self.outputs.push_back(Output::Listen(self.last_event.clone()));
            }
            _ => {}
        }
        // Ask at the moment when the next line may be shown.
        let line_between = at < self.quiet_until && self.quiet_until < next;
        let asks_for_lines = !matches!(self.feed, Feed::Live(_));
        self.ask_at = Some(if line_between && asks_for_lines { self.quiet_until } else { next });
    }

    fn failed(&mut self, now: Millis, error: Error, transient: bool) {
        let since = *self.failing_since.get_or_insert(now);
        if !transient || now - since >= self.options.patience {
            self.end(Output::GivenUp(error));
            return;
        }
        if since == now {
            self.outputs.push_back(Output::Notice(format!("{error}; asking again")));
        }
        self.ask_at = Some(now + self.retry_pause);
        self.retry_pause = Millis(self.retry_pause.0.saturating_mul(2)).min(RETRY_PAUSE.1);
    }

    fn heard(&mut self, now: Millis) {
        match self.feed {
            Feed::Opening(_) => {
                self.feed_pause = RETRY_PAUSE.0;
                if let Some(at) = self.ask_at.as_mut() {
                    *at = now + SAFETY.max(self.options.poll_interval);
                }
            }
            Feed::Live(_) => {}
            // Hung up: what still comes is of yesterday.
            Feed::Closed(_) | Feed::None => return,
        }
        self.feed = Feed::Live(now + SILENCE);
    }

    fn event(&mut self, now: Millis, entry: Entry) {
        if !matches!(self.feed, Feed::Live(_)) {
            return;
        }
        if self.board.as_mut().is_some_and(|board| board.apply(&entry)) {
            self.tally_changed(now);
        }
        if matches!(entry.name.as_str(), "job_complete" | "summary") {
            self.ended = true;
            self.hurry(now);
        }
        if entry.id.is_some() {
            self.last_event = entry.id;
        }
    }

    fn feed_ended(&mut self, now: Millis, refused: bool) {
        self.feed = match self.feed {
            Feed::Closed(_) | Feed::None => return,
            _ if refused => {
                self.resume_polling(now);
                Feed::None
            }
            Feed::Opening(_) => {
                let from = now + self.feed_pause;
                self.feed_pause = Millis(self.feed_pause.0.saturating_mul(2)).min(RETRY_PAUSE.1);
                Feed::Closed(from)
            }
            Feed::Live(_) => {
                self.hurry(now);
                Feed::Closed(now)
            }
        };
    }

    /// Asks at once, or again soon after the answer under way, which may be older than what is known.
    fn hurry(&mut self, now: Millis) {
        self.pause = Millis(FIRST_PAUSE.0 / 2);
        // After a failure the pause holds: a server that restarts is not to be hammered.
        if self.ask_at.is_some() && self.failing_since.is_none() {
            self.ask_at = Some(now);
        }
    }

    /// Back to the pace of a wait without a feed.
    fn resume_polling(&mut self, now: Millis) {
        if let Some(at) = self.ask_at.as_mut() {
            *at = (*at).min(now + self.pause);
        }
    }

    /// When the line of the board is to be shown: while the feed speaks, nobody asks at that moment.
    fn line_due(&self) -> Option<Millis> {
        let live = matches!(self.feed, Feed::Live(_));
        let line = self.line().filter(|_| live)?;
        (line != self.shown).then_some(self.quiet_until)
    }

    fn show_line(&mut self, now: Millis) {
        if let Some(line) = self.line().filter(|line| *line != self.shown) {
            self.outputs.push_back(Output::Line(line.clone()));
            self.shown = line;
            self.quiet_until = now + self.options.poll_interval;
        }
    }

    /// What there is to show. When the feed has told of every node's end, that of the job is about to follow: saying that
    /// none is in progress would depend on which of two packets it comes in.
    fn line(&self) -> Option<String> {
        let tally = self.board.as_ref().filter(|_| !self.options.tallies)?.tally();
        let ending = tally.in_progress() == 0 && matches!(self.feed, Feed::Live(_));
        (!ending).then(|| tally.state_line())
    }

    fn tally_changed(&mut self, now: Millis) {
        if self.options.tallies {
            let soonest = self.last_tally.map_or(now, |last| (last + TALLY_PAUSE).max(now));
            self.tally_at = Some(self.tally_at.map_or(soonest, |at| at.min(soonest)));
        }
    }

    fn show_tally(&mut self, now: Millis) {
        let Some(board) = &self.board else { return };
        let elapsed = self.age + (now - self.begun);
        let mut tally = board.tally();
        tally.elapsed = elapsed;
        self.outputs.push_back(Output::Tally(tally));
        self.last_tally = Some(now);
        self.tally_at = Some(now + Millis(TALLY_TICK.0 - elapsed.0 % TALLY_TICK.0));
    }

    fn end(&mut self, last: Output) {
        self.over = true;
        self.ask_at = None;
        if matches!(self.feed, Feed::Opening(_) | Feed::Live(_)) {
            self.outputs.push_back(Output::HangUp);
        }
        self.outputs.push_back(last);
    }
}

/// How old a job is by the wall clock; one from the future, by a clock that is off, is new.
fn age(job: &JobView, now: Wall) -> Millis {
    let created = job.document().get("created_at").and_then(serde_json::Value::as_str);
    let micros = created.and_then(Wall::parse_http_date).map_or(0, |at| now.0.saturating_sub(at.0).max(0));
    Millis(micros.unsigned_abs() / 1000)
}
