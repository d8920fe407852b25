//! A command's output in bounded memory, and what of it fits into a message (D-45, D-48).
//!
//! Of a long output the beginning and the end are kept: the first says what was tried, the last what went wrong.

use std::borrow::Cow;
use std::collections::VecDeque;

/// Collects one channel of a process as it comes, never holding more than `limit` bytes.
#[derive(Debug)]
pub struct Collector {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_limit: usize,
    tail_limit: usize,
    total: u64,
}

impl Collector {
    /// A collector that keeps at most `limit` bytes, half of them from the end.
    pub fn new(limit: usize) -> Collector {
        let head_limit = limit.div_ceil(2);
        Collector {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_limit,
            tail_limit: limit - head_limit,
            total: 0,
        }
    }

    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let (first, rest) = bytes.split_at(bytes.len().min(self.head_limit - self.head.len()));
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.tail_limit)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    /// What was collected.
    pub fn finish(self) -> Captured {
        Captured { head: self.head, tail: self.tail.into(), total: self.total }
    }
}

/// One channel's output: all of it, or its beginning and its end.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured {
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Captured({} of {} bytes)", self.head.len() + self.tail.len(), self.total)
    }
}

impl Captured {
    /// An output that is this text.
    pub fn from_text(text: &str) -> Captured {
        Captured { head: text.as_bytes().to_vec(), tail: Vec::new(), total: text.len() as u64 }
    }

    /// How many bytes the command printed.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn missing(&self) -> u64 {
        self.total - (self.head.len() + self.tail.len()) as u64
    }

    /// Head and tail as text; joined when nothing is missing between them.
    fn texts(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        if self.missing() == 0 && !self.tail.is_empty() {
            let mut all = self.head.clone();
            all.extend_from_slice(&self.tail);
            (Cow::Owned(clean(&all).into_owned()), Cow::Borrowed(""))
        } else {
            (clean(&self.head), clean(&self.tail))
        }
    }
}

/// Valid UTF-8 without U+0000, which the original server cannot store (6.5).
fn clean(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text }
}

/// How many bytes a character takes in a JSON string.
fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

fn json_len_of(text: &str) -> usize {
    text.chars().map(json_len).sum()
}

/// Room that a marker may take inside a JSON string, whatever number it names.
const MARKER_ROOM: usize = 64;

/// Standard output and error as texts that together take at most `room` bytes inside JSON strings.
///
/// What does not fit is left out in the middle, and a line says how many bytes are missing. A channel that needs
/// less than half of the room leaves the rest to the other.
pub fn fit(stdout: &Captured, stderr: &Captured, room: usize) -> (String, String) {
    let (out, err) = (stdout.texts(), stderr.texts());
    let need = |captured: &Captured, (head, tail): &(Cow<'_, str>, Cow<'_, str>)| {
        let marker = if captured.missing() > 0 { MARKER_ROOM } else { 0 };
        json_len_of(head) + json_len_of(tail) + marker
    };
    let (need_out, need_err) = (need(stdout, &out), need(stderr, &err));
    let half = room / 2;
    let (room_out, room_err) = if need_out + need_err <= room {
        (need_out, need_err)
    } else if need_out <= half {
        (need_out, room - need_out)
    } else if need_err <= half {
        (room - need_err, need_err)
    } else {
        (half, room - half)
    };
    (fit_one(stdout, &out.0, &out.1, need_out, room_out), fit_one(stderr, &err.0, &err.1, need_err, room_err))
}

fn fit_one(captured: &Captured, head: &str, tail: &str, need: usize, room: usize) -> String {
    if need <= room {
        return if captured.missing() == 0 {
            format!("{head}{tail}")
        } else {
            format!("{head}{}{tail}", marker(captured.missing()))
        };
    }
    if room < MARKER_ROOM {
        return String::new();
    }
    let room = room - MARKER_ROOM;
    // A text that came in one piece is its own tail.
    let end = if tail.is_empty() { head } else { tail };
    let first = prefix(head, room.div_ceil(2));
    let last = suffix(end, room / 2);
    let missing = captured.total.saturating_sub((first.len() + last.len()) as u64);
    format!("{first}{}{last}", marker(missing))
}

fn marker(missing: u64) -> String {
    format!("\n[... {missing} bytes left out ...]\n")
}

fn prefix(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += json_len(c);
        if used > room {
            return &text[..at];
        }
    }
    text
}

fn suffix(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices().rev() {
        used += json_len(c);
        if used > room {
            return &text[at + c.len_utf8()..];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &[u8], limit: usize, chunk: usize) -> Captured {
        let mut collector = Collector::new(limit);
        for piece in bytes.chunks(chunk.max(1)) {
            collector.push(piece);
        }
        collector.finish()
    }

    #[test]
    fn short_output_is_kept_whole_whatever_the_pieces() {
        for chunk in [1, 2, 3, 100] {
            let out = captured("grüße\n".as_bytes(), 9, chunk);
            assert_eq!(fit(&out, &Captured::default(), 100), ("grüße\n".into(), String::new()), "{chunk}");
        }
    }

    #[test]
    fn long_output_keeps_both_ends_and_says_what_is_missing() {
        let bytes: Vec<u8> = (0..1000u32).flat_map(|i| format!("{i:04}").into_bytes()).collect();
        for chunk in [1, 7, 4000] {
            let out = captured(&bytes, 100, chunk);
            assert_eq!(out.total(), 4000);
            let (text, _) = fit(&out, &Captured::default(), 1000);
            assert!(text.starts_with("00000001"), "{text}");
            assert!(text.ends_with("09980999"), "{text}");
            assert!(text.contains("\n[... 3900 bytes left out ...]\n"), "{text}");
        }
    }

    #[test]
    fn what_is_sent_fits_its_room() {
        let nasty: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for limit in [0, 1, 10, 300, 6000] {
            for room in [0, 1, 63, 64, 65, 200, 999, 20_000] {
                let (a, b) = (captured(&nasty, limit, 11), captured(&nasty[..700], limit, 3));
                for (first, second) in [(&a, &b), (&b, &a), (&a, &Captured::default())] {
                    let (x, y) = fit(first, second, room);
                    let encoded = serde_json::to_string(&(&x, &y)).expect("strings always encode").len();
                    assert!(encoded <= room + r#"["",""]"#.len(), "limit {limit} room {room}: {encoded}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_text_becomes_replacement_characters() {
        let out = captured(b"ok\xff\xfe\0end", 100, 4);
        assert_eq!(fit(&out, &Captured::default(), 100).0, "ok\u{fffd}\u{fffd}\u{fffd}end");
    }

    #[test]
    fn the_smaller_channel_leaves_its_room_to_the_larger() {
        let out = captured(&[b'x'; 500], 1000, 100);
        let (text, err) = fit(&out, &Captured::from_text("short"), 300);
        assert_eq!(err, "short");
        assert!(text.len() > 250, "{}", text.len());
    }
}
