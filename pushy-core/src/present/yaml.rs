//! YAML as Ruby's library writes it, as far as a job's document needs it: block style, quotes only where a reader of YAML
//! 1.1 or 1.2 would take plain text for something else.

use serde_json::Value;

/// One document, from `---` to a line end.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::from("---");
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('\n');
            block(value, 0, &mut out);
        }
        Value::Array(elements) if !elements.is_empty() => {
            out.push('\n');
            block(value, 0, &mut out);
        }
        value => {
            out.push(' ');
            scalar(value, 0, &mut out);
        }
    }
    out
}

/// Writes the lines of a non-empty object or array, each indented by `indent`.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(members) => {
            for (index, (key, value)) in members.iter().enumerate() {
                // The first member of an object in a list stands behind its dash.
                if index > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                text(key, indent, true, out);
                out.push(':');
                member(value, indent, out);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                out.push_str("- ");
                if is_block(element) {
                    block(element, indent + 2, out);
                } else {
                    scalar(element, indent, out);
                }
            }
        }
        value => scalar(value, indent, out),
    }
}

fn member(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null => out.push('\n'),
        Value::Object(_) if is_block(value) => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        // Lists stand at the level of their key.
        Value::Array(_) if is_block(value) => {
            out.push('\n');
            block(value, indent, out);
        }
        value => {
            out.push(' ');
            scalar(value, indent, out);
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        _ => false,
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A value on the rest of the line, and the line's end.
fn scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null => {
            // Behind a dash or at the top, nothing is null.
            let end = out.trim_end_matches(' ').len();
            out.truncate(end);
        }
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(value) => {
            text(value, indent, false, out);
            if out.ends_with('\n') {
                return;
            }
        }
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
    out.push('\n');
}

fn text(value: &str, indent: usize, is_key: bool, out: &mut String) {
    let inner_break = value.trim_end_matches('\n').contains('\n');
    let printable = !value.chars().any(|c| c.is_control() && c != '\n') && !value.contains('\u{feff}');
    // What Ruby's library quotes by double quotes though YAML would not ask for it.
    let by_habit = matches!(value, "y" | "Y" | "n" | "N") || (starts_odd(value) && !value.contains('"'));
    if inner_break && printable && !is_key && !has_blank_line_ends(value) {
        literal(value, indent, out);
    } else if value.contains('\n') || !printable || by_habit {
        double_quoted(value, out);
    } else if reads_as_something_else(value) || !may_be_plain(value) {
        out.push('\'');
        out.push_str(&value.replace('\'', "''"));
        out.push('\'');
    } else {
        out.push_str(value);
    }
}

/// A literal block would lose or misread lines that begin or end with blanks.
fn has_blank_line_ends(value: &str) -> bool {
    value.starts_with([' ', '\n']) || value.lines().any(|line| line.ends_with(' ') || line.trim().is_empty())
}

fn literal(value: &str, indent: usize, out: &mut String) {
    let kept = value.trim_end_matches('\n');
    out.push_str(match value.len() - kept.len() {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    for line in kept.split('\n') {
        pad(indent + 2, out);
        out.push_str(line);
        out.push('\n');
    }
    out.extend(std::iter::repeat_n('\n', (value.len() - kept.len()).saturating_sub(1)));
}

fn double_quoted(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{1b}' => out.push_str("\\e"),
            c if u32::from(c) < 0x100 && c.is_control() => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            '\u{feff}' => out.push_str("\\uFEFF"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn starts_odd(value: &str) -> bool {
    value.chars().next().is_some_and(|c| !c.is_alphanumeric() && c != '_')
}

/// Whether a reader would take the plain text for null, a truth, a number, a date or a time.
fn reads_as_something_else(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let words = ["", "~", "null", "true", "false", "yes", "no", "on", "off", ".inf", ".nan"];
    if words.contains(&lower.as_str()) {
        return true;
    }
    let number: String = lower.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let unsigned = number.trim_start_matches(['+', '-']);
    let starts_as_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    starts_as_number
        && (number.parse::<f64>().is_ok()
            || ["0x", "0o", "0b"].iter().any(|prefix| {
                unsigned
                    .strip_prefix(prefix)
                    .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            })
            || unsigned.contains(':')
                && unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'))
            || is_date(unsigned))
}

fn is_date(value: &str) -> bool {
    let mut parts = value.splitn(3, '-');
    let digits = |part: Option<&str>, range: std::ops::RangeInclusive<usize>| {
        part.is_some_and(|p| range.contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
    };
    digits(parts.next(), 4..=4)
        && digits(parts.next(), 1..=2)
        && parts.next().is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether YAML's grammar lets the text stand without quotes.
fn may_be_plain(value: &str) -> bool {
    !(value.starts_with([' ', '\t'])
        || value.ends_with([' ', '\t', ':'])
        || starts_odd(value)
        || value.contains(": ")
        || value.contains(" #"))
}
