//! [`crate::watch::Watch`] driven over HTTP.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;

use super::stream::Stream;
use super::{Client, Try};
use crate::api::{self, JobView};
use crate::error::{Error, ErrorCode};
use crate::feed::Reader;
use crate::ids::JobId;
use crate::time::{Millis, Now};
use crate::watch::{Input, Output, Tally, Watch, WatchOptions};

/// What a wait tells.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// Where the job stands, for a line that is rewritten in place; only when [`WatchOptions::tallies`] asks for them.
    Tally(Tally),
    /// A new state, for a line on standard output.
    Line(String),
    /// Something else worth knowing, for standard error.
    Notice(String),
    /// The job has ended. Nothing comes after.
    Finished(JobView),
    /// The wait was given up, the job goes on. Nothing comes after.
    GivenUp(Error),
}

type Question = Pin<Box<dyn Future<Output = Try<JobView>> + Send>>;

/// The job's feed.
enum Feed {
    Opening(Pin<Box<dyn Future<Output = Try<Stream>> + Send>>),
    Open(Box<(Stream, Reader)>),
}

/// What came of the feed.
enum News {
    Opened(Try<Stream>),
    Came(Try<Option<Bytes>>),
}

/// One wait for one job. Call [`JobWait::next`] until it says [`Progress::Finished`] or [`Progress::GivenUp`].
pub struct JobWait {
    client: Client,
    id: JobId,
    watch: Watch,
    start: Instant,
    /// The question under way; kept here so that a `next` that is dropped loses nothing.
    question: Option<Question>,
    feed: Option<Feed>,
}

impl std::fmt::Debug for JobWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobWait").field("id", &self.id).finish_non_exhaustive()
    }
}

impl JobWait {
    pub(super) fn new(client: Client, id: JobId, options: WatchOptions) -> JobWait {
        let watch = Watch::new(Now::default(), options);
        JobWait { client, id, watch, start: instant(), question: None, feed: None }
    }

    /// Which job.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// The next thing to tell. Cancel-safe: dropping the future and calling again goes on where it was. After the end:
    /// [`ErrorCode::InvalidState`].
    pub async fn next(&mut self) -> Progress {
        loop {
            match self.watch.poll_output() {
                Some(Output::Ask) => {
                    let (client, id) = (self.client.clone(), self.id.clone());
                    self.question = Some(Box::pin(async move { client.ask_once(&id).await }));
                }
                Some(Output::Listen(after)) => {
                    let client = self.client.clone();
                    let request = api::job_feed(&self.id, after.as_deref());
                    let opening = async move { client.open_stream(&request).await };
                    self.feed = Some(Feed::Opening(Box::pin(opening)));
                }
                Some(Output::HangUp) => self.feed = None,
                Some(Output::Tally(tally)) => return Progress::Tally(tally),
                Some(Output::Line(line)) => return Progress::Line(line),
                Some(Output::Notice(text)) => return Progress::Notice(text),
                Some(Output::Finished(job)) => return Progress::Finished(job),
                Some(Output::GivenUp(error)) => return Progress::GivenUp(error),
                None => {
                    if !self.wait().await {
                        return Progress::GivenUp(Error::new(ErrorCode::InvalidState, "the wait is over"));
                    }
                }
            }
        }
    }

    /// Waits for whatever is first, and tells the machine; `false` when nothing can come any more.
    async fn wait(&mut self) -> bool {
        let deadline = self.watch.next_deadline();
        if self.question.is_none() && self.feed.is_none() && deadline.is_none() {
            return false;
        }
        let deadline = deadline.map(|at| self.start + Duration::from_millis(at.0));
        tokio::select! {
            biased;
            answer = answer(&mut self.question) => {
                self.question = None;
                self.tell(match answer {
                    Ok(job) => Input::Answer(job),
                    Err(failure) => Input::Failed { error: failure.error, transient: failure.transient },
                });
            }
            news = news(&mut self.feed) => self.listen(news),
            () = until(deadline) => self.tell(Input::Tick),
        }
        true
    }

    fn tell(&mut self, input: Input) {
        let mono = u64::try_from(instant().duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        self.watch.handle(Now { mono: Millis(mono), wall: super::now() }, input);
    }

    fn listen(&mut self, news: News) {
        match news {
            News::Opened(Ok(stream)) if is_feed(&stream) => {
                self.feed = Some(Feed::Open(Box::new((stream, Reader::default()))));
            }
            News::Opened(Ok(stream)) => {
                self.feed = None;
                // What may be different the next time is no word about feeds.
                self.tell(Input::FeedEnded {
                    refused: !super::is_passing(stream.status) || stream.status == 501,
                });
            }
            News::Opened(Err(failure)) => {
                self.feed = None;
                self.tell(Input::FeedEnded { refused: !failure.transient });
            }
            News::Came(Ok(Some(bytes))) => {
                self.tell(Input::Heard);
                let Some(Feed::Open(open)) = &mut self.feed else { return };
                let reader = &mut open.1;
                let readable = reader.push(&bytes).is_ok();
                let events: Vec<_> = std::iter::from_fn(|| reader.next_entry()).collect();
                for event in events {
                    self.tell(Input::Event(event));
                }
                if !readable {
                    self.feed = None;
                    self.tell(Input::FeedEnded { refused: true });
                }
            }
            News::Came(Ok(None)) => {
                let Some(Feed::Open(mut open)) = self.feed.take() else { return };
                // The original does not end its last event (D-30).
                if let Ok(Some(event)) = open.1.finish() {
                    self.tell(Input::Event(event));
                }
                self.tell(Input::FeedEnded { refused: false });
            }
            News::Came(Err(_)) => {
                self.feed = None;
                self.tell(Input::FeedEnded { refused: false });
            }
        }
    }
}

/// A 200 that says what it is: a page of some proxy is no feed.
fn is_feed(stream: &Stream) -> bool {
    let kind = stream.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    stream.status == 200 && kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}

async fn answer(question: &mut Option<Question>) -> Try<JobView> {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

async fn news(feed: &mut Option<Feed>) -> News {
    match feed {
        Some(Feed::Opening(opening)) => News::Opened(opening.await),
        Some(Feed::Open(open)) => News::Came(open.0.next().await),
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the client is the part of the core that does I/O")]
    Instant::now()
}
