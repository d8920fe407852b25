//! Ruby's regular expressions in the dialect of `fancy-regex`.
//!
//! Every construct is either rewritten so that it means what Ruby's engine takes it to mean on UTF-8 text, or refused:
//! `\w \d \s \h` are ASCII, POSIX brackets and `\p{…}` Unicode, `^` and `$` work per line, `(?m)` is dot-all, an
//! option group reaches to the end of its group, plain groups do not capture beside named ones. What is written
//! uses none of the target's flags but `i`, so nothing of the target's own defaults leaks in.

use super::charclass;
use super::extent::Extent;
use crate::value::Regexp;

/// The deepest nesting of groups; the target stops at 64 levels of its own.
const MAX_DEPTH: usize = 40;

/// A Ruby pattern rewritten for the engine.
#[derive(Debug)]
pub(super) struct Translated {
    /// The engine's pattern.
    pub(super) text: String,
    /// Number of capture groups, without group 0.
    pub(super) groups: usize,
    /// Names of groups with their numbers; when not empty, every group has one.
    pub(super) names: Vec<(String, usize)>,
    /// Everything that matches one of several characters, with the groups it lies in: what a caller may choose.
    pub(super) choices: Vec<Choice>,
    /// Whether it begins with `^` or `\A` and ends with `$`, `\z` or `\Z`, with no alternative beside them.
    pub(super) line_anchored: bool,
    /// The same with `\A` and `\z` alone: nothing can stand around a match.
    pub(super) text_anchored: bool,
}

/// Part of a pattern that leaves the caller a choice of characters.
#[derive(Debug)]
pub(super) struct Choice {
    /// Pattern of the one character, for the engine.
    pub(super) one: String,
    /// Numbers of the groups around it.
    pub(super) groups: Vec<usize>,
}

/// Options in force at a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) ignore_case: bool,
    multi_line: bool,
    extended: bool,
}

/// An open group.
struct Frame {
    /// Options to go back to after it.
    outer: Options,
    /// Where it began in the output.
    start: usize,
    /// Its number, when it captures.
    capture: Option<usize>,
    /// Whether it only looks and takes nothing.
    look: bool,
    /// Opened by an isolated `(?i)`: closed with the group around it.
    implied: bool,
    /// How many groups there were before it.
    groups: usize,
    /// What was known of the group around it.
    outer_extent: Extent,
}

/// Rewrites `regexp`; with `whole`, so that it matches whole texts only.
///
/// # Errors
/// What cannot mean the same, in words that follow "cannot be used:".
pub(super) fn translate(regexp: &Regexp, whole: bool) -> Result<Translated, String> {
    // Whether plain groups capture depends on a named group anywhere, so a second pass may be needed.
    match Translator::new(regexp, whole, false).run() {
        Err(Stop::NamedGroup) => match Translator::new(regexp, whole, true).run() {
            Err(Stop::Refused(reason)) => Err(reason),
            Err(Stop::NamedGroup) => Err("its groups cannot be told apart".into()),
            Ok(done) => Ok(done),
        },
        Err(Stop::Refused(reason)) => Err(reason),
        Ok(done) => Ok(done),
    }
}

/// Why a pass ended early.
pub(super) enum Stop {
    /// There is a named group: plain ones do not capture.
    NamedGroup,
    /// The pattern cannot be used.
    Refused(String),
}

pub(super) fn refuse<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Refused(reason.into()))
}

struct Translator {
    source: Vec<char>,
    at: usize,
    out: String,
    whole: bool,
    named: bool,
    options: Options,
    frames: Vec<Frame>,
    /// Where in the output the thing begins that a quantifier would apply to.
    atom: Option<usize>,
    extent: Extent,
    groups: usize,
    closed: Vec<bool>,
    names: Vec<(String, usize)>,
    choices: Vec<Choice>,
    top_alternatives: bool,
    /// The anchors that the pattern begins and ends with, `^ A $ z Z`; the last with the output's length after it.
    first_anchor: Option<char>,
    last_anchor: Option<(char, usize)>,
}

impl Translator {
    fn new(regexp: &Regexp, whole: bool, named: bool) -> Translator {
        Translator {
            source: regexp.source.chars().collect(),
            at: 0,
            out: String::with_capacity(regexp.source.len() + 16),
            whole,
            named,
            options: Options {
                ignore_case: regexp.ignore_case,
                multi_line: regexp.multi_line,
                extended: regexp.extended,
            },
            frames: Vec::new(),
            atom: None,
            extent: Extent::NEW,
            groups: 0,
            closed: vec![true],
            names: Vec::new(),
            choices: Vec::new(),
            top_alternatives: false,
            first_anchor: None,
            last_anchor: None,
        }
    }

    fn run(mut self) -> Result<Translated, Stop> {
        self.out.push_str(if self.whole { r"\A(?" } else { "(?" });
        self.out.push_str(if self.options.ignore_case { "i:" } else { ":" });
        while let Some(&c) = self.source.get(self.at) {
            self.at += 1;
            match c {
                '\\' => self.escape()?,
                '(' => self.open()?,
                ')' => self.close()?,
                '[' => self.class()?,
                '|' => {
                    self.top_alternatives |= self.at_top();
                    self.out.push('|');
                    self.extent.next_alternative();
                    self.atom = None;
                }
                '.' => {
                    let one = if self.options.multi_line { "(?s:.)" } else { "[^\\n]" };
                    self.choice(one);
                }
                '^' => {
                    // Matches at the start of every line that has one: not after a final line end.
                    let needless = self.whole && self.at_branch_start();
                    self.anchor('^', if needless { "" } else { r"(?:\A|(?<=\n)(?!\z))" });
                }
                '$' => {
                    let needless = self.whole && self.at_branch_end();
                    self.anchor('$', if needless { "" } else { "(?m:$)" });
                }
                '*' | '+' | '?' => self.quantify(&c.to_string(), true)?,
                '{' => match self.interval()? {
                    Some((text, exact)) => {
                        self.quantify_interval(&text, exact)?;
                    }
                    None => self.literal('{')?,
                },
                '#' if self.options.extended => self.skip_comment(),
                c if self.options.extended && c.is_ascii_whitespace() | (c == '\u{b}') => {}
                c => self.literal(c)?,
            }
        }
        while self.frames.last().is_some_and(|frame| frame.implied) {
            self.pop();
        }
        if !self.frames.is_empty() {
            return refuse("a group is not closed");
        }
        let (line_anchored, text_anchored) = self.anchors();
        self.out.push_str(if self.whole { r")\z" } else { ")" });
        Ok(Translated {
            text: self.out,
            groups: self.groups,
            names: self.names,
            choices: self.choices,
            line_anchored,
            text_anchored,
        })
    }

    fn anchor(&mut self, which: char, text: &str) {
        if self.at_start() {
            self.first_anchor = Some(which);
        }
        self.out.push_str(text);
        self.last_anchor = self.at_top().then_some((which, self.out.len()));
        self.atom = None;
    }

    fn anchors(&self) -> (bool, bool) {
        let last = self.last_anchor.filter(|(_, end)| *end == self.out.len()).map(|(which, _)| which);
        let line = matches!(self.first_anchor, Some('^' | 'A')) && matches!(last, Some('$' | 'z' | 'Z'));
        let text = self.first_anchor == Some('A') && last == Some('z');
        (line && !self.top_alternatives, text && !self.top_alternatives)
    }

    /// Whether nothing has been written yet.
    fn at_start(&self) -> bool {
        self.frames.is_empty() && (self.out.ends_with("(?:") || self.out.ends_with("(?i:"))
    }

    /// Whether no group is open but those that an isolated option opened.
    fn at_top(&self) -> bool {
        self.frames.iter().all(|frame| frame.implied)
    }

    fn at_branch_start(&self) -> bool {
        // A bar that the pattern means as a bar: a literal one is written as an escape.
        self.at_start() || (self.frames.is_empty() && self.out.ends_with('|'))
    }

    fn at_branch_end(&self) -> bool {
        self.at_top() && self.source.get(self.at).is_none_or(|c| *c == '|')
    }

    /// Writes something that matches one character of several.
    fn choice(&mut self, one: &str) {
        self.begin_atom(false);
        self.out.push_str(one);
        if !self.frames.iter().any(|frame| frame.look) {
            let groups = self.frames.iter().filter_map(|frame| frame.capture).collect();
            self.choices.push(Choice { one: one.to_owned(), groups });
        }
    }

    fn begin_atom(&mut self, empty: bool) {
        self.atom = Some(self.out.len());
        self.extent.next_atom(empty, false);
    }

    fn literal(&mut self, c: char) -> Result<(), Stop> {
        self.begin_atom(false);
        push_literal(&mut self.out, c, self.options)
    }

    fn escape(&mut self) -> Result<(), Stop> {
        let Some(&c) = self.source.get(self.at) else { return refuse("it ends in a backslash") };
        self.at += 1;
        match c {
            'A' => self.anchor('A', r"\A"),
            'z' => self.anchor('z', r"\z"),
            'Z' => self.anchor('Z', r"(?=\n?\z)"),
            'b' | 'B' => {
                self.out.push('\\');
                self.out.push(c);
                self.atom = None;
            }
            'R' => self.choice(r"(?>\r\n|[\n-\r\u{85}\u{2028}\u{2029}])"),
            'w' | 'W' | 'd' | 'D' | 's' | 'S' | 'h' | 'H' => {
                // Ruby does not fold these across the border of ASCII: (?i)\w is neither ſ nor the Kelvin sign.
                let class = charclass::ascii(c);
                let one = if self.options.ignore_case { format!("(?-i:{class})") } else { class.to_owned() };
                self.choice(&one);
            }
            'p' | 'P' => {
                let property = charclass::property(&self.source, &mut self.at, c == 'P', self.options)?;
                // Ruby leaves the case of its members alone, as above.
                let fold = if self.options.ignore_case { "-i" } else { "" };
                self.choice(&format!("(?{fold}:[{property}])"));
            }
            '1'..='9' => {
                let mut number = String::from(c);
                while let Some(digit) = self.source.get(self.at).filter(|d| d.is_ascii_digit()) {
                    number.push(*digit);
                    self.at += 1;
                }
                let count: usize = number.parse().unwrap_or(usize::MAX);
                if count > 9 && count > self.groups {
                    // No such group: an octal code.
                    self.at -= number.len();
                    for c in charclass::escaped_char(&self.source, &mut self.at)? {
                        self.literal(c)?;
                    }
                    return Ok(());
                }
                if self.named {
                    return refuse(format!(
                        "\\{number} refers to a group by number beside named groups: use \\k<name>"
                    ));
                }
                self.reference(count, &format!("\\{number}"))?;
            }
            'k' => {
                let name = self.group_name('k')?;
                let number = match self.names.iter().find(|(n, _)| *n == name) {
                    Some((_, number)) => *number,
                    None if self.named => usize::MAX,
                    None => name.parse().unwrap_or(usize::MAX),
                };
                self.reference(number, &format!("\\k<{name}>"))?;
            }
            'g' => return refuse("\\g (calling a group) is not supported: write the group out"),
            'G' | 'K' | 'X' => return refuse(format!("\\{c} is not supported: leave it out")),
            _ => {
                self.at -= 1;
                let literal = charclass::escaped_char(&self.source, &mut self.at)?;
                for c in literal {
                    self.literal(c)?;
                }
            }
        }
        Ok(())
    }

    /// The name in `<name>` or `'name'` after `\k`, or in `(?<name>`.
    fn group_name(&mut self, after: char) -> Result<String, Stop> {
        let close = match self.source.get(self.at) {
            Some('<') => '>',
            Some('\'') => '\'',
            _ => return refuse(format!("\\{after} needs a name in <>")),
        };
        let rest = &self.source[self.at + 1..];
        let Some(length) = rest.iter().position(|c| *c == close) else {
            return refuse("a group's name is not closed");
        };
        let name: String = rest[..length].iter().collect();
        self.at += length + 2;
        if name.is_empty() || name.chars().any(|c| !(c.is_alphanumeric() || c == '_')) {
            return refuse(format!("{name:?} is not a group's name"));
        }
        Ok(name)
    }

    fn reference(&mut self, number: usize, written: &str) -> Result<(), Stop> {
        if !self.closed.get(number).copied().unwrap_or(false) || number == 0 {
            return refuse(format!("{written} refers to no group that ends before it"));
        }
        self.begin_atom(true);
        self.out.push_str(&format!("(?:\\{number})"));
        Ok(())
    }

    fn open(&mut self) -> Result<(), Stop> {
        if self.frames.len() >= MAX_DEPTH {
            return refuse(format!("its groups nest deeper than {MAX_DEPTH}"));
        }
        let start = self.out.len();
        let mut frame = Frame {
            outer: self.options,
            start,
            capture: None,
            look: false,
            implied: false,
            groups: self.groups,
            outer_extent: self.extent,
        };
        if self.source.get(self.at) != Some(&'?') {
            if self.named {
                self.out.push_str("(?:");
            } else {
                frame.capture = Some(self.new_group());
            }
            return self.push(frame);
        }
        self.at += 1;
        let kind: String = self.source[self.at..].iter().take(2).collect();
        let (look, opening, length) = match kind.as_str() {
            "<=" => (true, "(?<=", 2),
            "<!" => (true, "(?<!", 2),
            _ => match kind.chars().next() {
                Some(':') => (false, "(?:", 1),
                Some('>') => (false, "(?>", 1),
                Some('=') => (true, "(?=", 1),
                Some('!') => (true, "(?!", 1),
                Some('#') => return self.comment_group(),
                Some('<' | '\'') => return self.named_group(frame),
                Some('(') => return refuse("a condition (?(…)…) is not supported: write two entries"),
                Some('~') => return refuse("an absence (?~…) is not supported: use [^…]* or (?!…)"),
                _ => return self.option_group(frame),
            },
        };
        frame.look = look;
        self.at += length;
        self.out.push_str(opening);
        self.push(frame)
    }

    fn push(&mut self, frame: Frame) -> Result<(), Stop> {
        self.frames.push(frame);
        self.extent = Extent::NEW;
        self.atom = None;
        Ok(())
    }

    fn new_group(&mut self) -> usize {
        self.groups += 1;
        self.closed.push(false);
        self.out.push('(');
        self.groups
    }

    fn comment_group(&mut self) -> Result<(), Stop> {
        while let Some(c) = self.source.get(self.at) {
            self.at += 1;
            match c {
                '\\' => self.at += 1,
                ')' => return Ok(()),
                _ => {}
            }
        }
        refuse("a comment (?#…) is not closed")
    }

    fn named_group(&mut self, mut frame: Frame) -> Result<(), Stop> {
        if !self.named {
            return Err(Stop::NamedGroup);
        }
        let name = self.group_name('(')?;
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return refuse(format!("{name:?} is not a group's name"));
        }
        if self.names.iter().any(|(n, _)| *n == name) {
            return refuse(format!("two groups are named {name}: give each its own name"));
        }
        let number = self.new_group();
        self.names.push((name, number));
        frame.capture = Some(number);
        self.push(frame)
    }

    /// `(?im-x)` and `(?im-x:…)`.
    fn option_group(&mut self, mut frame: Frame) -> Result<(), Stop> {
        let mut on = true;
        loop {
            let Some(&c) = self.source.get(self.at) else { return refuse("a group is not closed") };
            self.at += 1;
            match c {
                '-' if on => on = false,
                'i' => self.options.ignore_case = on,
                'm' => self.options.multi_line = on,
                'x' => self.options.extended = on,
                'a' | 'd' | 'u' => {
                    return refuse(format!(
                        "the option ({c}) of a group is not supported: \\w, \\d, \\s are ASCII, \
                         \\p{{…}} is Unicode"
                    ));
                }
                ':' => break,
                ')' => {
                    frame.implied = true;
                    break;
                }
                _ => return refuse(format!("(?{c} is not known")),
            }
        }
        self.out.push_str(if self.options.ignore_case { "(?i:" } else { "(?-i:" });
        self.push(frame)
    }

    fn close(&mut self) -> Result<(), Stop> {
        while self.frames.last().is_some_and(|frame| frame.implied) {
            self.pop();
        }
        if self.frames.is_empty() {
            return refuse("a ) closes nothing");
        }
        self.pop();
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.out.push(')');
            self.options = frame.outer;
            let empty = frame.look || self.extent.can_be_empty();
            self.extent = frame.outer_extent;
            self.extent.next_atom(empty, self.groups > frame.groups);
            self.atom = (!frame.look && !frame.implied).then_some(frame.start);
            if let Some(number) = frame.capture {
                self.closed[number] = true;
            }
        }
    }

    fn class(&mut self) -> Result<(), Stop> {
        let one = charclass::bracket(&self.source, &mut self.at, self.options)?;
        self.choice(&one);
        Ok(())
    }

    fn skip_comment(&mut self) {
        while self.source.get(self.at).is_some_and(|c| *c != '\n') {
            self.at += 1;
        }
    }

    /// Reads `n}`, `n,}`, `,m}` or `n,m}`; anything else leaves the brace a character. The flag says "exactly n".
    fn interval(&mut self) -> Result<Option<(String, bool)>, Stop> {
        let Some(length) = self.source[self.at..].iter().take(16).position(|c| *c == '}') else {
            return Ok(None);
        };
        let inside: String = self.source[self.at..self.at + length].iter().collect();
        let (low, high) = inside.split_once(',').unwrap_or((&inside, &inside));
        if (low.is_empty() && high.is_empty()) || !low.chars().chain(high.chars()).all(|c| c.is_ascii_digit())
        {
            return Ok(None);
        }
        self.at += length + 1;
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= 100_000);
        let low_number = if low.is_empty() { Some(0) } else { number(low) };
        let high_number = if high.is_empty() { Some(u32::MAX) } else { number(high) };
        match (low_number, high_number) {
            (Some(low), Some(high)) if low <= high => {
                let text = match high {
                    u32::MAX => format!("{{{low},}}"),
                    high => format!("{{{low},{high}}}"),
                };
                Ok(Some((text, !inside.contains(','))))
            }
            (Some(_), Some(_)) => refuse(format!("{{{inside}}} ends below its start")),
            _ => refuse(format!("{{{inside}}} is too large a number of repetitions")),
        }
    }

    fn quantify_interval(&mut self, text: &str, exact: bool) -> Result<(), Stop> {
        // {n}? makes the whole optional and {n,m}+ repeats it: only * + ? have possessive forms in Ruby.
        self.quantify(text, false)?;
        if !exact && self.source.get(self.at) == Some(&'?') {
            self.at += 1;
            self.out.push('?');
        }
        Ok(())
    }

    /// Applies a quantifier to the last atom; with `suffixes`, its lazy or possessive mark too.
    fn quantify(&mut self, text: &str, suffixes: bool) -> Result<(), Stop> {
        let Some(start) = self.atom else { return refuse(format!("{text} has nothing to repeat")) };
        if self.extent.atom && self.extent.captures && text != "?" {
            return refuse(format!(
                "{text} repeats a group that can match nothing, which leaves open what it captures: write (?:…)"
            ));
        }
        if text == "*" || text == "?" || text.starts_with("{0") {
            self.extent.atom = true;
        }
        // Wrapped, so that a quantifier of a quantifier is not taken for its lazy or possessive mark.
        self.out.insert_str(start, "(?:");
        self.out.push(')');
        self.out.push_str(text);
        if suffixes {
            if let Some(mark @ ('?' | '+')) = self.source.get(self.at) {
                self.out.push(*mark);
                self.at += 1;
            }
        }
        Ok(())
    }
}

/// Writes one character so that the engine cannot take it for anything else.
pub(super) fn push_literal(out: &mut String, c: char, options: Options) -> Result<(), Stop> {
    if options.ignore_case && (c.to_uppercase().count() > 1 || c.to_lowercase().count() > 1) {
        return refuse(format!("{c} has no single other case: write it without the option i"));
    }
    if c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | ' ' | ',' | ':' | ';' | '=') || !c.is_ascii() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
    }
    Ok(())
}
