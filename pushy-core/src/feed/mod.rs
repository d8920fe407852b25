//! Event feeds as bytes (8.1): what the server writes, once for all who listen, and what a client reads.

use std::fmt;
use std::sync::Arc;

use crate::event::Event;
use crate::ids::JobId;
use crate::job::Job;
use crate::reason::Reason;
use crate::time::{Millis, Wall};

mod reader;

pub use reader::{Entry, MAX_ENTRY, Reader};

/// A silent feed says [`KEEP_ALIVE`] after this (9.2, `keep_alive_time`).
pub const KEEP_ALIVE_TIME: Millis = Millis(15_000);
/// What a silent feed says: a comment, without a blank line (8.1).
pub const KEEP_ALIVE: &[u8] = b":keepalive\n";
/// An organization's feed remembers this long (9.2, `org_feed_expiration`).
pub const RETENTION: Millis = Millis(60_000);

/// The stamp is always the first member and always as long as this one (8.3, 8.4).
const HEAD: &str = "{\"timestamp\":\"";
const STAMP: usize = "2014-07-30 00:26:48.419302Z".len();

/// How a member `reason` begins. It is always the last one, and no JSON string holds these bytes.
const REASON: &[u8] = b",\"reason\":{\"code\":\"";

/// One event of a feed as it is sent, with the blank line that ends it (D-30). Written once and shared.
///
/// What has a reason has it for those who ask for details only (decision 20): for everybody else it is left out.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    plain: Arc<[u8]>,
    /// With the reason, where there is one.
    detail: Option<Arc<[u8]>>,
}

impl Frame {
    fn new(name: &str, id: fmt::Arguments<'_>, data: &str) -> Frame {
        Frame::of_bytes(format!("event: {name}\nid: {id}\ndata: {data}\n\n").as_bytes())
    }

    fn of_bytes(bytes: &[u8]) -> Frame {
        match bytes.windows(REASON.len()).position(|window| window == REASON) {
            None => Frame { plain: bytes.into(), detail: None },
            Some(at) => Frame { plain: [&bytes[..at], b"}\n\n"].concat().into(), detail: Some(bytes.into()) },
        }
    }

    /// The entry number `number`, from 1, of a job's feed. `job` is asked for by [`Event::Start`] alone.
    pub fn of_job(event: &Event, number: u64, at: Wall, job: Option<&Job>) -> Frame {
        Frame::new(event.name(), format_args!("job-{number}"), &event.data(at, job, None))
    }

    /// The same for something that happened to a node, with why.
    pub fn because(event: &Event, number: u64, at: Wall, reason: Option<&Reason>) -> Frame {
        Frame::new(event.name(), format_args!("job-{number}"), &event.data(at, None, reason))
    }

    /// What the feed of a job says that is over and gone: the job's document without its file (8.3).
    pub fn summary(job: &Job, at: Wall) -> Frame {
        let document = job.to_json(false);
        let rest = document.strip_prefix('{').unwrap_or_default();
        let comma = if rest == "}" { "" } else { "," };
        let data = format!("{HEAD}{}\"{comma}{rest}", at.feed_timestamp());
        Frame::new("summary", format_args!("job-1"), &data)
    }

    /// What an organization's feed says before everything it remembers.
    pub fn start_of_history(at: Wall) -> Frame {
        Frame::new(
            "start_of_history",
            format_args!("start_id"),
            &format!("{HEAD}{}\"}}", at.feed_timestamp()),
        )
    }

    /// The same event in an organization's feed: it names the job (8.2).
    pub fn of_organization(&self, number: u64, job: &JobId, at: Wall) -> Frame {
        let data = Frame::data_of(self.detailed());
        let rest = data.get(HEAD.len() + STAMP..).and_then(|rest| rest.strip_prefix('"')).unwrap_or("}");
        let data = format!("{HEAD}{}\",\"job\":\"{job}\"{rest}", at.feed_timestamp());
        Frame::new(self.name(), format_args!("org-{number}"), &data)
    }

    /// Takes apart what several frames, each as [`Frame::detailed`], make one after the other.
    pub fn split(bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        // No line of a frame is empty but its last: JSON on one line has no line ends.
        while let Some(at) = rest.windows(2).position(|two| two == b"\n\n") {
            let (frame, after) = rest.split_at(at + 2);
            frames.push(Frame::of_bytes(frame));
            rest = after;
        }
        frames
    }

    fn line<'a>(bytes: &'a [u8], number: usize, prefix: &str) -> &'a str {
        let line = bytes.split(|byte| *byte == b'\n').nth(number).unwrap_or_default();
        std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(prefix)).unwrap_or_default()
    }

    /// The event's name.
    pub fn name(&self) -> &str {
        Frame::line(&self.plain, 0, "event: ")
    }

    /// The event's id, unique within its feed.
    pub fn id(&self) -> &str {
        Frame::line(&self.plain, 1, "id: ")
    }

    /// The event's JSON object, without a reason.
    pub fn data(&self) -> &str {
        Frame::data_of(&self.plain)
    }

    fn data_of(bytes: &[u8]) -> &str {
        Frame::line(bytes, 2, "data: ")
    }

    /// When it happened.
    pub fn at(&self) -> Option<Wall> {
        Wall::parse_feed_timestamp(self.data().get(HEAD.len()..HEAD.len() + STAMP)?)
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.plain
    }

    /// The bytes for who asks for details, and for the store: with the reason, where there is one.
    pub fn detailed(&self) -> &[u8] {
        self.detail.as_deref().unwrap_or(&self.plain)
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.plain
    }
}

impl fmt::Debug for Frame {
    /// Name and id only: options of a job are secrets (decision 43).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} {})", self.name(), self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let job = JobId::new("4be1d6f0a9c30123456789abcdef0123").unwrap();
        let check = |frame: &Frame, expected: &str| {
            assert_eq!(std::str::from_utf8(frame.as_bytes()), Ok(expected));
        };
        let at = Wall(1_741_083_317_901_120);
        let succeeded = Frame::of_job(&Event::QuorumSucceeded, 5, at, None);
        let stamp = r#"{"timestamp":"2025-03-04 10:15:17.901120Z""#;
        check(&succeeded, &format!("event: quorum_succeeded\nid: job-5\ndata: {stamp}}}\n\n"));
        assert_eq!(succeeded.at(), Some(at));
        let done = Event::JobComplete { status: crate::job::JobStatus::Complete };
        let done = Frame::of_job(&done, 8, at, None);
        let later = Wall(at.0 + 1);
        check(
            &done.of_organization(18, &job, later),
            &format!(
                "event: job_complete\nid: org-18\ndata: {},\"job\":\"{job}\",\"status\":\"complete\"}}\n\n",
                stamp.replace("120Z", "121Z")
            ),
        );
        check(
            &Frame::start_of_history(at),
            &format!("event: start_of_history\nid: start_id\ndata: {stamp}}}\n\n"),
        );
        let node = crate::ids::NodeName::new("a,\"reason\":{\"code\":\"x").unwrap();
        let vote = Event::QuorumVote { node, vote: crate::event::Vote::Failure };
        let why = Reason::new(crate::reason::ReasonCode::Busy, "busy with job 1");
        let nacked = Frame::because(&vote, 4, at, Some(&why));
        check(&nacked, std::str::from_utf8(Frame::of_job(&vote, 4, at, None).as_bytes()).unwrap());
        let reason = r#""status":"failure","reason":{"code":"busy","text":"busy with job 1"}}"#;
        let detailed = |frame: &Frame| String::from_utf8(frame.detailed().to_vec()).unwrap();
        assert!(detailed(&nacked).ends_with(&format!("{reason}\n\n")), "{}", detailed(&nacked));
        assert!(detailed(&nacked.of_organization(9, &job, later)).ends_with(&format!("{reason}\n\n")));
        assert_eq!(succeeded.detailed(), succeeded.as_bytes());
        let all = [succeeded.detailed(), nacked.detailed(), done.detailed(), b"event: cut"].concat();
        assert_eq!(Frame::split(&all), [succeeded, nacked, done]);
    }
}
