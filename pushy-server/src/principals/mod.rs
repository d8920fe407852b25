//! Who signs, who belongs and what groups say, whoever knows it: one question, two sources.
//!
//! Either the server's own directory, which answers from memory, or a Chef Infra Server (3.2), which is asked over HTTP.
//! The REST API knows this module only; what a rule means (3.3) is decided by the source, which knows its groups.

mod answers;
mod ask;
mod cache;
mod chef;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use pushy_core::auth::AuthError;
use pushy_core::ids::{OrgId, OrgName};

pub use cache::{Clock, system_clock};
pub use chef::{Chef, Hooks};

use crate::config::ChefServer;
use crate::directory::{Change, Directory, Kind, Principal};
use crate::store::Store;

/// An organization: its name in paths, its GUID in tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrgRef {
    /// Its name.
    pub name: OrgName,
    /// Its GUID.
    pub id: OrgId,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look at jobs and nodes.
    Read,
    /// Start jobs.
    Write,
}

/// Who a name may be in an organization.
#[derive(Debug, Clone)]
pub struct Found {
    /// The organization.
    pub org: OrgRef,
    /// Whether anybody has the name, member or not.
    pub known: bool,
    /// Those who belong to the organization, in the order their keys are tried (3.2, chef-auth 6.3).
    pub members: Vec<Arc<Principal>>,
}

/// Why a question got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// The answer is no (2.3).
    Refused(AuthError),
    /// The Chef server cannot be asked or says what cannot be understood (502, D-37).
    BadGateway(String),
    /// It takes too long or is overloaded (503, D-37).
    Unavailable(String),
}

impl From<AuthError> for Unanswered {
    fn from(error: AuthError) -> Unanswered {
        Unanswered::Refused(error)
    }
}

/// Who knows who is who.
#[derive(Debug, Clone)]
pub enum Principals {
    /// The server itself.
    Directory(Arc<RwLock<Directory>>),
    /// A Chef server.
    Chef(Arc<Chef>),
}

fn read(directory: &RwLock<Directory>) -> RwLockReadGuard<'_, Directory> {
    // A panic while the directory was changed leaves it as consistent as single changes are.
    directory.read().unwrap_or_else(PoisonError::into_inner)
}

impl Principals {
    /// The source that the settings name. An organization that only the settings know is stored.
    ///
    /// # Errors
    /// When the Chef server's settings cannot be used, or the store fails.
    pub async fn start(
        chef: Option<&ChefServer>,
        directory: Arc<RwLock<Directory>>,
        store: &dyn Store,
        hooks: Hooks,
    ) -> pushy_core::Result<Principals> {
        let Some(chef) = chef else { return Ok(Principals::Directory(directory)) };
        let source = match &chef.organization {
            None => Chef::with_organizations(chef, system_clock(), hooks)?,
            Some(name) => {
                let known = read(&directory).org(name.as_str()).map(|org| org.id.clone());
                let id = match known {
                    Some(id) => id,
                    None => {
                        let id = OrgId::generate(&mut rand_core::OsRng);
                        let change = Change::AddOrg { name: name.clone(), id: id.clone() };
                        store.change_directory(vec![change.clone()]).await?;
                        directory.write().unwrap_or_else(PoisonError::into_inner).apply(change);
                        id
                    }
                };
                let org = OrgRef { name: name.clone(), id };
                Chef::without_organizations(chef, (org, directory), system_clock(), hooks)?
            }
        };
        Ok(Principals::Chef(Arc::new(source)))
    }

    /// The server's own directory, unless a Chef server is asked: then nodes and search are that server's too.
    pub fn directory(&self) -> Option<&Arc<RwLock<Directory>>> {
        match self {
            Principals::Directory(directory) => Some(directory),
            Principals::Chef(_) => None,
        }
    }

    /// Who may have signed as `name` in an organization.
    ///
    /// # Errors
    /// When there is no such organization, or nobody can say.
    pub async fn look_up(&self, org: &str, name: &str) -> Result<Found, Unanswered> {
        match self {
            Principals::Directory(directory) => {
                let directory = read(directory);
                let Some((org_name, found)) = directory.named_org(org) else {
                    return Err(AuthError::UnknownOrganization { org: org.to_owned() }.into());
                };
                let org = OrgRef { name: org_name.clone(), id: found.id.clone() };
                let all = directory.principals(org.name.as_str(), name);
                let known = !all.is_empty();
                let members = all.into_iter().filter(|(_, member)| *member).map(|(who, _)| who).collect();
                Ok(Found { org, known, members })
            }
            Principals::Chef(chef) => chef.look_up(org, name).await,
        }
    }

    /// Whether the rules of the organization allow somebody who belongs to it an action (3.3).
    ///
    /// # Errors
    /// When nobody can say.
    pub async fn allows(
        &self,
        org: &OrgRef,
        kind: Kind,
        name: &str,
        action: Action,
    ) -> Result<bool, Unanswered> {
        match self {
            Principals::Directory(directory) => {
                Ok(read(directory).org(org.name.as_str()).is_some_and(|org| match action {
                    Action::Read => org.may_read(kind, name),
                    Action::Write => org.may_write(kind, name),
                }))
            }
            Principals::Chef(chef) => chef.allows(org, kind, name, action).await,
        }
    }

    /// Those of the organizations with these GUIDs to which a user of this name belongs, if the request is `signed` by that
    /// user. Nothing where nobody can say. A name or signature that does not fit costs one question.
    pub async fn organizations_of_user(
        &self,
        name: &str,
        wanted: impl Fn(&OrgId) -> bool,
        signed: impl Fn(&Arc<Principal>) -> bool,
    ) -> Vec<OrgId> {
        match self {
            Principals::Directory(directory) => {
                let directory = read(directory);
                if !directory.user(name).is_some_and(&signed) {
                    return Vec::new();
                }
                let theirs = directory.orgs().filter(|(_, org)| org.users.contains(name) && wanted(&org.id));
                theirs.map(|(_, org)| org.id.clone()).collect()
            }
            Principals::Chef(chef) => chef.organizations_of_user(name, wanted, signed).await,
        }
    }
}
