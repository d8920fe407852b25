//! Commands for what a server keeps: `backup`, `restore`, `import`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use pushy_core::{Error, ErrorCode, Result};

use crate::config::{self, Config};
use crate::keys::{self, Keys};
use crate::store::backup::{self, Backup};
use crate::store::{Options, Place};
use crate::{files, init};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write everything that the server keeps into a new file; a running server goes on
    ///
    /// The file holds jobs with their options and output, the directory, and the settings; keep it as secret as the
    /// database. It holds no keys: copy keys.json, and the certificates and keys that server.toml names, beside it.
    Backup {
        /// The file to write
        file: PathBuf,
    },
    /// Make a server's directory (-d DIR, new or empty) from a backup
    ///
    /// Jobs that were unfinished become crashed. Nodes fetch their configuration anew.
    Restore {
        /// The file that `backup` wrote
        file: PathBuf,
        /// Keep everything in this empty PostgreSQL database instead of a file
        #[arg(long, value_name = "URL")]
        database: Option<String>,
        /// The old server's keys.json; without it nodes that pinned the old key must be told to forget it
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
    },
    /// Take over jobs and output from the database of an original push jobs server; may be run again
    ///
    /// Jobs that were unfinished become crashed, as the original does at a start.
    Import {
        /// Its database: postgres://USER:PASSWORD@HOST/opscode_pushy
        url: String,
        /// Give the jobs of the organization with this GUID to NAME, which is made if need be
        #[arg(long = "org-guid", value_name = "NAME=GUID")]
        orgs: Vec<String>,
    },
}

impl Verb {
    pub(crate) async fn execute(self, out: &mut dyn Write, dir: &Path) -> Result<()> {
        match self {
            Verb::Backup { file } => save(out, dir, &file),
            Verb::Restore { file, database, keys } => restore(out, dir, &file, database, keys),
            Verb::Import { url, orgs } => import(out, dir, &url, &orgs).await,
        }
    }
}

/// One line of the result; a reader that has gone away is no failure.
fn say(out: &mut dyn Write, line: impl std::fmt::Display) {
    let _ = writeln!(out, "{line}");
}

fn save(out: &mut dyn Write, dir: &Path, file: &Path) -> Result<()> {
    let config = Config::load(dir)?;
    let path = dir.join(config::FILE);
    let settings = std::fs::read_to_string(&path).map_err(|e| files::io(&path, &e))?;
    let summary = backup::save(&config.database, &settings, file)?;
    say(out, format_args!("Wrote {} jobs in {} rows to {}.", summary.jobs, summary.rows, file.display()));
    say(out, format_args!("It holds no keys: keep {} beside it.", dir.join(keys::FILE).display()));
    Ok(())
}

fn restore(
    out: &mut dyn Write,
    dir: &Path,
    file: &Path,
    database: Option<String>,
    keys: Option<PathBuf>,
) -> Result<()> {
    init::must_be_empty(dir)?;
    let backup = Backup::check(file)?;
    let mut settings = backup.summary().settings.clone();
    if let Some(url) = &database {
        // In front: what follows may end in a table.
        settings = format!("database = {}\n{settings}", serde_json::Value::from(url.as_str()));
    }
    let config = Config::parse(dir, config::FILE, &settings)?;
    init::make_dir(dir)?;
    let made = fill(dir, &backup, &config, &settings, keys.as_deref());
    if made.is_err() {
        init::unmake(dir);
    }
    made?;
    let jobs = backup.summary().jobs;
    say(out, format_args!("Restored {jobs} jobs and the directory into {}.", dir.display()));
    if keys.is_none() {
        say(out, "The server has new keys: nodes that pinned the old one must forget it.");
    }
    say(out, format_args!("  start it:  pushy-server run {}", dir.display()));
    Ok(())
}

fn fill(dir: &Path, backup: &Backup, config: &Config, settings: &str, keys: Option<&Path>) -> Result<()> {
    // First: a database elsewhere stays filled when something else is refused after it.
    if let Some(path) = keys {
        let text = std::fs::read_to_string(path).map_err(|e| files::io(path, &e))?;
        files::write(&dir.join(keys::FILE), &text, true)?;
        // The database's identity is new: the first start takes a new incarnation id.
        Keys::load(dir)?;
    }
    config.database.create()?;
    backup.fill(&config.database)?;
    if keys.is_none() {
        let store = config.database.open(Options::default(), Box::new(|_| {}))?;
        let keys = store.identity().and_then(|identity| Keys::generate(&identity));
        store.close();
        keys?.save(dir)?;
    }
    files::write(&dir.join(config::FILE), settings, matches!(config.database, Place::Postgres(_)))
}

#[cfg(feature = "postgres")]
async fn import(out: &mut dyn Write, dir: &Path, url: &str, orgs: &[String]) -> Result<()> {
    use crate::directory::Change;
    use crate::store::original;
    use pushy_core::ids::{OrgId, OrgName};

    let config = Config::load(dir)?;
    let Some(_lock) = files::DirLock::try_take(dir)? else {
        let text = format!("{}: a server runs here; stop it before the import", dir.display());
        return Err(Error::new(ErrorCode::InvalidState, text));
    };
    let mut keys = Keys::load(dir)?;
    let mut named = Vec::new();
    for text in orgs {
        let bad = || Error::new(ErrorCode::InvalidArgument, format!("--org-guid {text}: give NAME=GUID"));
        let (name, guid) = text.split_once('=').ok_or_else(bad)?;
        named.push((OrgName::new(name)?, OrgId::new(guid)?));
    }
    let (tell, answers) = std::sync::mpsc::channel();
    let store = config.database.open(Options::default(), Box::new(move |saved| drop(tell.send(saved))))?;
    let work = async {
        let directory = store.directory()?;
        let mut to = std::collections::HashMap::new();
        for (name, guid) in named {
            match directory.org(name.as_str()) {
                Some(org) => drop(to.insert(guid, org.id.clone())),
                None => store.change_directory(vec![Change::AddOrg { name, id: guid }]).await?,
            }
        }
        let found = original::import(url, &*store, &answers, &to)?;
        Ok((found, store.directory()?))
    };
    let done: Result<_> = work.await;
    store.close();
    let (found, directory) = done?;
    // Nodes must not take this server for the one they knew (decision 5).
    keys.renew_incarnation();
    keys.save(dir)?;
    for (org, jobs) in &found.jobs {
        match directory.orgs().find(|(_, known)| known.id == *org) {
            Some((name, _)) => say(out, format_args!("{name}: {jobs} jobs")),
            None => {
                let hint = if config.chef.is_some() { "" } else { "; name it with --org-guid NAME=GUID" };
                say(out, format_args!("organization {org}: {jobs} jobs{hint}"));
            }
        }
    }
    for skipped in &found.skipped {
        say(out, format_args!("left out: {skipped}"));
    }
    if let Some(keep) = config.keep_jobs {
        say(out, format_args!("keep_jobs = {keep}: the server deletes older jobs beyond that number."));
    }
    Ok(())
}

#[cfg(not(feature = "postgres"))]
async fn import(_out: &mut dyn Write, _dir: &Path, _url: &str, _orgs: &[String]) -> Result<()> {
    let text = "import: this program was built without PostgreSQL (cargo feature `postgres`)";
    Err(Error::new(ErrorCode::InvalidArgument, text))
}
