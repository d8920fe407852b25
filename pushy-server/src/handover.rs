//! Files to hand over: a private key with the configuration that goes with it.

use std::path::{Path, PathBuf};

use pushy_core::{Error, ErrorCode, Result};

use crate::files;

/// What the files have to say.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// URL of the REST API, without a path.
    pub(crate) api_url: String,
    /// The organization.
    pub(crate) org: String,
}

impl Target {
    fn chef_server_url(&self) -> String {
        format!("{}/organizations/{}", self.api_url, self.org)
    }
}

/// Text as a Ruby string literal in single quotes.
fn ruby(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Text as a TOML string.
fn toml(text: &str) -> String {
    // JSON's escapes of what is left after this are TOML's.
    serde_json::Value::from(text).to_string()
}

/// Refuses to overwrite.
///
/// # Errors
/// When there is something of that name.
pub(crate) fn must_be_new(path: &Path) -> Result<()> {
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::new(
            ErrorCode::Io,
            format!("{}: exists already; remove it or use --out", path.display()),
        ));
    }
    Ok(())
}

/// A node's files: `client.pem` (unless its key was made elsewhere) and `push-jobs-client.rb`. Answers the second's
/// path.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_node(dir: &Path, name: &str, private: Option<&str>, target: &Target) -> Result<PathBuf> {
    files::make_dir(dir)?;
    let key = match private {
        Some(private) => {
            files::write(&dir.join("client.pem"), private, true)?;
            "client_key File.join(__dir__, 'client.pem')"
        }
        None => "client_key '/etc/chef/client.pem'",
    };
    let text = format!(
        "# Configuration of the push jobs client of this node. Keep it beside its key.\n\
         chef_server_url {}\n\
         node_name {}\n\
         {key}\n\
         \n\
         # What this node may be told to run: 'name of the job' => 'command line'.\n\
         whitelist({{\n  'chef-client' => 'chef-client'\n}})\n",
        ruby(&target.chef_server_url()),
        ruby(name),
    );
    let path = dir.join("push-jobs-client.rb");
    files::write(&path, &text, false)?;
    Ok(path)
}

/// A user's `.chef`: `config.rb`, `credentials` and `NAME.pem` (unless the key was made elsewhere). Answers the path
/// of the first.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_user(dir: &Path, name: &str, private: Option<&str>, target: &Target) -> Result<PathBuf> {
    let chef = dir.join(".chef");
    files::make_dir(&chef)?;
    let key = format!("{name}.pem");
    if let Some(private) = private {
        files::write(&chef.join(&key), private, true)?;
    }
    let config = format!(
        "current_dir = File.dirname(__FILE__)\n\
         chef_server_url {}\n\
         node_name {}\n\
         client_key \"#{{current_dir}}/{key}\"\n",
        ruby(&target.chef_server_url()),
        ruby(name),
    );
    let absolute = std::path::absolute(chef.join(&key)).map_err(|e| files::io(&chef, &e))?;
    let credentials = format!(
        "[default]\nchef_server_url = {}\nclient_name = {}\nclient_key = {}\n",
        toml(&target.chef_server_url()),
        toml(name),
        toml(&absolute.display().to_string()),
    );
    files::write(&chef.join("credentials"), &credentials, false)?;
    let path = chef.join("config.rb");
    files::write(&path, &config, false)?;
    Ok(path)
}
