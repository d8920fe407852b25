//! Node names from the command line, from files and from standard input.

use std::io::Read as _;

use pushy_core::{Error, ErrorCode, Result};

use crate::config::plain;

/// Replaces `@FILE` and `-` by the names in them: one a line, blank lines and lines that begin with `#` left out.
pub(crate) fn expand(arguments: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for argument in arguments {
        if argument == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| {
                Error::new(ErrorCode::Io, format!("cannot read names from standard input: {}", plain(&e)))
            })?;
            names.extend(lines(&text));
        } else if let Some(file) = argument.strip_prefix('@') {
            let text = std::fs::read_to_string(file).map_err(|e| {
                Error::new(ErrorCode::Io, format!("cannot read names from {file}: {}", plain(&e)))
            })?;
            names.extend(lines(&text));
        } else {
            names.push(argument.clone());
        }
    }
    Ok(names)
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}
