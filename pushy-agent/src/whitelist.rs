//! The whitelist out of the configuration file and its drop-in directory.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pushy_core::value::Value;
use pushy_core::whitelist::{self, Builder, Key, Matching, Whitelist};
use pushy_core::{Error, ErrorCode, Result};
use serde_json::Map;

use crate::file::Settings;

/// The drop-in directory beside the configuration file when `whitelist_dir` names no other.
const DROP_INS: &str = "push-jobs-client.d";

/// Settings that are about the whitelist: the only ones that a changed file is read again for.
pub(crate) const SETTINGS: [&str; 3] = ["whitelist", "whitelist_match", "whitelist_dir"];

/// What was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) whitelist: Whitelist,
    /// As others may see it.
    pub(crate) published: Map<String, serde_json::Value>,
    /// Remarkable things, for the log.
    pub(crate) notices: Vec<String>,
    pub(crate) sources: Sources,
}

/// Where it was read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Changes with the content of any of the files.
    pub(crate) digest: u64,
    /// How many drop-in files there were.
    pub(crate) drop_ins: usize,
    /// Folders in which a change may concern the whitelist.
    pub(crate) folders: Vec<PathBuf>,
}

/// Reads the drop-in files and puts everything together. `dir` is the configuration file's.
///
/// # Errors
/// File, line if it is known, and what is wrong.
pub(crate) fn read(settings: &Settings, file: Option<&Path>, dir: &Path) -> Result<Read> {
    let matching = match settings.get("whitelist_match") {
        None | Some(Value::Nil) => Matching::default(),
        Some(value) => Matching::from_value(value).map_err(|error| error.context(settings.name()))?,
    };
    let mut builder = match entries(settings, matching)? {
        Some(builder) => builder,
        // The original's default.
        None => {
            Whitelist::builder().matching(matching).entry(Key::Exact("chef-client".to_owned()), "chef-client")
        }
    };
    let mut notices = Vec::new();
    let mut digest = DefaultHasher::new();
    settings.digest().hash(&mut digest);
    let drop_ins = drop_ins(settings, dir, &mut notices)?;
    let mut files = Vec::new();
    if let Some(folder) = &drop_ins {
        files = list(folder)?;
        for path in &files {
            let settings = read_drop_in(path)?;
            (path, settings.digest()).hash(&mut digest);
            match entries(&settings, matching)? {
                Some(later) => builder = builder.followed_by(later),
                None => notices.push(format!("{} has no whitelist", settings.name())),
            }
        }
    }
    let published = whitelist::published_of(builder.clone());
    let whitelist = builder.build()?;
    notices.extend(whitelist.notices().iter().map(ToString::to_string));
    let folders = folders(file, drop_ins.as_deref(), &files);
    let sources = Sources { digest: digest.finish(), drop_ins: files.len(), folders };
    Ok(Read { whitelist, published, notices, sources })
}

/// The entries of one file; `None` when it has no whitelist.
fn entries(settings: &Settings, matching: Matching) -> Result<Option<Builder>> {
    match settings.get("whitelist") {
        None | Some(Value::Nil) => Ok(None),
        Some(value) => {
            let builder = Builder::from_value(value, matching).map_err(|e| e.context(settings.name()))?;
            let line = |key: &Value| settings.values().line_of("whitelist", key);
            Ok(Some(builder.placed(settings.name(), line)))
        }
    }
}

/// The drop-in directory, if there is one to look into.
fn drop_ins(settings: &Settings, dir: &Path, notices: &mut Vec<String>) -> Result<Option<PathBuf>> {
    match settings.get("whitelist_dir") {
        None | Some(Value::Nil) => Ok(Some(dir.join(DROP_INS))),
        Some(Value::Bool(false)) => Ok(None),
        Some(_) => {
            let folder = dir.join(settings.text("whitelist_dir")?.unwrap_or_default());
            if !folder.is_dir() {
                notices.push(format!("whitelist_dir {} is not there", folder.display()));
            }
            Ok(Some(folder))
        }
    }
}

fn invalid(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidConfig, format!("{}: {what}", path.display()))
}

/// The drop-in files, in the order of their names. Those of editors and packages, which begin with a dot or end
/// otherwise, are left out.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = match std::fs::read_dir(folder) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(invalid(folder, format!("cannot be read: {error}"))),
    };
    check_closed(folder)?;
    let mut files = Vec::new();
    for entry in read {
        let entry = entry.map_err(|error| invalid(folder, format!("cannot be read: {error}")))?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let known = path.extension().is_some_and(|extension| extension == "rb" || extension == "toml");
        if known && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_drop_in(path: &Path) -> Result<Settings> {
    check_closed(path)?;
    let settings = Settings::read(path)?;
    if let Some((key, _)) = settings.values().iter().find(|(key, _)| *key != "whitelist") {
        return Err(settings.bad(
            key,
            "has no meaning in a file of the whitelist's directory: write whitelist(…) and nothing else there",
        ));
    }
    Ok(settings)
}

/// Who can write here decides what runs, often as root.
fn check_closed(path: &Path) -> Result<()> {
    let mode = std::fs::metadata(path).map_err(|error| invalid(path, error))?.permissions().mode();
    if mode & 0o002 != 0 {
        return Err(invalid(path, "everybody can write to it, and so to the whitelist: chmod o-w it"));
    }
    Ok(())
}

/// The folders of all files, those behind symbolic links too, and of the drop-in directory itself.
fn folders(file: Option<&Path>, drop_ins: Option<&Path>, files: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut add = |path: &Path| {
        for path in [std::path::absolute(path).ok(), std::fs::canonicalize(path).ok()].into_iter().flatten() {
            folders.extend(path.parent().map(Path::to_owned));
        }
    };
    file.into_iter().for_each(&mut add);
    files.iter().for_each(|file| add(file));
    if let Some(drop_ins) = drop_ins {
        add(drop_ins);
        if drop_ins.is_dir() {
            folders.extend(std::path::absolute(drop_ins));
        }
    }
    folders.into_iter().collect()
}
