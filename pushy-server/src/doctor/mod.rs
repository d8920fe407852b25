//! `pushy-server doctor`: looks for what is wrong with a server and its surroundings, and says what to do about it.
//!
//! It changes nothing. It looks at files and ports itself and asks a running server for what only that one knows.

use std::path::Path;

use serde_json::{Value, json};

use crate::admin::{Command, ask};
use crate::config::Config;

mod certificate;
mod chef;
mod database;
mod files;
mod host;
mod network;
mod nodes;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// May be meant so.
    Warning,
    /// Does not work, or is not safe.
    Problem,
}

impl Level {
    /// The word in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do.
    pub advice: Option<String>,
}

/// Everything that was found, in the order it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One line each.
    pub findings: Vec<Finding>,
}

impl Report {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { check, level: Level::Ok, text: text.into(), advice: None });
    }

    fn warning(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        let (text, advice) = (text.into(), Some(advice.into()));
        self.findings.push(Finding { check, level: Level::Warning, text, advice });
    }

    fn problem(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        let (text, advice) = (text.into(), Some(advice.into()));
        self.findings.push(Finding { check, level: Level::Problem, text, advice });
    }

    /// How many findings are problems.
    pub fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.level == Level::Problem).count()
    }

    /// A line for each finding; advice follows on a line of its own.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let level = finding.level.as_str();
            text.push_str(&format!("{level:<8} {:<12} {}\n", finding.check, one_line(&finding.text)));
            if let Some(advice) = &finding.advice {
                text.push_str(&format!("{:21} -> {}\n", "", one_line(advice)));
            }
        }
        text
    }

    /// The same for programs.
    pub fn to_json(&self) -> String {
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|f| json!({ "check": f.check, "level": f.level.as_str(), "text": f.text, "advice": f.advice }))
            .collect();
        format!("{:#}", json!({ "ok": self.problems() == 0, "findings": findings }))
    }
}

/// Names from outside may hold anything.
fn one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Looks at everything.
pub async fn examine(dir: &Path) -> Report {
    let mut report = Report::default();
    let config = match Config::load(dir) {
        Ok(config) => config,
        Err(error) => {
            report.problem(
                "settings",
                error.message(),
                "correct the file; docs/server.md lists every setting",
            );
            return report;
        }
    };
    report.ok("settings", format!("{} can be used", dir.join(crate::config::FILE).display()));
    let about = match ask(dir, &Command::Status).await {
        Ok(Some(about)) => {
            report.ok(
                "server",
                format!("runs as process {}, version {}", about["pid"], text(&about["version"])),
            );
            for reason in about["not_ready"].as_array().into_iter().flatten() {
                report.problem(
                    "server",
                    format!("is not ready: {}", text(reason)),
                    "the log says since when and why",
                );
            }
            Some(about)
        }
        Ok(None) => {
            let start = format!("start it with `pushy-server run {}`", dir.display());
            report.warning("server", "does not run: what only it knows was not looked at", start);
            None
        }
        Err(error) => {
            report.problem("server", format!("does not answer: {}", error.message()), "look at its log");
            None
        }
    };
    files::look(&mut report, &config);
    database::look(&mut report, &config, about.is_some());
    network::ports(&mut report, &config, about.as_ref());
    certificate::look(&mut report, &config);
    host::descriptors(&mut report, &config, about.as_ref());
    host::clock(&mut report).await;
    network::addresses(&mut report, &config, about.as_ref()).await;
    chef::look(&mut report, &config).await;
    if about.is_some() {
        nodes::look(&mut report, dir).await;
    }
    report
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_for_people_and_for_programs() {
        let mut report = Report::default();
        report.ok("settings", "fine");
        report.warning("nodes", "a\u{1b}b", "look");
        assert_eq!(report.problems(), 0);
        assert!(report.to_json().contains("\"ok\": true"));
        report.problem("ports", "taken", "free it");
        let expected = "ok       settings     fine\n\
                        warning  nodes        a\\u{1b}b\n                      -> look\n\
                        problem  ports        taken\n                      -> free it\n";
        assert_eq!(report.to_text(), expected);
        let read: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&read["ok"], &read["findings"][2]["level"]), (&json!(false), &json!("problem")));
        assert_eq!(read["findings"][0]["advice"], Value::Null);
    }
}
