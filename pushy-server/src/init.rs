//! `pushy-server init`: a directory from which a server can run at once.

use std::path::Path;
use std::sync::{Arc, RwLock};

use pushy_core::{Error, ErrorCode, Result};

use crate::admin::{Admin, Command, NewKey};
use crate::config::{self, Config};
use crate::directory::Directory;
use crate::handover::{self, Target};
use crate::keys::{self, Keys};
use crate::store::{Options, SqliteStore, Store};
use crate::{DATABASE, files};

/// What `init` was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Init {
    /// The first organization.
    pub(crate) org: String,
    /// Its first administrator.
    pub(crate) admin: String,
    /// Lines of `server.toml` that differ from the defaults.
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// Makes keys, database, organization, administrator and `server.toml`. Answers the path of the administrator's
/// `config.rb`.
///
/// # Errors
/// When the directory is not empty or cannot be written, or a name or setting is invalid.
pub(crate) async fn init(dir: &Path, init: &Init) -> Result<std::path::PathBuf> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Error::new(
                    ErrorCode::InvalidState,
                    format!("{}: not empty; give a new or empty directory", dir.display()),
                ));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(files::io(dir, &e)),
    }
    // Everything that can be refused is looked at before the first file is written.
    let template = Config::template(&init.settings);
    let config = Config::parse(dir, config::FILE, &template)?;
    let (private, public_key) = keys::new_rsa_pair()?;
    let admin = Command::UserAdd {
        org: Some(init.org.clone()),
        user: NewKey { name: init.admin.clone(), public_key },
        admin: true,
    };
    files::make_dir(dir)?;
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(|e| files::io(dir, &e))?;
    let made = fill(dir, init, &config, &template, admin, &private).await;
    if made.is_err() {
        // A half-made directory would only be refused by the next attempt.
        for name in [DATABASE, keys::FILE, config::FILE] {
            let _ = std::fs::remove_file(dir.join(name));
        }
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.join(format!("{DATABASE}{suffix}")));
        }
    }
    made
}

async fn fill(
    dir: &Path,
    init: &Init,
    config: &Config,
    template: &str,
    admin: Command,
    private: &str,
) -> Result<std::path::PathBuf> {
    let database = dir.join(DATABASE);
    SqliteStore::create(&database)?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&database, Options::default(), Box::new(|_| {}))?);
    let operator = Admin {
        directory: Arc::new(RwLock::new(Directory::default())),
        store: Arc::clone(&store),
        driver: None,
        api_url: None,
        about: serde_json::Value::Null,
    };
    operator.execute(Command::OrgAdd { name: init.org.clone() }).await?;
    operator.execute(admin).await?;
    Keys::generate(&store.identity()?)?.save(dir)?;
    store.close();
    let target = Target { api_url: config.api_url(config.api_listen.port()), org: init.org.clone() };
    let knife = handover::write_user(&dir.join("admin"), &init.admin, Some(private), &target)?;
    // The settings come last: a directory without them is not taken for a server's.
    files::write(&dir.join(config::FILE), template, false)?;
    Ok(knife)
}
