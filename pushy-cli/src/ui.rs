//! What goes where: documents and state lines on standard output, everything else on standard error (decision 14).

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd;

use pushy_core::Result;
use pushy_core::ids::JobId;
use pushy_core::present::{Format, Screen, job_document, job_text, progress_line, render};
use pushy_core::watch::{Exit, Tally};
use serde_json::{Value, json};

use crate::args::Global;
use crate::config::Config;

/// The program's voice.
pub(crate) struct Ui {
    format: Cell<Format>,
    format_given: bool,
    colour: bool,
    /// Whether standard output and standard error are terminals that can rewrite a line.
    terminals: (bool, bool),
    /// A line stands there that is to be rewritten.
    open_line: Cell<bool>,
    /// A document has gone out: there is to be one and no more.
    documented: Cell<bool>,
    /// What was said last of what went wrong.
    trouble: RefCell<Option<String>>,
    /// Ctrl-C is looked after by the verb.
    interruptible: Cell<bool>,
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Ui {
        let able = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let terminal = std::io::stdout().is_terminal();
        // clap has let only names through that parse.
        let format = global.format.as_deref().and_then(|name| Format::parse(name).ok());
        Ui {
            format: Cell::new(format.unwrap_or_default()),
            format_given: format.is_some(),
            colour: !global.no_color && (terminal || global.color),
            terminals: (terminal && able, std::io::stderr().is_terminal() && able),
            open_line: Cell::new(false),
            documented: Cell::new(false),
            trouble: RefCell::new(None),
            interruptible: Cell::new(false),
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
        self.documented.set(true);
        self.raw(render(document, self.format.get(), self.colour).as_bytes());
    }

    /// A job: what the server says of it for programs, what matters of that for people.
    pub(crate) fn job(&self, document: &Value) {
        if self.is_document() {
            self.document(&job_document(document));
        } else {
            let columns = self.terminals.0.then(|| columns(std::io::stdout()));
            self.raw(job_text(document, Screen { columns, colour: self.colour }).as_bytes());
        }
    }

    /// The document of a program that ends without one: there is always exactly one.
    pub(crate) fn close(&self, exit: Exit) {
        if self.is_document() && !self.documented.get() && exit != Exit::Success {
            let said = self.trouble.borrow_mut().take();
            let text = said.unwrap_or_else(|| {
                if exit == Exit::Interrupted { "interrupted" } else { "failed" }.to_owned()
            });
            self.document(&failure(None, &text, exit));
        }
    }

    /// The document of a wait that ends before its job.
    pub(crate) fn unfinished(&self, id: &JobId, text: &str, exit: Exit) {
        if self.is_document() {
            self.document(&failure(Some(id), text, exit));
        }
    }

    /// Whether there is a line to be rewritten in place.
    pub(crate) fn has_progress_line(&self) -> bool {
        if self.is_document() { self.terminals.1 } else { self.terminals.0 }
    }

    /// Rewrites the line that says where a job stands.
    pub(crate) fn tally(&self, tally: &Tally) {
        let screen = |columns| Screen { columns: Some(columns), colour: self.colour };
        if self.is_document() {
            let line = progress_line(tally, screen(columns(std::io::stderr())));
            let _ = write!(std::io::stderr(), "\r{line}\u{1b}[K");
        } else {
            let line = progress_line(tally, screen(columns(std::io::stdout())));
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\r{line}\u{1b}[K").and_then(|()| out.flush());
        }
        self.open_line.set(true);
    }

    /// Takes the line away that was to be rewritten.
    fn clear(&self) {
        if self.open_line.replace(false) {
            let clear = "\r\u{1b}[K";
            if self.is_document() {
                let _ = write!(std::io::stderr(), "{clear}");
            } else {
                let mut out = std::io::stdout().lock();
                let _ = write!(out, "{clear}").and_then(|()| out.flush());
            }
        }
    }

    /// Whether somebody sits there who can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// A question; the answer is typed behind it.
    pub(crate) fn question(&self, text: &str) {
        self.clear();
        let _ = write!(std::io::stderr(), "{text} ");
    }

    /// Says who looks after Ctrl-C: the verb, or the program by ending.
    pub(crate) fn takes_interrupts(&self, takes: bool) {
        self.interruptible.set(takes);
    }

    pub(crate) fn is_interruptible(&self) -> bool {
        self.interruptible.get()
    }

    /// Bytes for standard output. A reader that has gone ends the program quietly, as knife does.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        self.clear();
        let mut out = std::io::stdout().lock();
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Bytes of a command's standard error.
    pub(crate) fn raw_aside(&self, bytes: &[u8]) {
        self.clear();
        let mut err = std::io::stderr().lock();
        // Nobody is left to tell when standard error is gone.
        let _ = err.write_all(bytes).and_then(|()| err.flush());
    }

    /// A line about the course of things.
    pub(crate) fn line(&self, text: &str) {
        if self.is_document() {
            self.aside(text);
        } else {
            self.raw(format!("{text}\n").as_bytes());
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        self.aside(&format!("WARNING: {text}"));
    }

    pub(crate) fn error(&self, text: &str) {
        self.trouble.replace(Some(text.to_owned()));
        self.aside(&format!("ERROR: {text}"));
    }

    /// A line for standard error.
    pub(crate) fn aside(&self, text: &str) {
        self.clear();
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// The document of a failure, with the job's id where there is a job.
pub(crate) fn failure(id: Option<&JobId>, text: &str, exit: Exit) -> Value {
    let error = json!({ "message": text, "exit_status": exit.code() });
    match id {
        Some(id) => json!({ "id": id.as_str(), "error": error }),
        None => json!({ "error": error }),
    }
}

/// Columns of the terminal; of one that does not say, what `COLUMNS` says, else 80.
fn columns(stream: impl AsFd) -> usize {
    let told = terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0));
    let given = || std::env::var("COLUMNS").ok()?.parse().ok();
    told.filter(|columns| *columns > 0).or_else(given).unwrap_or(80)
}
