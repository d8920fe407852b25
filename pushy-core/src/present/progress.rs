//! One line that says where a job stands, for a terminal where it is rewritten in place.

use super::Screen;
use crate::job::{JobStatus, NodeStatus};
use crate::time::Millis;
use crate::watch::Tally;

/// The order in which counts are named; what does not fit is left out from the end.
const ORDER: [NodeStatus; 12] = [
    NodeStatus::Succeeded,
    NodeStatus::Failed,
    NodeStatus::TimedOut,
    NodeStatus::Crashed,
    NodeStatus::Aborted,
    NodeStatus::Unavailable,
    NodeStatus::Nacked,
    NodeStatus::Faulty,
    NodeStatus::WasReady,
    NodeStatus::Running,
    NodeStatus::Ready,
    NodeStatus::New,
];
/// The widest bar, and the narrowest that says more than the numbers do, in columns.
const BAR: (usize, usize) = (40, 16);
/// Columns when nobody says how many there are.
const COLUMNS: usize = 80;

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";

/// The line, shorter than the screen is wide, without an end of line.
pub fn progress_line(tally: &Tally, screen: Screen) -> String {
    // The last column stays free: some terminals begin a new line when it is written. So do two for a ^C that they show.
    let room = screen.columns.unwrap_or(COLUMNS).saturating_sub(3);
    let done = tally.total() - tally.in_progress();
    let head = [
        format!("{} {}  {done}/{} done", word(tally.status), clock(tally.elapsed), tally.total()),
        format!("{} {}  {done}/{}", word(tally.status), clock(tally.elapsed), tally.total()),
        format!("{done}/{}", tally.total()),
    ];
    let Some(head) = head.into_iter().find(|head| head.len() <= room) else { return String::new() };
    let mut left = room - head.len();

    let mut counts = String::new();
    for status in ORDER {
        let count = tally.count(status);
        if count == 0 {
            continue;
        }
        let text = format!("{count} {status}");
        let between = if counts.is_empty() { "  " } else { ", " };
        if between.len() + text.len() > left {
            break;
        }
        left -= between.len() + text.len();
        counts.push_str(between);
        counts.push_str(&paint(&text, colour_of(status), screen.colour));
    }
    let bar = left.checked_sub(2).filter(|left| *left >= BAR.1).map(|left| left.min(BAR.0));
    let bar = bar.map(|width| format!("  {}", bar_of(tally, width, screen.colour))).unwrap_or_default();
    format!("{head}{bar}{counts}")
}

fn word(status: JobStatus) -> &'static str {
    match status {
        JobStatus::New => "Initialized",
        JobStatus::Voting => "Voting",
        JobStatus::Running => "Running",
        JobStatus::Complete => "Complete",
        JobStatus::QuorumFailed => "Quorum failed",
        JobStatus::Aborted => "Aborted",
        JobStatus::TimedOut => "Timed out",
        JobStatus::Crashed => "Crashed",
    }
}

/// `0:07`, `12:34`, `1:02:03`.
fn clock(elapsed: Millis) -> String {
    let seconds = elapsed.0 / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn colour_of(status: NodeStatus) -> &'static str {
    match status {
        NodeStatus::Succeeded => GREEN,
        status if status.is_terminal() => RED,
        _ => YELLOW,
    }
}

/// `#` for what succeeded, `x` for what ended otherwise, `-` for what is under way.
fn bar_of(tally: &Tally, width: usize, colour: bool) -> String {
    let inner = width - 2;
    let total = tally.total().max(1);
    let good = tally.count(NodeStatus::Succeeded);
    let bad = tally.total() - tally.in_progress() - good;
    // One that failed among thousands is seen, and the bar is full when everything is.
    let bad = if bad == 0 { 0 } else { (bad * inner / total).max(1) };
    let good = (good * inner / total).min(inner - bad);
    let rest = if tally.in_progress() == 0 { 0 } else { inner - good - bad };
    let good = inner - bad - rest;
    format!(
        "[{}{}{}]",
        paint(&"#".repeat(good), GREEN, colour && good > 0),
        paint(&"x".repeat(bad), RED, colour && bad > 0),
        "-".repeat(rest)
    )
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}
