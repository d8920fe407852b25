//! Output of several nodes in one place: whole lines, each under the name of its node.

use std::collections::HashMap;

/// A line longer than this is shown in pieces.
const MAX_LINE: usize = 64 << 10;

/// Puts `NAME | ` before each line. A line that has no end yet waits for it, so that lines of two nodes never mix.
/// Bytes are passed on as they are.
#[derive(Debug, Default)]
pub struct Labels {
    width: usize,
    /// The beginning of a line, by node and channel.
    begun: HashMap<(String, bool), Vec<u8>>,
}

impl Labels {
    /// Labels as wide as the longest of these names, so that lines stand below each other.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Labels {
        let width = names.into_iter().map(|name| name.chars().count()).max().unwrap_or(0);
        Labels { width, begun: HashMap::new() }
    }

    /// The lines that these bytes complete.
    pub fn push(&mut self, node: &str, stderr: bool, bytes: &[u8]) -> Vec<u8> {
        let width = self.width;
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 64);
        let begun = self.begun.entry((node.to_owned(), stderr)).or_default();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            let whole = piece.ends_with(b"\n");
            if whole || begun.len() > MAX_LINE {
                label(&mut lines, node, width, begun);
                if !whole {
                    lines.push(b'\n');
                }
                begun.clear();
            }
        }
        lines
    }

    /// The node's output has ended: what is left of its last lines, standard output first.
    pub fn finish(&mut self, node: &str) -> [Vec<u8>; 2] {
        [false, true].map(|stderr| {
            let mut line = Vec::new();
            let rest = self.begun.remove(&(node.to_owned(), stderr)).filter(|rest| !rest.is_empty());
            if let Some(rest) = rest {
                label(&mut line, node, self.width, &rest);
                line.push(b'\n');
            }
            line
        })
    }
}

fn label(into: &mut Vec<u8>, node: &str, width: usize, line: &[u8]) {
    into.extend_from_slice(node.as_bytes());
    into.extend(std::iter::repeat_n(b' ', width.saturating_sub(node.chars().count())));
    into.extend_from_slice(b" | ");
    into.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_whole_and_named() {
        let mut labels = Labels::new(["web-1", "db"]);
        let mut shown = Vec::new();
        for (node, stderr, bytes) in [
            ("web-1", false, &b"one\ntw"[..]),
            ("db", false, b"\xff\0\n"),
            ("web-1", true, b"oops\n"),
            ("web-1", false, b"o\n\n"),
            ("db", true, b"no end"),
        ] {
            shown.extend(labels.push(node, stderr, bytes));
        }
        for node in ["web-1", "db"] {
            shown.extend(labels.finish(node).concat());
        }
        let expected = b"web-1 | one\ndb    | \xff\0\nweb-1 | oops\nweb-1 | two\nweb-1 | \ndb    | no end\n";
        assert_eq!(String::from_utf8_lossy(&shown), String::from_utf8_lossy(expected));
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut labels = Labels::default();
        let mut shown = 0;
        for _ in 0..100 {
            shown += labels.push("n", false, &[b'x'; 8192]).len();
        }
        assert!(shown > 700_000, "{shown}");
    }
}
