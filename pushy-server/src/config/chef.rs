//! The settings about a Chef server that knows who is who.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pushy_core::auth::SigningKey;
use pushy_core::ids::OrgName;
use pushy_core::{Error, ErrorCode, Result};

use super::reader::Reader;

/// How to ask a Chef server, and what to believe of it for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct ChefServer {
    /// Its root, without `/organizations/ORG`.
    pub url: String,
    /// The organization that stands for the whole of a server without organizations in its URLs (decision 33).
    pub organization: Option<OrgName>,
    /// The user or client that requests are signed as (decision 43: an ordinary one is enough).
    pub client_name: String,
    /// Its private key.
    pub client_key: PathBuf,
    /// PEM bundle in place of the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// Whether its certificate is checked.
    pub verify: bool,
    /// Bound on each question.
    pub timeout: Duration,
    /// A principal is believed for so long; zero: not at all.
    pub principal_cache: Duration,
    /// A group is believed for so long; zero: not at all.
    pub group_cache: Duration,
}

impl ChefServer {
    /// Settings with defaults.
    pub fn new(url: &str, client_name: &str, client_key: &Path) -> ChefServer {
        ChefServer {
            url: url.to_owned(),
            organization: None,
            client_name: client_name.to_owned(),
            client_key: client_key.to_owned(),
            ca_file: None,
            verify: true,
            timeout: Duration::from_secs(5),
            principal_cache: Duration::from_secs(5),
            group_cache: Duration::from_secs(15),
        }
    }

    /// The key requests are signed with.
    ///
    /// # Errors
    /// When the file cannot be read or holds no private key; its content is not shown.
    pub fn read_key(&self) -> Result<SigningKey> {
        let about = |e: Error| e.context(format!("chef_client_key {}", self.client_key.display()));
        let text = std::fs::read(&self.client_key)
            .map_err(|e| about(Error::new(ErrorCode::InvalidConfig, e.kind().to_string())))?;
        SigningKey::from_pem(&text).map_err(about)
    }

    pub(super) fn read(r: &mut Reader<'_>, dir: &Path) -> Result<Option<ChefServer>> {
        let url = r.url("chef_server_url")?;
        let organizations = r.boolean("chef_organizations", true)?;
        let organization = r.text("chef_organization")?;
        let client_name = r.text("chef_client_name")?;
        let client_key = r.text("chef_client_key")?;
        let ca_file = r.text("chef_ca_file")?;
        let verify = r.boolean("chef_verify", true)?;
        let timeout = r.seconds("chef_timeout", 0.1, 60.0, 5.0)?;
        let principal_cache = r.seconds("chef_principal_cache", 0.0, 5.0, 5.0)?;
        let group_cache = r.seconds("chef_group_cache", 0.0, 15.0, 15.0)?;
        let Some(url) = url else {
            let given = ["chef_organization", "chef_client_name", "chef_client_key", "chef_ca_file"];
            return match given.into_iter().find(|name| r.has(name)) {
                Some(name) => Err(r.error(name, "needs `chef_server_url` beside it")),
                None => Ok(None),
            };
        };
        if url.contains("/organizations/") {
            return Err(
                r.error("chef_server_url", "is the root of the Chef server, without /organizations/ORG")
            );
        }
        let (Some(client_name), Some(client_key)) = (client_name, client_key) else {
            return Err(
                r.error("chef_server_url", "needs `chef_client_name` and `chef_client_key` beside it")
            );
        };
        let organization = match (organizations, organization) {
            (true, None) => None,
            (true, Some(_)) => {
                return Err(r.error("chef_organization", "is only for `chef_organizations = false`"));
            }
            (false, None) => {
                return Err(r.error("chef_organizations", "needs `chef_organization = \"NAME\"` beside it"));
            }
            (false, Some(name)) => {
                Some(OrgName::new(&name).map_err(|_| {
                    r.error("chef_organization", "must be lower-case letters, digits, - and _")
                })?)
            }
        };
        Ok(Some(ChefServer {
            url: url.trim_end_matches('/').to_owned(),
            organization,
            client_name,
            client_key: dir.join(client_key),
            ca_file: ca_file.map(|file| dir.join(file)),
            verify,
            timeout,
            principal_cache,
            group_cache,
        }))
    }
}
