//! Documents for people and programs: knife's `summary` layout, JSON, YAML (10.3, chef-config 5.5).

mod job;
mod names;
mod progress;
mod yaml;

use serde_json::Value;

pub use job::{job_document, job_text};
pub use progress::progress_line;

use crate::error::{Error, ErrorCode, Result};

/// A form of output, `-F`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Aligned keys and values.
    #[default]
    Summary,
    /// The same; knife shortens some summaries, this crate none.
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

impl Format {
    /// The names that `-F` takes.
    pub const NAMES: [&'static str; 4] = ["summary", "text", "json", "yaml"];

    /// Reads a name.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] naming the ones there are.
    pub fn parse(text: &str) -> Result<Format> {
        match text {
            "summary" => Ok(Format::Summary),
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            "yaml" => Ok(Format::Yaml),
            _ => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("format {text:?} is not one of {}", Format::NAMES.join(", ")),
            )),
        }
    }

    /// Whether the output is for programs: one document on standard output, everything else elsewhere (decision 14).
    pub fn is_document(self) -> bool {
        matches!(self, Format::Json | Format::Yaml)
    }
}

/// Where text goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal; `None`: no terminal, and nothing is shortened.
    pub columns: Option<usize>,
    /// Whether to paint.
    pub colour: bool,
}

/// Writes a document. Ends with a line end. `colour` paints the keys of the text forms.
pub fn render(document: &Value, format: Format, colour: bool) -> String {
    match format {
        Format::Summary | Format::Text => {
            let mut out = String::new();
            for line in summary(document, colour) {
                out.push_str(&line);
                out.push('\n');
            }
            // An empty list is an empty line.
            if out.is_empty() { "\n".to_owned() } else { out }
        }
        Format::Json => {
            // A value has no map with keys that are not text: nothing to fail.
            let mut out = serde_json::to_string_pretty(document).unwrap_or_default();
            out.push('\n');
            out
        }
        Format::Yaml => yaml::document(document),
    }
}

/// Lines of the summary of a value: members sorted, values aligned, what is inside another indented by two.
fn summary(value: &Value, colour: bool) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let width = members.iter().map(|(key, _)| key.chars().count() + 1).max().unwrap_or(0);
            let mut lines = Vec::new();
            for (key, value) in members {
                let value = match value {
                    Value::Array(one) if one.len() == 1 && is_scalar(&one[0]) => &one[0],
                    value => value,
                };
                let label = format!("{}:", printable(key));
                if is_scalar(value) {
                    let label = format!("{label:width$}");
                    let mut text = scalar(value);
                    // A value of several lines goes on at the margin, as in knife.
                    let rest = text.find('\n').map(|at| text.split_off(at));
                    lines.push(format!("{} {text}", paint(&label, colour)));
                    if let Some(rest) = rest {
                        lines.extend(rest.trim_end_matches('\n').split('\n').skip(1).map(str::to_owned));
                    }
                } else {
                    lines.push(paint(&label, colour));
                    lines.extend(summary(value, colour).into_iter().map(|line| format!("  {line}")));
                }
            }
            lines
        }
        Value::Array(elements) => {
            let mut lines = Vec::new();
            for (index, element) in elements.iter().enumerate() {
                lines.extend(summary(element, colour));
                if !is_scalar(element) && index + 1 < elements.len() {
                    lines.push(String::new());
                }
            }
            lines
        }
        value => scalar(value).trim_end_matches('\n').split('\n').map(str::to_owned).collect(),
    }
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Object(_) | Value::Array(_))
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        value => value.to_string(),
    }
}

/// Names and commands come from outside: what would steer a terminal is shown, not sent.
fn printable(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return text.to_owned();
    }
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c.to_string(),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        })
        .collect()
}

fn paint(label: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[36m{label}\u{1b}[0m") } else { label.to_owned() }
}
