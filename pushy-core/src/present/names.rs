//! Many names in little room: numbered ones as ranges, the others side by side.

use std::collections::BTreeMap;

/// Lines of at most `width` columns, where that can be, with all of the names: `web-[001-120,122].example.com`.
pub(super) fn folded(names: &[&str], width: usize) -> Vec<String> {
    let mut series: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for name in names {
        let (before, digits, after) = split(name);
        series.entry((before, after)).or_default().push(digits);
    }
    let mut words = Vec::new();
    for ((before, after), digits) in series {
        // Numbers filled up with zeros are one series only among their likes.
        let filled = digits.iter().any(|d| d.len() > 1 && d.starts_with('0'));
        let mut by_length: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for text in digits {
            match text.parse() {
                Ok(number) => by_length.entry(if filled { text.len() } else { 0 }).or_default().push(number),
                Err(_) => words.push(format!("{before}{text}{after}")),
            }
        }
        for (length, mut numbers) in by_length {
            numbers.sort_unstable();
            numbers.dedup();
            words.extend(ranges(before, after, length, &numbers, width));
        }
    }
    side_by_side(&words, width)
}

/// A name around its last number of at most 18 digits.
fn split(name: &str) -> (&str, &str, &str) {
    let end = name.rfind(|c: char| c.is_ascii_digit()).map_or(0, |at| at + 1);
    let (head, after) = name.split_at(end);
    let begin = head
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + head.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8));
    let begin = begin.max(end.saturating_sub(18));
    let (before, digits) = head.split_at(begin);
    (before, digits, after)
}

/// The series in as many words as it takes to keep each within the width.
fn ranges(before: &str, after: &str, length: usize, numbers: &[u64], width: usize) -> Vec<String> {
    let show = |number: u64| format!("{number:0length$}");
    if let [number] = numbers {
        return vec![format!("{before}{}{after}", show(*number))];
    }
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let room = width.saturating_sub(before.len() + after.len() + 2);
    let mut words = Vec::new();
    let mut inside = String::new();
    for (first, last) in runs {
        let run = match last - first {
            0 => show(first),
            1 => format!("{},{}", show(first), show(last)),
            _ => format!("{}-{}", show(first), show(last)),
        };
        if !inside.is_empty() && inside.len() + 1 + run.len() > room {
            words.push(std::mem::take(&mut inside));
        }
        if !inside.is_empty() {
            inside.push(',');
        }
        inside.push_str(&run);
    }
    words.push(inside);
    let single = |inside: &str| inside.bytes().all(|b| b.is_ascii_digit());
    words
        .into_iter()
        .map(|inside| match single(&inside) {
            true => format!("{before}{inside}{after}"),
            false => format!("{before}[{inside}]{after}"),
        })
        .collect()
}

/// As many words in a line as there is room for, each in its column.
fn side_by_side(words: &[String], width: usize) -> Vec<String> {
    let widest = words.iter().map(|word| word.chars().count()).max().unwrap_or(0);
    let in_a_line = (width + 2) / (widest + 2);
    if in_a_line < 3 {
        return flowing(words, width);
    }
    words
        .chunks(in_a_line)
        .map(|line| {
            let line: String = line.iter().map(|word| format!("{word:<w$}", w = widest + 2)).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

/// Words of very different lengths: as many in a line as there is room for.
fn flowing(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + word.chars().count() <= width => {
                line.push_str("  ");
                line.push_str(word);
            }
            _ => lines.push(word.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold() {
        let check = |names: &[&str], width: usize, want: &[&str]| assert_eq!(folded(names, width), want);
        check(&[], 80, &[]);
        check(&["a", "b", "c"], 80, &["a  b  c"]);
        check(&["web-1", "web-2", "web-3", "web-5", "web-10"], 80, &["web-[1-3,5,10]"]);
        check(&["w08.x.org", "w09.x.org", "w10.x.org", "w7.x.org"], 80, &["w7.x.org        w[08-10].x.org"]);
        check(&["web-1", "web-2"], 80, &["web-[1,2]"]);
        check(&["db", "web-1", "web-3", "web-2"], 80, &["db         web-[1-3]"]);
        check(&["n1", "n3", "n5", "n7", "n9"], 8, &["n[1,3,5]", "n[7,9]"]);
        check(&["one", "a-very-long-name", "two"], 24, &["a-very-long-name  one", "two"]);
        check(&["n1", "n300", "n5000000"], 7, &["n1", "n300", "n5000000"]);
        check(&["ip-10-0-0-1", "ip-10-0-0-2", "ip-10-0-1-1"], 80, &["ip-10-0-0-[1,2]  ip-10-0-1-1"]);
        check(&["alpha", "beta", "gamma", "delta"], 14, &["alpha  beta", "delta  gamma"]);
        check(&["é1ü", "é2ü"], 80, &["é[1,2]ü"]);
        check(
            &["99999999999999999999", "99999999999999999998"],
            80,
            &["99[999999999999999998,999999999999999999]"],
        );
        check(&["x1", "x1"], 80, &["x1"]);
    }
}
