//! Character classes of Ruby patterns: brackets, POSIX names, `\p{…}` and single escaped characters.

use super::translate::{Options, Stop, push_literal, refuse};

/// The deepest nesting of brackets.
const MAX_DEPTH: usize = 16;

/// The engine's class for `\w` and its like: always ASCII, as Ruby has it for UTF-8 text.
pub(super) fn ascii(letter: char) -> &'static str {
    match letter {
        'w' => "[a-zA-Z0-9_]",
        'W' => "[^a-zA-Z0-9_]",
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => r"[ \t\r\n\f\x0b]",
        'S' => r"[^ \t\r\n\f\x0b]",
        'h' => "[0-9a-fA-F]",
        _ => "[^0-9a-fA-F]",
    }
}

/// The members of a class with a POSIX name, Unicode as Ruby has it; `None` when there is none.
fn named(name: &str) -> Option<&'static str> {
    Some(match name {
        "alnum" => r"\p{Alphabetic}\p{Nd}",
        "alpha" => r"\p{Alphabetic}",
        "blank" => r"\p{Zs}\t",
        "cntrl" => r"\p{Cc}",
        "digit" => r"\p{Nd}",
        "graph" => r"[^\p{White_Space}\p{Cc}\p{Cn}\p{Cs}]",
        "lower" => r"\p{Lowercase}",
        "print" => r"[^\p{Cc}\p{Cn}\p{Cs}\x{2028}\x{2029}]",
        "space" => r"\p{White_Space}",
        "upper" => r"\p{Uppercase}",
        "xdigit" => "0-9a-fA-F",
        "word" => r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}",
        "ascii" => r"\x00-\x7f",
        _ => return None,
    })
}

/// `\p{Name}` or `\P{Name}`, after its letter; what comes back stands inside brackets.
pub(super) fn property(
    source: &[char],
    at: &mut usize,
    negated: bool,
    options: Options,
) -> Result<String, Stop> {
    let letter = if negated { 'P' } else { 'p' };
    let rest = &source[(*at).min(source.len())..];
    let closed = rest.iter().take(64).position(|c| *c == '}');
    let (Some('{'), Some(length)) = (rest.first(), closed) else {
        return refuse(format!("\\{letter} needs a name in braces"));
    };
    let mut name: String = rest[1..length].iter().collect();
    *at += length + 1;
    let caret = name.starts_with('^');
    if caret {
        name.remove(0);
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ')) {
        return refuse(format!("\\{letter}{{{name}}} is not a property that is supported"));
    }
    let plain: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    only_without_case(&plain, options)?;
    let members = match (named(&plain), plain.as_str()) {
        (Some(members), _) => members.to_owned(),
        // The property has punctuation alone; the POSIX bracket has nine symbols besides.
        (None, "punct") => r"\p{P}".to_owned(),
        // The engine knows the rest by the same names, or refuses it.
        (None, _) => format!("\\p{{{plain}}}"),
    };
    Ok(if negated != caret { format!("[^{members}]") } else { members })
}

/// Under the option `i` Ruby folds the ASCII part of such a class and leaves the rest.
fn only_without_case(name: &str, options: Options) -> Result<(), Stop> {
    let case = ["upper", "uppercase", "lower", "lowercase", "titlecase", "ascii", "lu", "ll", "lt"];
    let letters = ["uppercaseletter", "lowercaseletter", "titlecaseletter"];
    if options.ignore_case && (case.contains(&name) || letters.contains(&name)) {
        return refuse(format!("the class {name} is not supported with the option i: write alpha"));
    }
    Ok(())
}

/// A character as a member of a bracket.
fn push_member(out: &mut String, c: char, options: Options) -> Result<(), Stop> {
    // Ruby leaves the case of these alone inside brackets, the engine does not.
    if options.ignore_case && !c.is_ascii() && (c.to_lowercase().ne([c]) || c.to_uppercase().ne([c])) {
        return refuse(format!(
            "{c} in a bracket is not supported with the option i: use | or leave out the i"
        ));
    }
    push_literal(out, c, options)
}

fn hex(digits: &str) -> Result<char, Stop> {
    match u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) {
        Some(c) => Ok(c),
        None => refuse(format!("\\u{digits} is not a character")),
    }
}

/// The characters of an escape that stands for text, after its backslash.
pub(super) fn escaped_char(source: &[char], at: &mut usize) -> Result<Vec<char>, Stop> {
    let Some(&c) = source.get(*at) else { return refuse("it ends in a backslash") };
    *at += 1;
    let take = |at: &mut usize, most: usize, radix: u32| {
        let mut digits = String::new();
        while let Some(d) = source.get(*at).filter(|d| d.is_digit(radix) && digits.len() < most) {
            digits.push(*d);
            *at += 1;
        }
        digits
    };
    let single = match c {
        't' => '\t',
        'n' => '\n',
        'r' => '\r',
        'f' => '\u{c}',
        'v' => '\u{b}',
        'a' => '\u{7}',
        'e' => '\u{1b}',
        '0'..='7' => {
            let digits = format!("{c}{}", take(at, 2, 8));
            match u8::from_str_radix(&digits, 8) {
                Ok(code @ 0..0x80) => char::from(code),
                _ => return refuse(format!("\\{digits} is not a character of its own: write \\u{{…}}")),
            }
        }
        'x' => {
            let digits = take(at, 2, 16);
            match u8::from_str_radix(&digits, 16) {
                Ok(code @ 0..0x80) => char::from(code),
                _ => return refuse(format!("\\x{digits} is not a character of its own: write \\u{{…}}")),
            }
        }
        'u' if source.get(*at) == Some(&'{') => {
            let rest = &source[*at + 1..];
            let Some(length) = rest.iter().position(|c| *c == '}') else {
                return refuse("\\u{ is not closed");
            };
            let inside: String = rest[..length].iter().collect();
            *at += length + 2;
            let characters: Vec<char> = inside.split_ascii_whitespace().map(hex).collect::<Result<_, _>>()?;
            return if characters.is_empty() { refuse("\\u{} is empty") } else { Ok(characters) };
        }
        'u' => match take(at, 4, 16) {
            digits if digits.len() == 4 => hex(&digits)?,
            digits => return refuse(format!("\\u{digits} needs four digits")),
        },
        'c' | 'C' => {
            if c == 'C' {
                if source.get(*at) != Some(&'-') {
                    return refuse("\\C needs a - and a character");
                }
                *at += 1;
            }
            match source.get(*at) {
                Some(&control)
                    if control.is_ascii_alphabetic() || matches!(control, '@' | '[' | ']' | '^' | '_') =>
                {
                    *at += 1;
                    char::from(control as u8 & 0x1f)
                }
                _ => return refuse("a control character \\c needs a letter"),
            }
        }
        c if c.is_ascii_alphanumeric() => return refuse(format!("the escape \\{c} is not known")),
        c => c,
    };
    Ok(vec![single])
}

/// A bracket's members while it is read.
struct Set {
    /// Members whose case does not count under the option `i`.
    items: String,
    /// Classes, whose members Ruby leaves as they are; apart from `items` only under `i`.
    unfolded: String,
    negated: bool,
    intersects: bool,
}

impl Set {
    fn class(&mut self, members: &str, options: Options) {
        if options.ignore_case { &mut self.unfolded } else { &mut self.items }.push_str(members);
    }
}

/// What a member was, for deciding what a `-` after it means.
#[derive(PartialEq)]
enum Last {
    Nothing,
    Char(char),
    /// A range, after which a `-` is itself.
    Range,
    /// A class or an inner bracket.
    Class,
}

/// A bracket expression after its `[`, as a pattern of its own.
pub(super) fn bracket(source: &[char], at: &mut usize, options: Options) -> Result<String, Stop> {
    let set = read_set(source, at, options, 0)?;
    let caret = if set.negated { "^" } else { "" };
    if set.unfolded.is_empty() {
        return Ok(format!("[{caret}{}]", set.items));
    }
    if set.intersects {
        return refuse("&& beside classes is not supported with the option i");
    }
    let mut either = format!("(?-i:[{}])", set.unfolded);
    if !set.items.is_empty() {
        either.push_str(&format!("|[{}]", set.items));
    }
    Ok(if set.negated { format!("(?:(?!{either})(?s:.))") } else { format!("(?:{either})") })
}

fn read_set(source: &[char], at: &mut usize, options: Options, depth: usize) -> Result<Set, Stop> {
    if depth > MAX_DEPTH {
        return refuse(format!("its brackets nest deeper than {MAX_DEPTH}"));
    }
    let mut set = Set { items: String::new(), unfolded: String::new(), negated: false, intersects: false };
    if source.get(*at) == Some(&'^') {
        set.negated = true;
        *at += 1;
    }
    if source.get(*at) == Some(&']') {
        return refuse("a bracket begins with ]: write \\]");
    }
    let mut last = Last::Nothing;
    loop {
        let Some(&c) = source.get(*at) else { return refuse("a [ is not closed") };
        *at += 1;
        let next = source.get(*at).copied();
        match c {
            ']' if last == Last::Nothing => return refuse("&& in a bracket has nothing after it"),
            ']' => return Ok(set),
            '[' => {
                match posix(source, at, options)? {
                    Some(members) => set.class(&members, options),
                    None => {
                        let inner = read_set(source, at, options, depth + 1)?;
                        if !inner.unfolded.is_empty() {
                            return refuse("classes in an inner bracket are not supported with the option i");
                        }
                        let caret = if inner.negated { "^" } else { "" };
                        set.items.push_str(&format!("[{caret}{}]", inner.items));
                    }
                }
                last = Last::Class;
            }
            '&' if next == Some('&') => {
                if last == Last::Nothing {
                    return refuse("&& in a bracket has nothing before it");
                }
                *at += 1;
                set.items.push_str("&&");
                set.intersects = true;
                last = Last::Nothing;
            }
            '-' => match last {
                Last::Char(low) if !matches!(next, Some(']' | '[') | None) => {
                    let high = range_end(source, at)?;
                    if low > high {
                        return refuse(format!("the range {low}-{high} ends below its start"));
                    }
                    if options.ignore_case {
                        for c in low..=high {
                            push_member(&mut String::new(), c, options)?;
                        }
                    }
                    set.items.push('-');
                    push_member(&mut set.items, high, options)?;
                    last = Last::Range;
                }
                Last::Class if next != Some(']') => {
                    return refuse("a - after a class in a bracket can be read in two ways: write \\-");
                }
                _ if next == Some('-') || next == Some('[') => {
                    return refuse("a - in a bracket can be read in two ways: write \\-");
                }
                _ => {
                    push_member(&mut set.items, '-', options)?;
                    // At the start it may begin a range; after a range it is itself alone.
                    last = if last == Last::Nothing { Last::Char('-') } else { Last::Range };
                }
            },
            '\\' => last = escape_in_set(source, at, options, &mut set)?,
            c => {
                push_member(&mut set.items, c, options)?;
                last = Last::Char(c);
            }
        }
    }
}

fn escape_in_set(source: &[char], at: &mut usize, options: Options, set: &mut Set) -> Result<Last, Stop> {
    match source.get(*at).copied() {
        Some(c @ ('w' | 'W' | 'd' | 'D' | 's' | 'S' | 'h' | 'H')) => {
            *at += 1;
            set.class(ascii(c), options);
            Ok(Last::Class)
        }
        Some(c @ ('p' | 'P')) => {
            *at += 1;
            let members = property(source, at, c == 'P', options)?;
            set.class(&members, options);
            Ok(Last::Class)
        }
        Some('b') => {
            *at += 1;
            push_member(&mut set.items, '\u{8}', options)?;
            Ok(Last::Char('\u{8}'))
        }
        _ => {
            let mut last = Last::Nothing;
            for c in escaped_char(source, at)? {
                push_member(&mut set.items, c, options)?;
                last = Last::Char(c);
            }
            Ok(last)
        }
    }
}

/// The upper end of a range, after its `-`.
fn range_end(source: &[char], at: &mut usize) -> Result<char, Stop> {
    let Some(&c) = source.get(*at) else { return refuse("a [ is not closed") };
    *at += 1;
    if c == '&' && source.get(*at) == Some(&'&') {
        return refuse("a range in a bracket has no end");
    }
    if c != '\\' {
        return Ok(c);
    }
    if matches!(source.get(*at), Some('w' | 'W' | 'd' | 'D' | 's' | 'S' | 'h' | 'H' | 'p' | 'P' | 'b')) {
        return refuse("a range in a bracket ends in a class: write \\-");
    }
    match escaped_char(source, at)?.as_slice() {
        [c] => Ok(*c),
        _ => refuse("a range in a bracket ends in several characters"),
    }
}

/// `[:name:]` after its first bracket; `None` when it is an ordinary inner bracket.
fn posix(source: &[char], at: &mut usize, options: Options) -> Result<Option<String>, Stop> {
    let rest = &source[(*at).min(source.len())..];
    if rest.first() != Some(&':') {
        return Ok(None);
    }
    let Some(length) = rest.windows(2).take(20).position(|w| w == [':', ']']).filter(|n| *n > 0) else {
        return refuse("[: has no :]");
    };
    let name: String = rest[1..length].iter().collect();
    let (negated, plain) = match name.strip_prefix('^') {
        Some(plain) => (true, plain),
        None => (false, name.as_str()),
    };
    only_without_case(plain, options)?;
    let members = match (named(plain), plain) {
        (Some(members), _) => members,
        (None, "punct") => r"\p{P}$+<=>\^`|\x{7e}",
        (None, _) => return refuse(format!("[:{name}:] is not known")),
    };
    *at += length + 2;
    Ok(Some(if negated { format!("[^{members}]") } else { members.to_owned() }))
}
