//! [`crate::watch::Watch`] driven over HTTP.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::{Client, Try};
use crate::api::JobView;
use crate::error::{Error, ErrorCode};
use crate::ids::JobId;
use crate::time::{Millis, Now};
use crate::watch::{Input, Output, Watch, WatchOptions};

/// What a wait tells.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// One more poll without anything new to say: a dot on a terminal.
    Dot,
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

/// One wait for one job. Call [`JobWait::next`] until it says [`Progress::Finished`] or [`Progress::GivenUp`].
pub struct JobWait {
    client: Client,
    id: JobId,
    watch: Watch,
    start: Instant,
    /// The question under way; kept here so that a `next` that is dropped loses nothing.
    question: Option<Question>,
}

impl std::fmt::Debug for JobWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobWait").field("id", &self.id).finish_non_exhaustive()
    }
}

impl JobWait {
    pub(super) fn new(client: Client, id: JobId, options: WatchOptions) -> JobWait {
        JobWait { client, id, watch: Watch::new(Now::default(), options), start: instant(), question: None }
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
                Some(Output::Dot) => return Progress::Dot,
                Some(Output::Line(line)) => return Progress::Line(line),
                Some(Output::Notice(text)) => return Progress::Notice(text),
                Some(Output::Finished(job)) => return Progress::Finished(job),
                Some(Output::GivenUp(error)) => return Progress::GivenUp(error),
                None => {
                    let Some(input) = self.input().await else {
                        return Progress::GivenUp(Error::new(ErrorCode::InvalidState, "the wait is over"));
                    };
                    let mono =
                        u64::try_from(instant().duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
                    self.watch.handle(Now { mono: Millis(mono), ..Now::default() }, input);
                }
            }
        }
    }

    async fn input(&mut self) -> Option<Input> {
        if let Some(question) = &mut self.question {
            let answer = question.await;
            self.question = None;
            return Some(match answer {
                Ok(job) => Input::Answer(job),
                Err(failure) => Input::Failed { error: failure.error, transient: failure.transient },
            });
        }
        let deadline = self.watch.next_deadline()?;
        tokio::time::sleep_until((self.start + Duration::from_millis(deadline.0)).into()).await;
        Some(Input::Tick)
    }
}

fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the client is the part of the core that does I/O")]
    Instant::now()
}
