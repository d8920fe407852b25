//! What a listener of a feed is sent: the body of an HTTP answer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body::Frame;
use pushy_core::feed::KEEP_ALIVE;
use tokio::time::{Instant, Sleep};

use super::log::{Log, Taken};

/// So many events are taken at once. They are shared: what a listener adds to the memory is their addresses.
const QUEUE: usize = 32;

/// The listener stood still until what it wanted next was forgotten. Its connection ends; it can resume.
#[derive(Debug)]
pub struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the listener is slower than the feed forgets")
    }
}

impl std::error::Error for Lost {}

/// See the module. Dropping it ends the subscription.
#[derive(Debug)]
pub struct FeedBody {
    log: Arc<Log>,
    place: usize,
    /// The position of the next event.
    next: u64,
    queue: VecDeque<Bytes>,
    detail: bool,
    keep_alive: Pin<Box<Sleep>>,
    period: Duration,
}

impl FeedBody {
    /// Sends `before` and then everything of the log from a position on.
    pub(super) fn new(log: Arc<Log>, next: u64, before: Option<Bytes>, period: Duration) -> FeedBody {
        let place = log.join();
        let queue = before.into_iter().collect();
        let keep_alive = Box::pin(tokio::time::sleep(period));
        FeedBody { log, place, next, queue, detail: false, keep_alive, period }
    }

    /// With members that the original does not have (decision 20).
    #[must_use]
    pub fn with_detail(self, detail: bool) -> FeedBody {
        let mut this = self;
        this.detail = detail;
        this
    }

    fn silence_begins(&mut self) {
        self.keep_alive.as_mut().reset(Instant::now() + self.period);
    }
}

impl HttpBody for FeedBody {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let this = self.get_mut();
        if this.queue.is_empty() {
            let how = (QUEUE, this.detail);
            match this.log.take(this.place, this.next, how, &mut this.queue, cx.waker()) {
                Taken::Some => this.next += this.queue.len() as u64,
                Taken::Nothing => {
                    std::task::ready!(this.keep_alive.as_mut().poll(cx));
                    this.silence_begins();
                    // Registers the timer: nobody polls again before there is an event or silence.
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(KEEP_ALIVE)))));
                }
                Taken::Over => return Poll::Ready(None),
                Taken::Lost => return Poll::Ready(Some(Err(Lost))),
            }
        }
        let event = this.queue.pop_front();
        if this.queue.is_empty() {
            this.silence_begins();
        }
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

impl Drop for FeedBody {
    fn drop(&mut self) {
        self.log.leave(self.place);
    }
}
