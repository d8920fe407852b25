//! What goes where: documents and state lines on standard output, everything else on standard error (decision 14).

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};

use pushy_core::Result;
use pushy_core::present::{Format, render};
use serde_json::Value;

use crate::args::Global;
use crate::config::Config;

/// The program's voice.
pub(crate) struct Ui {
    format: Cell<Format>,
    format_given: bool,
    colour: bool,
    /// Dots wait for the end of their line.
    dots: Cell<bool>,
    terminal: bool,
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Ui {
        let terminal = std::io::stdout().is_terminal();
        // clap has let only names through that parse.
        let format = global.format.as_deref().and_then(|name| Format::parse(name).ok());
        Ui {
            format: Cell::new(format.unwrap_or_default()),
            format_given: format.is_some(),
            colour: !global.no_color && (terminal || global.color),
            dots: Cell::new(false),
            terminal,
        }
    }

    /// Takes `knife[:format]` unless `-F` was given. A value may be cut to its first letter (chef-config 5.5).
    pub(crate) fn configure(&self, config: &Config) -> Result<()> {
        if let Some(name) = config.knife_text("format").filter(|_| !self.format_given) {
            let full =
                Format::NAMES.into_iter().find(|full| name.len() == 1 && full.starts_with(name.as_str()));
            let format = Format::parse(full.unwrap_or(&name)).map_err(|e| e.context("knife[:format]"))?;
            self.format.set(format);
        }
        Ok(())
    }

    pub(crate) fn is_document(&self) -> bool {
        self.format.get().is_document()
    }

    /// The result.
    pub(crate) fn document(&self, document: &Value) {
        self.raw(render(document, self.format.get(), self.colour).as_bytes());
    }

    /// Bytes for standard output. A reader that has gone ends the program quietly, as knife does.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// A line about the course of things.
    pub(crate) fn line(&self, text: &str) {
        self.dots.set(false);
        if self.is_document() {
            eprintln_quietly(text);
        } else {
            self.raw(format!("{text}\n").as_bytes());
        }
    }

    /// A sign that the program still waits; for people at a terminal.
    pub(crate) fn dot(&self) {
        if self.terminal && !self.is_document() {
            self.dots.set(true);
            self.raw(b".");
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        self.aside(&format!("WARNING: {text}"));
    }

    pub(crate) fn error(&self, text: &str) {
        self.aside(&format!("ERROR: {text}"));
    }

    /// A line for standard error.
    pub(crate) fn aside(&self, text: &str) {
        if self.dots.replace(false) {
            self.raw(b"\n");
        }
        eprintln_quietly(text);
    }
}

fn eprintln_quietly(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}
