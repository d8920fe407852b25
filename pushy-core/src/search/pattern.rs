//! Words and phrases of a query, compared with values by Chef's rule of word boundaries.

/// One step of a pattern. Literal text is folded as values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// This text.
    Text(String),
    /// `?`: one character of a word.
    One,
    /// `*`: any number of characters of a word.
    Any,
    /// Between the words of a phrase: at least one character that words do not have.
    Gap,
}

/// A sequence of steps that must lie between word boundaries. Empty: an empty phrase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) Vec<Step>);

/// Characters that words consist of; every other character is a boundary.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'.' | b'_' | b'\'' | b':' | b'-')
}

/// A character without its case. Only where that leaves its length alone, so that folded text has the same offsets.
pub(super) fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) if one.len_utf8() == c.len_utf8() => one,
        _ => c,
    }
}

/// Text without case.
pub(super) fn fold_text(text: &str) -> String {
    text.chars().map(fold).collect()
}

/// Room for the places in a value that a pattern has reached, kept from value to value.
#[derive(Debug, Default)]
pub(super) struct Places {
    now: Vec<usize>,
    next: Vec<usize>,
}

impl Pattern {
    /// Adds one character of literal text.
    pub(super) fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Step::Text(text)) => text.push(fold(c)),
            _ => self.0.push(Step::Text(fold(c).to_string())),
        }
    }

    /// Whether it is a lone `*`, which fits any value.
    pub(super) fn is_any(&self) -> bool {
        self.0 == [Step::Any]
    }

    /// Whether a folded value has it between word boundaries.
    pub(super) fn matches(&self, value: &str, places: &mut Places) -> bool {
        match self.0.as_slice() {
            [Step::Any] => true,
            [Step::Text(text)] => has_word(value, text),
            steps => self.may_match(value) && walk(steps, value, places),
        }
    }

    /// Whether a text has every piece of it: a quick no for most values.
    pub(super) fn may_match(&self, text: &str) -> bool {
        self.0.iter().all(|step| match step {
            Step::Text(piece) => text.contains(piece.as_str()),
            Step::One | Step::Any | Step::Gap => true,
        })
    }
}

fn starts(value: &str, at: usize) -> bool {
    at == 0 || value.is_char_boundary(at) && !is_word(value.as_bytes()[at - 1])
}

fn ends(value: &str, at: usize) -> bool {
    value.as_bytes().get(at).is_none_or(|byte| !is_word(*byte))
}

fn has_word(value: &str, text: &str) -> bool {
    let mut from = 0;
    while let Some(found) = value.get(from..).and_then(|rest| rest.find(text)) {
        let at = from + found;
        if starts(value, at) && ends(value, at + text.len()) {
            return true;
        }
        // On to the next character: the text may begin again inside what was found.
        from = at + value[at..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// All places where the steps so far can end, step by step: time in proportion to steps times length, whatever the
/// pattern.
fn walk(steps: &[Step], value: &str, places: &mut Places) -> bool {
    let bytes = value.as_bytes();
    let Places { now, next } = places;
    now.clear();
    now.extend((0..=bytes.len()).filter(|at| starts(value, *at)));
    for step in steps {
        next.clear();
        for &at in &*now {
            match step {
                Step::Text(text) => {
                    if bytes[at..].starts_with(text.as_bytes()) {
                        next.push(at + text.len());
                    }
                }
                Step::One => {
                    if bytes.get(at).copied().is_some_and(is_word) {
                        next.push(at + 1);
                    }
                }
                Step::Any => run(bytes, at, true, next),
                Step::Gap => run(bytes, at, false, next),
            }
        }
        if *step == Step::Gap {
            next.retain(|at| value.is_char_boundary(*at));
        }
        std::mem::swap(now, next);
        if now.is_empty() {
            return false;
        }
    }
    now.iter().any(|at| ends(value, *at))
}

/// The places that a run of word characters (none is enough) or of others (at least one) leads to from `at`. Places
/// come in rising order, so what an earlier run has reached is not walked again.
fn run(bytes: &[u8], at: usize, word: bool, reached: &mut Vec<usize>) {
    if reached.last().is_some_and(|last| *last >= at) {
        return;
    }
    let mut at = at;
    if word {
        reached.push(at);
    }
    while bytes.get(at).is_some_and(|byte| is_word(*byte) == word) {
        at += 1;
        reached.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        let mut pattern = Pattern::default();
        for c in text.chars() {
            match c {
                '*' => pattern.0.push(Step::Any),
                '?' => pattern.0.push(Step::One),
                ' ' => pattern.0.push(Step::Gap),
                c => pattern.push(c),
            }
        }
        pattern
    }

    #[test]
    fn words_and_boundaries() {
        let check = |text: &str, value: &str, expected: bool| {
            assert_eq!(
                pattern(text).matches(&fold_text(value), &mut Places::default()),
                expected,
                "{text:?} in {value:?}"
            );
        };
        check("web", "web", true);
        check("WEB", "web, db", true);
        check("web", "web01", false);
        check("web", "my-web", false);
        check("web", "[\"web\", \"db\"]", true);
        check("web", "xweb web", true);
        check("web", "/web/", true);
        check("*web*", "my-web01 x", true);
        check("web*", "my-web", false);
        check("w?b", "wab", true);
        check("w?b", "w/b", false);
        check("w*b", "w b", false);
        check("*", "", true);
        check("*", "é", true);
        check("?", "", false);
        check("a b", "a, b", true);
        check("a b", "ab", false);
        check("a b", "a-b", false);
        check("a b", "a é b", true);
        check("", "", true);
        check("", "a", false);
        check("", "a b", false);
        check("", "a  b", true);
        check("", "aéb", false);
        check("", "b ", true);
        check("ÉCOLE", "une école", true);
        check("*a*a*a*a*a*a*a*a*x", &"a".repeat(300), false);
        check("aa", "aaa aa", true);
        check("/b", "a/b", false);
        check("a/b", "x a/b", true);
    }
}
