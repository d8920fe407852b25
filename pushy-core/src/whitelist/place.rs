//! Where a whitelist entry is written.

use std::fmt;
use std::sync::Arc;

/// A file, and the line in it if the file's reader knows lines; `Display` is `FILE:LINE` or `FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    line: Option<usize>,
}

impl Place {
    /// Lines count from 1.
    pub fn new(file: &str, line: Option<usize>) -> Place {
        Place { file: file.into(), line }
    }

    /// The file's path.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}
