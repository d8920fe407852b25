//! `pushy-server init`: a directory from which a server can run at once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use clap::Args;
use pushy_core::auth::SigningKey;
use pushy_core::ids::OrgName;
use pushy_core::{Error, ErrorCode, Result};

use crate::admin::{Admin, Command, NewKey, check_name};
use crate::config::{self, Config};
use crate::directory::Directory;
use crate::handover::{self, Target};
use crate::keys::{self, Keys};
use crate::store::{Options, Place};
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
pub(crate) async fn init(dir: &Path, init: &Init) -> Result<PathBuf> {
    must_be_empty(dir)?;
    // Everything that can be refused is looked at before the first file, or a database elsewhere, is written.
    OrgName::new(&init.org)?;
    check_name("user", &init.admin)?;
    let template = Config::template(&init.settings);
    let config = Config::parse(dir, config::FILE, &template)?;
    let (private, public_key) = keys::new_rsa_pair()?;
    let admin = Command::UserAdd {
        org: Some(init.org.clone()),
        user: NewKey { name: init.admin.clone(), public_key },
        admin: true,
    };
    make_dir(dir)?;
    let made = fill(dir, init, &config, &template, admin, &private).await;
    if made.is_err() {
        unmake(dir);
    }
    made
}

pub(crate) fn must_be_empty(dir: &Path) -> Result<()> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(Error::new(
                ErrorCode::InvalidState,
                format!("{}: not empty; give a new or empty directory", dir.display()),
            )),
            None => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(files::io(dir, &e)),
    }
}

pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    files::make_dir(dir)?;
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(|e| files::io(dir, &e))
}

/// A half-made directory would only be refused by the next attempt.
pub(crate) fn unmake(dir: &Path) {
    for name in [DATABASE, keys::FILE, config::FILE, CHEF_KEY] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.join(format!("{DATABASE}{suffix}")));
    }
}

/// The copy of the key that questions to a Chef server are signed with.
const CHEF_KEY: &str = "chef.pem";

/// A server in front of a Chef server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChefArgs {
    /// Take users, clients, organizations and groups from this Chef server: its root, without /organizations/ORG
    #[arg(long, value_name = "URL", requires_all = ["chef_client_name", "chef_client_key"])]
    chef_server_url: Option<String>,
    /// User or client of the Chef server to ask as; it must be able to read the groups
    #[arg(long, value_name = "NAME", requires = "chef_server_url")]
    chef_client_name: Option<String>,
    /// Its private key; copied
    #[arg(long, value_name = "FILE", requires = "chef_server_url")]
    chef_client_key: Option<PathBuf>,
    /// The Chef server has no organizations in its URLs (goiardi): serve it as this one
    #[arg(long, value_name = "NAME", requires = "chef_server_url")]
    chef_organization: Option<String>,
}

impl ChefArgs {
    /// Whether a Chef server is wanted.
    pub(crate) fn given(&self) -> bool {
        self.chef_server_url.is_some()
    }
}

/// Makes keys, database and `server.toml` of a server that asks a Chef server who is who.
///
/// # Errors
/// As [`init`]; besides, when the key cannot be used.
pub(crate) async fn in_front_of_chef(
    out: &mut dyn Write,
    dir: &Path,
    mut settings: Vec<(&'static str, String)>,
    chef: &ChefArgs,
) -> Result<()> {
    must_be_empty(dir)?;
    let text = |value: &String| serde_json::Value::from(value.as_str()).to_string();
    let mut set = |name, value: Option<String>| settings.extend(value.map(|v| (name, v)));
    set("chef_server_url", chef.chef_server_url.as_ref().map(text));
    set("chef_client_name", chef.chef_client_name.as_ref().map(text));
    set("chef_client_key", Some(text(&CHEF_KEY.to_owned())));
    set("chef_organizations", chef.chef_organization.as_ref().map(|_| "false".into()));
    set("chef_organization", chef.chef_organization.as_ref().map(text));
    let template = Config::template(&settings);
    let config = Config::parse(dir, config::FILE, &template)?;
    let from = chef.chef_client_key.clone().unwrap_or_default();
    let key = std::fs::read_to_string(&from).map_err(|e| files::io(&from, &e))?;
    SigningKey::from_pem(&key).map_err(|e| e.context(from.display()))?;
    make_dir(dir)?;
    let made = fill_for_chef(dir, &config, &template, &key);
    if made.is_err() {
        unmake(dir);
    }
    made?;
    let d = dir.display();
    // A reader that has gone away is no failure.
    let _ = writeln!(out, "Made a push server in front of a Chef server in {d}.");
    let _ = writeln!(out, "  start it:    pushy-server run {d}");
    let _ = writeln!(out, "  settings:    {d}/{} (chef_ca_file, chef_timeout and more)", config::FILE);
    Ok(())
}

fn fill_for_chef(dir: &Path, config: &Config, template: &str, key: &str) -> Result<()> {
    config.database.create()?;
    let store = config.database.open(Options::default(), Box::new(|_| {}))?;
    let keys = store.identity().and_then(|identity| Keys::generate(&identity));
    store.close();
    keys?.save(dir)?;
    files::write(&dir.join(CHEF_KEY), key, true)?;
    files::write(&dir.join(config::FILE), template, matches!(config.database, Place::Postgres(_)))
}

async fn fill(
    dir: &Path,
    init: &Init,
    config: &Config,
    template: &str,
    admin: Command,
    private: &str,
) -> Result<PathBuf> {
    config.database.create()?;
    let store = config.database.open(Options::default(), Box::new(|_| {}))?;
    let operator = Admin {
        directory: Arc::new(RwLock::new(Directory::default())),
        store: Arc::clone(&store),
        driver: None,
        api_url: None,
        about: serde_json::Value::Null,
        chef: None,
        ops: Arc::default(),
        drain_timeout: std::time::Duration::ZERO,
        reload: None,
    };
    operator.execute(Command::OrgAdd { name: init.org.clone() }).await?;
    operator.execute(admin).await?;
    Keys::generate(&store.identity()?)?.save(dir)?;
    store.close();
    let target = Target { api_url: config.api_url(config.api_listen.port()), org: init.org.clone() };
    let knife = handover::write_user(&dir.join("admin"), &init.admin, Some(private), &target)?;
    // The settings come last: a directory without them is not taken for a server's.
    files::write(&dir.join(config::FILE), template, matches!(config.database, Place::Postgres(_)))?;
    Ok(knife)
}
