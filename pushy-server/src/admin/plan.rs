//! An operator's command as changes of the directory.

use std::sync::Arc;

use pushy_core::ids::{NodeName, NodeRef, OrgId, OrgName};
use pushy_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use super::groups::{find_member, known_group};
use super::{Command, NewKey, check_name, elsewhere, missing, not_running, refused};
use crate::directory::{ADMINS, Change, Directory, Kind, Member, Org, PrincipalId};
use crate::keys;

/// A command being turned into changes, against the directory as it is.
pub(super) struct Plan<'a> {
    pub(super) directory: &'a Directory,
    /// Whether members of groups are known elsewhere.
    pub(super) foreign: bool,
    pub(super) changes: Vec<Change>,
    pub(super) ended: Vec<(NodeRef, &'static str)>,
}

impl<'a> Plan<'a> {
    pub(super) fn make(&mut self, command: Command, api_url: Option<&str>) -> Result<Value> {
        match command {
            Command::Status | Command::Drain { .. } | Command::Reload | Command::Warnings => {
                return Err(not_running());
            }
            Command::Describe { org } => {
                let (name, _) = self.org(org.as_deref())?;
                let url = api_url.ok_or_else(|| {
                    Error::new(
                        ErrorCode::InvalidState,
                        "the port of the REST API is known only while the server runs; start it first",
                    )
                })?;
                return Ok(json!({ "org": name.as_str(), "api_url": url }));
            }
            Command::OrgAdd { name } => {
                let name = OrgName::new(&name).map_err(|e| refused(e.message().to_owned()))?;
                if self.directory.org(name.as_str()).is_some() {
                    return Err(refused(format!("organization '{name}' exists already")));
                }
                let id = OrgId::generate(&mut rand_core::OsRng);
                self.changes.push(Change::AddOrg { name: name.clone(), id });
                self.changes.push(Change::AddGroup { org: name, group: ADMINS.into() });
            }
            Command::OrgRemove { name } => {
                let (name, org) = self.org(Some(&name))?;
                for client in org.clients.keys() {
                    self.end(org, client, "its organization was removed");
                }
                self.changes.push(Change::RemoveOrg { name });
            }
            Command::OrgList => {
                let list = |(name, org): (&OrgName, &Org)| {
                    json!({ "name": name.as_str(), "id": org.id.as_str(),
                            "users": org.users.len(), "nodes": org.clients.len() })
                };
                return Ok(self.directory.orgs().map(list).collect());
            }
            Command::OrgAddUser { org, user } => {
                let (org, _) = self.org(org.as_deref())?;
                self.known_user(&user)?;
                self.changes.push(Change::Associate { org, user });
            }
            Command::OrgRemoveUser { org, user } => {
                let (name, org) = self.org(org.as_deref())?;
                if !org.users.contains(&user) {
                    return Err(missing(format!("user '{user}' is not in organization '{name}'")));
                }
                self.changes.push(Change::Dissociate { org: name, user });
            }
            Command::UserAdd { org, user, admin } => self.add_user(org.as_deref(), user, admin)?,
            Command::UserRemove { name } => {
                self.known_user(&name)?;
                self.changes.push(Change::RemovePrincipal { id: PrincipalId { org: None, name } });
            }
            Command::UserRekey { user } => {
                self.known_user(&user.name)?;
                self.put(None, user)?;
            }
            Command::UserList => {
                let list = |user: &Arc<crate::directory::Principal>| {
                    let orgs = self.directory.orgs().filter(|(_, org)| org.users.contains(&user.name));
                    let admin = |org: &Org| org.is_member(ADMINS, Kind::User, &user.name) == Some(true);
                    let orgs: Vec<Value> = orgs
                        .map(|(name, org)| json!({ "name": name.as_str(), "admin": admin(org) }))
                        .collect();
                    json!({ "name": user.name, "orgs": orgs })
                };
                return Ok(self.directory.users().map(list).collect());
            }
            Command::NodeAdd { org, nodes } => self.add_nodes(org.as_deref(), nodes)?,
            Command::NodeRemove { org, names } => {
                let (org_name, org) = self.org(org.as_deref())?;
                for name in names {
                    self.known_node(&org_name, org, &name)?;
                    self.end(org, &name, "it was removed");
                    let id = PrincipalId { org: Some(org_name.clone()), name };
                    self.changes.push(Change::RemovePrincipal { id });
                }
            }
            Command::NodeRekey { org, node } => {
                let (org_name, org) = self.org(org.as_deref())?;
                self.known_node(&org_name, org, &node.name)?;
                self.end(org, &node.name, "it has a new key");
                self.put(Some(org_name), node)?;
            }
            Command::NodeList { org } => {
                let (_, org) = self.org(org.as_deref())?;
                let mut names: Vec<&String> = org.clients.keys().collect();
                names.sort();
                return Ok(json!(names));
            }
            Command::NodeSet { org, names, fields } => self.fix_nodes(org.as_deref(), &names, &fields)?,
            Command::NodeShow { org, name } => return self.show_node(org.as_deref(), &name),
            Command::GroupAdd { org, group } => {
                let (org_name, org) = self.org(org.as_deref())?;
                check_name("group", &group)?;
                if org.groups.contains_key(&group) {
                    return Err(refused(format!("group '{group}' exists already")));
                }
                self.changes.push(Change::AddGroup { org: org_name, group });
            }
            Command::GroupRemove { org, group } => {
                let (org_name, org) = self.org(org.as_deref())?;
                known_group(org, &group)?;
                self.changes.push(Change::RemoveGroup { org: org_name, group });
            }
            Command::GroupList { org } => {
                let (_, org) = self.org(org.as_deref())?;
                let list = org.groups.iter().map(|(name, members)| {
                    let members: Vec<Value> =
                        members.iter().map(|m| json!({ "kind": m.kind(), "name": m.name() })).collect();
                    json!({ "name": name, "members": members })
                });
                return Ok(list.collect());
            }
            Command::GroupAddMember { org, group, kind, member } => {
                let (org_name, org) = self.org(org.as_deref())?;
                known_group(org, &group)?;
                let found = find_member(org, kind.as_deref(), &member);
                let member = if self.foreign && found.is_err() {
                    elsewhere::member(kind.as_deref(), &member)?
                } else {
                    found?
                };
                self.changes.push(Change::AddMember { org: org_name, group, member });
            }
            Command::GroupRemoveMember { org, group, kind, member } => {
                let (org_name, org) = self.org(org.as_deref())?;
                let members = known_group(org, &group)?;
                let fits = |m: &&Member| m.name() == member && kind.as_deref().is_none_or(|k| k == m.kind());
                let found = members.iter().find(fits);
                let found = found.ok_or_else(|| missing(format!("'{member}' is not in group '{group}'")))?;
                self.changes.push(Change::RemoveMember { org: org_name, group, member: found.clone() });
            }
        }
        Ok(Value::Null)
    }

    /// The named organization, or the only one.
    pub(super) fn org(&self, name: Option<&str>) -> Result<(OrgName, &'a Org)> {
        if let Some(name) = name {
            let found = self.directory.named_org(name);
            let (name, org) = found.ok_or_else(|| missing(format!("no organization '{name}'")))?;
            return Ok((name.clone(), org));
        }
        let mut all = self.directory.orgs();
        match (all.next(), all.next()) {
            (Some((name, org)), None) => Ok((name.clone(), org)),
            (None, _) => {
                Err(missing("there is no organization; make one with `pushy-server org add NAME`".into()))
            }
            (Some(_), Some(_)) => {
                let names: Vec<&str> = self.directory.orgs().map(|(name, _)| name.as_str()).collect();
                Err(refused(format!("which organization? Use --org with one of: {}", names.join(", "))))
            }
        }
    }

    pub(super) fn known_user(&self, name: &str) -> Result<()> {
        self.directory.user(name).map(|_| ()).ok_or_else(|| missing(format!("no user '{name}'")))
    }

    pub(super) fn put(&mut self, org: Option<OrgName>, key: NewKey) -> Result<()> {
        let public_key = keys::checked_public_key(&key.public_key).map_err(|e| e.context(&key.name))?;
        self.changes.push(Change::PutPrincipal { id: PrincipalId { org, name: key.name }, public_key });
        Ok(())
    }

    pub(super) fn end(&mut self, org: &Org, name: &str, why: &'static str) {
        if let Ok(node) = NodeName::new(name) {
            self.ended.push((NodeRef { org: org.id.clone(), node }, why));
        }
    }

    pub(super) fn add_user(&mut self, org: Option<&str>, user: NewKey, admin: bool) -> Result<()> {
        let (org, _) = self.org(org)?;
        check_name("user", &user.name)?;
        if self.directory.user(&user.name).is_some() {
            return Err(refused(format!(
                "user '{}' exists already; `pushy-server org add-user` adds it to another organization, \
                 `pushy-server user rekey` gives it a new key",
                user.name
            )));
        }
        let name = user.name.clone();
        self.put(None, user)?;
        self.changes.push(Change::Associate { org: org.clone(), user: name.clone() });
        if admin {
            self.changes.push(Change::AddGroup { org: org.clone(), group: ADMINS.into() });
            self.changes.push(Change::AddMember { org, group: ADMINS.into(), member: Member::User(name) });
        }
        Ok(())
    }
}
