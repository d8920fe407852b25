//! A Chef Infra Server that knows who is who (3.2), and one without organizations in its URLs (goiardi, decision 33),
//! which knows users and clients while organization and groups are the server's own.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use pushy_core::api::escape_segment;
use pushy_core::auth::AuthError;
use pushy_core::ids::{MAX_NAME, NodeName, NodeRef, OrgId, OrgName};

use super::answers::{self, Group, Names};
use super::ask::Asker;
use super::cache::{Cache, Clock};
use super::{Action, Found, OrgRef, Unanswered, read};
use crate::config::ChefServer;
use crate::directory::{ADMINS, Directory, Kind, Principal, READERS, WRITERS};

/// A GUID is believed for so long; it changes only when an organization is removed and made again.
const ORG_LIFETIME: Duration = Duration::from_secs(60);
/// "There is none" and "cannot be asked" are believed for so long.
const NEGATIVE_LIFETIME: Duration = Duration::from_secs(1);
/// Answers kept about names and about groups.
const MOST_ANSWERS: usize = 10_000;
/// Groups looked into for one question.
const MOST_GROUPS: usize = 1_000;
/// Organizations that `_status` looks at for one user.
const MOST_ORGS: usize = 16;

/// What is done about what the Chef server says.
pub struct Hooks {
    /// A node is gone.
    pub on_gone: Box<dyn Fn(NodeRef) + Send + Sync>,
    /// A question has left: whether the Chef server answered it, whatever it said.
    pub on_heard: Box<dyn Fn(bool) + Send + Sync>,
}

/// Where organizations and groups are.
enum Groups {
    /// With the Chef server.
    Chef,
    /// Here: one organization, and the server's own groups.
    Own { org: OrgRef, directory: Arc<RwLock<Directory>> },
}

/// The source.
pub struct Chef {
    asker: Asker,
    groups_are: Groups,
    principal_lifetime: Duration,
    group_lifetime: Duration,
    orgs: Cache<Option<OrgRef>>,
    names: Cache<Arc<Names>>,
    groups: Cache<Option<Arc<Group>>>,
    admins: Cache<bool>,
    on_gone: Box<dyn Fn(NodeRef) + Send + Sync>,
}

impl std::fmt::Debug for Chef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chef")
    }
}

/// Whether anybody can have this name; what cannot be one is not put into a URL.
fn can_be_a_name(name: &str) -> bool {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "/\\?#%".contains(c);
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(odd) && !name.bytes().all(|b| b == b'.')
}

impl Chef {
    /// A source for a Chef server with organizations.
    ///
    /// # Errors
    /// When the key or a certificate cannot be used.
    pub fn with_organizations(chef: &ChefServer, clock: Clock, hooks: Hooks) -> pushy_core::Result<Chef> {
        Chef::new(chef, Groups::Chef, clock, hooks)
    }

    /// A source for a Chef server without organizations: everybody there belongs to `org`, whose groups are in `directory`.
    ///
    /// # Errors
    /// As [`Chef::with_organizations`].
    pub fn without_organizations(
        chef: &ChefServer,
        (org, directory): (OrgRef, Arc<RwLock<Directory>>),
        clock: Clock,
        hooks: Hooks,
    ) -> pushy_core::Result<Chef> {
        Chef::new(chef, Groups::Own { org, directory }, clock, hooks)
    }

    fn new(chef: &ChefServer, groups_are: Groups, clock: Clock, hooks: Hooks) -> pushy_core::Result<Chef> {
        let most = |lifetime: Duration| if lifetime.is_zero() { 0 } else { MOST_ANSWERS };
        let (of_names, of_groups) = (most(chef.principal_cache), most(chef.group_cache));
        Ok(Chef {
            asker: Asker::new(chef, hooks.on_heard)?,
            groups_are,
            principal_lifetime: chef.principal_cache,
            group_lifetime: chef.group_cache,
            orgs: Cache::new(Arc::clone(&clock), of_names),
            names: Cache::new(Arc::clone(&clock), of_names),
            groups: Cache::new(Arc::clone(&clock), of_groups),
            admins: Cache::new(clock, of_groups),
            on_gone: hooks.on_gone,
        })
    }

    /// As [`super::Principals::look_up`].
    pub(super) async fn look_up(&self, org: &str, name: &str) -> Result<Found, Unanswered> {
        let unknown_org = || Unanswered::Refused(AuthError::UnknownOrganization { org: org.to_owned() });
        let unknown = || Unanswered::Refused(AuthError::UnknownPrincipal { user: name.to_owned() });
        let org_name = OrgName::new(org).map_err(|_| unknown_org())?;
        let found = self.org(&org_name).await?;
        if found.is_none() && matches!(self.groups_are, Groups::Own { .. }) {
            return Err(unknown_org());
        }
        if !can_be_a_name(name) {
            return Err(unknown());
        }
        let names = self.names(&org_name, found.as_ref(), name).await?;
        match (&*names, found) {
            (Names::NoOrganization, _) => {
                self.orgs.forget(org);
                Err(unknown_org())
            }
            (Names::Nobody, _) => Err(unknown()),
            (Names::Somebody { members, .. }, Some(org)) => {
                Ok(Found { org, known: true, members: members.clone() })
            }
            (Names::Somebody { members, .. }, None) if members.is_empty() => {
                Err(AuthError::NotAssociated { user: name.to_owned(), org: org.to_owned() }.into())
            }
            (Names::Somebody { .. }, None) => Err(Unanswered::BadGateway(format!(
                "the Chef server knows '{name}' in organization '{org}', but not the organization"
            ))),
        }
    }

    async fn org(&self, org: &OrgName) -> Result<Option<OrgRef>, Unanswered> {
        if let Groups::Own { org: own, .. } = &self.groups_are {
            return Ok((own.name == *org).then(|| own.clone()));
        }
        let ask = || async {
            let what = format!("organization '{org}'");
            let path = format!("organizations/{org}");
            let id = self.asker.ask(&what, &path, answers::organization).await?;
            Ok(id.map(|id| OrgRef { name: org.clone(), id }))
        };
        let lifetime = |answer: &Result<Option<OrgRef>, _>| match answer {
            Ok(Some(_)) => ORG_LIFETIME,
            // "Not found" is not kept (3.2): the principal's answer decides, and is.
            Ok(_) => Duration::ZERO,
            Err(_) => NEGATIVE_LIFETIME.min(self.principal_lifetime),
        };
        self.orgs.get(org.as_str(), lifetime, ask).await
    }

    async fn names(
        &self,
        org: &OrgName,
        found: Option<&OrgRef>,
        name: &str,
    ) -> Result<Arc<Names>, Unanswered> {
        let ask = || async {
            let what = format!("client or user '{name}' of organization '{org}'");
            let name_part = escape_segment(name);
            let names = match self.groups_are {
                Groups::Chef => {
                    let path = format!("organizations/{org}/principals/{name_part}");
                    self.asker.ask(&what, &path, |d| answers::principals(name, d)).await?
                }
                Groups::Own { .. } => {
                    let path = format!("principals/{name_part}");
                    self.asker.ask(&what, &path, |d| answers::principal_without_org(name, d)).await?
                }
            };
            // Bindings end when the Chef server says that the node is gone (decision 6), not when it cannot be asked.
            let gone = !matches!(names, Names::Somebody { client: true, .. });
            if let (true, Some(org), Ok(node)) = (gone, found, NodeName::new(name)) {
                (self.on_gone)(NodeRef { org: org.id.clone(), node });
            }
            Ok(Arc::new(names))
        };
        let lifetime = |answer: &Result<Arc<Names>, _>| match answer.as_deref() {
            Ok(Names::Somebody { .. }) => self.principal_lifetime,
            Ok(Names::NoOrganization | Names::Nobody) | Err(_) => {
                NEGATIVE_LIFETIME.min(self.principal_lifetime)
            }
        };
        self.names.get(&format!("{org}/{name}"), lifetime, ask).await
    }

    /// As [`super::Principals::allows`].
    pub(super) async fn allows(
        &self,
        org: &OrgRef,
        kind: Kind,
        name: &str,
        action: Action,
    ) -> Result<bool, Unanswered> {
        if let Groups::Own { directory, .. } = &self.groups_are {
            let own = {
                let directory = read(directory);
                let group = if action == Action::Read { READERS } else { WRITERS };
                directory.org(org.name.as_str()).and_then(|org| org.is_member(group, kind, name))
            };
            return match (own, action, kind) {
                (Some(member), _, _) => Ok(member),
                (None, Action::Read, _) => Ok(true),
                (None, Action::Write, Kind::Client) => Ok(false),
                (None, Action::Write, Kind::User) => self.is_admin(name).await,
            };
        }
        match action {
            Action::Read => Ok(self.is_member(&org.name, READERS, kind, name).await?.unwrap_or(true)),
            Action::Write => match self.is_member(&org.name, WRITERS, kind, name).await? {
                Some(member) => Ok(member),
                None => Ok(self.is_member(&org.name, ADMINS, kind, name).await?.unwrap_or(false)),
            },
        }
    }

    /// Whether somebody is in a group or in one within it; `None`: there is no such group (3.3). A group that cannot be
    /// asked for matters only when none of the others holds the name.
    async fn is_member(
        &self,
        org: &OrgName,
        group: &str,
        kind: Kind,
        name: &str,
    ) -> Result<Option<bool>, Unanswered> {
        let Some(first) = self.group(org, group).await? else { return Ok(None) };
        // Each group is visited once, so that a cycle ends (D-36).
        let mut visited = HashSet::from([group.to_owned()]);
        let mut todo = first.groups.clone();
        if first.has(kind, name) {
            return Ok(Some(true));
        }
        let mut trouble = None;
        while let Some(name_of_next) = todo.pop() {
            if !visited.insert(name_of_next.clone()) {
                continue;
            }
            if visited.len() > MOST_GROUPS {
                let text = format!("more than {MOST_GROUPS} groups within groups in organization '{org}'");
                return Err(Unanswered::BadGateway(text));
            }
            match self.group(org, &name_of_next).await {
                Ok(Some(next)) if next.has(kind, name) => return Ok(Some(true)),
                Ok(Some(next)) => todo.extend(next.groups.iter().cloned()),
                Ok(None) => {}
                Err(why) => trouble = trouble.or(Some(why)),
            }
        }
        trouble.map_or(Ok(Some(false)), Err)
    }

    async fn group(&self, org: &OrgName, group: &str) -> Result<Option<Arc<Group>>, Unanswered> {
        let ask = || async {
            let what = format!("group '{group}' of organization '{org}'");
            let path = format!("organizations/{org}/groups/{}", escape_segment(group));
            Ok(self.asker.ask(&what, &path, answers::group).await?.map(Arc::new))
        };
        let lifetime = |answer: &Result<Option<Arc<Group>>, _>| match answer {
            Ok(Some(_)) => self.group_lifetime,
            Ok(None) | Err(_) => NEGATIVE_LIFETIME.min(self.group_lifetime),
        };
        self.groups.get(&format!("{org}/{group}"), lifetime, ask).await
    }

    async fn is_admin(&self, name: &str) -> Result<bool, Unanswered> {
        let ask = || async {
            let what = format!("user '{name}'");
            let path = format!("users/{}", escape_segment(name));
            self.asker.ask(&what, &path, answers::is_admin).await
        };
        let lifetime = |answer: &Result<bool, _>| match answer {
            Ok(true) => self.group_lifetime,
            Ok(false) | Err(_) => NEGATIVE_LIFETIME.min(self.group_lifetime),
        };
        self.admins.get(name, lifetime, ask).await
    }

    /// As [`super::Principals::organizations_of_user`], of the organizations that somebody has asked for lately.
    pub(super) async fn organizations_of_user(
        &self,
        name: &str,
        wanted: impl Fn(&OrgId) -> bool,
        signed: impl Fn(&Arc<Principal>) -> bool,
    ) -> Vec<OrgId> {
        let mut known = match &self.groups_are {
            Groups::Own { org, .. } => vec![org.clone()],
            Groups::Chef => self.orgs.known().into_iter().flatten().collect(),
        };
        known.retain(|org| wanted(&org.id));
        known.truncate(MOST_ORGS);
        let mut theirs = Vec::new();
        for org in known {
            let found = match self.look_up(org.name.as_str(), name).await {
                Ok(found) => found,
                // Nobody anywhere has this name.
                Err(Unanswered::Refused(AuthError::UnknownPrincipal { .. })) => break,
                Err(_) => continue,
            };
            match found.members.iter().find(|who| who.kind == Kind::User) {
                Some(user) if signed(user) => theirs.push(found.org.id),
                // In every organization the user's keys are the same.
                Some(_) => break,
                None => {}
            }
        }
        theirs
    }
}
