//! The server's own directory: organizations, users, clients (nodes), groups and their public keys.
//!
//! It lives in memory, is read at start and changed by [`Change`]s that were stored first. Parsed keys are kept:
//! reading a PEM costs many times what checking a signature costs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use pushy_core::auth::PublicKey;
use pushy_core::ids::{OrgId, OrgName};
use pushy_core::node_document::Fixed;

use crate::nodes::{Nodes, Published};

/// The group that may start jobs when nobody said otherwise (3.3).
pub const ADMINS: &str = "admins";
/// The group whose existence restricts reading (3.3).
pub const READERS: &str = "pushy_job_readers";
/// The group whose existence replaces `admins` for writing (3.3).
pub const WRITERS: &str = "pushy_job_writers";

/// What kind of principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A person; belongs to any number of organizations.
    User,
    /// A node; belongs to one organization.
    Client,
}

impl Kind {
    /// The word of databases and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Client => "client",
        }
    }
}

/// Who a principal is: kind, organization (clients only) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrincipalId {
    /// The organization of a client; `None` for users.
    pub org: Option<OrgName>,
    /// Its name.
    pub name: String,
}

impl PrincipalId {
    /// Clients have an organization, users have none.
    pub fn kind(&self) -> Kind {
        if self.org.is_some() { Kind::Client } else { Kind::User }
    }
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// A user.
    User(String),
    /// A client of the organization.
    Client(String),
    /// Another group of the organization.
    Group(String),
}

impl Member {
    /// The database's word for what it is.
    pub const fn kind(&self) -> &'static str {
        match self {
            Member::User(_) => "user",
            Member::Client(_) => "client",
            Member::Group(_) => "group",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Member::User(name) | Member::Client(name) | Member::Group(name) => name,
        }
    }

    /// The member with this kind and name.
    pub fn new(kind: &str, name: String) -> Option<Member> {
        match kind {
            "user" => Some(Member::User(name)),
            "client" => Some(Member::Client(name)),
            "group" => Some(Member::Group(name)),
            _ => None,
        }
    }
}

/// One change of the directory. Stored first, then applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new organization.
    AddOrg {
        /// Its name.
        name: OrgName,
        /// Its GUID.
        id: OrgId,
    },
    /// An organization with its clients and groups goes away.
    RemoveOrg {
        /// Its name.
        name: OrgName,
    },
    /// A new principal with its first key, or a new key in place of all it had.
    PutPrincipal {
        /// Who.
        id: PrincipalId,
        /// PEM.
        public_key: String,
    },
    /// A principal goes away, from all groups too.
    RemovePrincipal {
        /// Who.
        id: PrincipalId,
    },
    /// A user joins an organization.
    Associate {
        /// Which.
        org: OrgName,
        /// Who.
        user: String,
    },
    /// A user leaves an organization and its groups.
    Dissociate {
        /// Which.
        org: OrgName,
        /// Who.
        user: String,
    },
    /// A new group.
    AddGroup {
        /// Of which organization.
        org: OrgName,
        /// Its name.
        group: String,
    },
    /// A group goes away, from other groups too.
    RemoveGroup {
        /// Of which organization.
        org: OrgName,
        /// Its name.
        group: String,
    },
    /// A group gets a member.
    AddMember {
        /// Of which organization.
        org: OrgName,
        /// Which group.
        group: String,
        /// Who.
        member: Member,
    },
    /// A group loses a member.
    RemoveMember {
        /// Of which organization.
        org: OrgName,
        /// Which group.
        group: String,
        /// Who.
        member: Member,
    },
    /// A node's agent says what the node is.
    PublishNode {
        /// Of which organization.
        org: OrgName,
        /// Which node.
        node: String,
        /// What it says.
        document: Published,
    },
    /// The administrator says what a node is.
    FixNode {
        /// Of which organization.
        org: OrgName,
        /// Which node.
        node: String,
        /// What is fixed; empty: nothing any more.
        fixed: Fixed,
    },
}

/// A public key as text, and parsed once it was needed.
#[derive(Debug)]
pub struct StoredKey {
    /// PEM.
    pub pem: String,
    parsed: OnceLock<Option<PublicKey>>,
}

impl StoredKey {
    fn new(pem: String) -> StoredKey {
        StoredKey { pem, parsed: OnceLock::new() }
    }

    /// The key, unless it cannot be read (keys are checked before they are stored).
    pub fn parsed(&self) -> Option<&PublicKey> {
        self.parsed.get_or_init(|| PublicKey::from_pem(&self.pem).ok()).as_ref()
    }
}

/// Somebody who may sign requests.
#[derive(Debug)]
pub struct Principal {
    /// User or client.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its keys; any of them may have signed.
    pub keys: Vec<StoredKey>,
}

/// One organization.
#[derive(Debug)]
pub struct Org {
    /// Its GUID.
    pub id: OrgId,
    /// Users associated with it.
    pub users: BTreeSet<String>,
    /// Its clients.
    pub clients: HashMap<String, Arc<Principal>>,
    /// Its groups.
    pub groups: BTreeMap<String, BTreeSet<Member>>,
    /// What its nodes are.
    pub nodes: Nodes,
}

/// Everybody the server knows.
#[derive(Debug, Default)]
pub struct Directory {
    orgs: BTreeMap<OrgName, Org>,
    users: BTreeMap<String, Arc<Principal>>,
    /// Held by whoever changes the directory, from the first look until the change is stored and applied: two who change
    /// at once would each undo what the other did, and memory and store could differ in the order.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Principal {
    /// Somebody with these keys, in PEM.
    pub fn new(kind: Kind, name: String, pems: Vec<String>) -> Principal {
        Principal { kind, name, keys: pems.into_iter().map(StoredKey::new).collect() }
    }
}

impl Directory {
    /// The turn to change it; to be held from the look that a change is made from until it is applied.
    pub fn turn(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// An organization by name.
    pub fn org(&self, name: &str) -> Option<&Org> {
        self.orgs.get(name)
    }

    /// An organization by name, with the name as its type.
    pub fn named_org(&self, name: &str) -> Option<(&OrgName, &Org)> {
        self.orgs.get_key_value(name)
    }

    /// Every organization, by name.
    pub fn orgs(&self) -> impl Iterator<Item = (&OrgName, &Org)> {
        self.orgs.iter()
    }

    /// A user by name.
    pub fn user(&self, name: &str) -> Option<&Arc<Principal>> {
        self.users.get(name)
    }

    /// Every user, by name.
    pub fn users(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.users.values()
    }

    /// Applies a change that the store has kept. Changes of things that are not there do nothing.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::AddOrg { name, id } => {
                self.orgs.entry(name).or_insert_with(|| Org {
                    id,
                    users: BTreeSet::new(),
                    clients: HashMap::new(),
                    groups: BTreeMap::new(),
                    nodes: Nodes::default(),
                });
            }
            Change::RemoveOrg { name } => {
                self.orgs.remove(&name);
            }
            Change::PutPrincipal { id, public_key } => self.put_key(&id, vec![public_key]),
            Change::RemovePrincipal { id } => match &id.org {
                None => {
                    self.users.remove(&id.name);
                    for org in self.orgs.values_mut() {
                        org.users.remove(&id.name);
                        org.leave_groups(&Member::User(id.name.clone()));
                    }
                }
                Some(name) => {
                    if let Some(org) = self.orgs.get_mut(name) {
                        org.clients.remove(&id.name);
                        org.nodes.remove(&id.name);
                        org.leave_groups(&Member::Client(id.name));
                    }
                }
            },
            Change::Associate { org, user } => {
                if let Some(org) = self.orgs.get_mut(&org) {
                    org.users.insert(user);
                }
            }
            Change::Dissociate { org, user } => {
                if let Some(org) = self.orgs.get_mut(&org) {
                    org.users.remove(&user);
                    org.leave_groups(&Member::User(user));
                }
            }
            Change::AddGroup { org, group } => {
                if let Some(org) = self.orgs.get_mut(&org) {
                    org.groups.entry(group).or_default();
                }
            }
            Change::RemoveGroup { org, group } => {
                if let Some(org) = self.orgs.get_mut(&org) {
                    org.groups.remove(&group);
                    org.leave_groups(&Member::Group(group));
                }
            }
            Change::AddMember { org, group, member } => {
                if let Some(members) = self.orgs.get_mut(&org).and_then(|org| org.groups.get_mut(&group)) {
                    members.insert(member);
                }
            }
            Change::RemoveMember { org, group, member } => {
                if let Some(members) = self.orgs.get_mut(&org).and_then(|org| org.groups.get_mut(&group)) {
                    members.remove(&member);
                }
            }
            Change::PublishNode { org, node, document } => {
                if let Some(org) = self.orgs.get_mut(&org) {
                    org.nodes.publish(&node, document);
                }
            }
            Change::FixNode { org, node, fixed } => {
                if let Some(org) = self.orgs.get_mut(&org) {
                    org.nodes.fix(&node, fixed);
                }
            }
        }
    }

    /// Gives a principal these keys in place of all it had; makes it if need be.
    pub(crate) fn put_key(&mut self, id: &PrincipalId, pems: Vec<String>) {
        let principal = Arc::new(Principal::new(id.kind(), id.name.clone(), pems));
        match &id.org {
            None => {
                self.users.insert(id.name.clone(), principal);
            }
            Some(name) => {
                if let Some(org) = self.orgs.get_mut(name) {
                    org.nodes.add(&id.name);
                    org.clients.insert(id.name.clone(), principal);
                }
            }
        }
    }

    /// Who may have signed as `name` in an organization: users before clients (chef-auth 6.3). The flag says whether
    /// the principal belongs to the organization.
    pub fn principals(&self, org: &str, name: &str) -> Vec<(Arc<Principal>, bool)> {
        let org = self.orgs.get(org);
        let user = self
            .users
            .get(name)
            .map(|user| (Arc::clone(user), org.is_some_and(|org| org.users.contains(name))));
        let client = org.and_then(|org| org.clients.get(name)).map(|client| (Arc::clone(client), true));
        user.into_iter().chain(client).collect()
    }
}

impl Org {
    fn leave_groups(&mut self, member: &Member) {
        for members in self.groups.values_mut() {
            members.remove(member);
        }
    }

    /// Whether a principal is in a group or in a group within it; `None`: there is no such group (3.3).
    pub fn is_member(&self, group: &str, kind: Kind, name: &str) -> Option<bool> {
        self.groups.get(group)?;
        let who = match kind {
            Kind::User => Member::User(name.to_owned()),
            Kind::Client => Member::Client(name.to_owned()),
        };
        // Each group is visited once, so that a cycle ends (D-36).
        let mut visited = HashSet::new();
        let mut todo = vec![group];
        while let Some(group) = todo.pop() {
            if !visited.insert(group) {
                continue;
            }
            let Some(members) = self.groups.get(group) else { continue };
            if members.contains(&who) {
                return Some(true);
            }
            todo.extend(members.iter().filter_map(|member| match member {
                Member::Group(name) => Some(name.as_str()),
                Member::User(_) | Member::Client(_) => None,
            }));
        }
        Some(false)
    }

    /// The read rule (3.3).
    pub fn may_read(&self, kind: Kind, name: &str) -> bool {
        self.is_member(READERS, kind, name).unwrap_or(true)
    }

    /// The write rule (3.3).
    pub fn may_write(&self, kind: Kind, name: &str) -> bool {
        self.is_member(WRITERS, kind, name).or_else(|| self.is_member(ADMINS, kind, name)).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org_with(groups: &[(&str, &[Member])]) -> Org {
        let groups =
            groups.iter().map(|(name, members)| (name.to_string(), members.iter().cloned().collect()));
        Org {
            id: OrgId::new("0123456789abcdef0123456789abcdef").expect("32 hex digits"),
            users: BTreeSet::new(),
            clients: HashMap::new(),
            groups: groups.collect(),
            nodes: Nodes::default(),
        }
    }

    fn user(name: &str) -> Member {
        Member::User(name.into())
    }

    fn group(name: &str) -> Member {
        Member::Group(name.into())
    }

    #[test]
    fn rules() {
        let check = |groups: &[(&str, &[Member])], kind, read, write| {
            let org = org_with(groups);
            assert_eq!((org.may_read(kind, "ann"), org.may_write(kind, "ann")), (read, write), "{groups:?}");
        };
        check(&[], Kind::User, true, false);
        check(&[(ADMINS, &[user("ann")])], Kind::User, true, true);
        check(&[(ADMINS, &[user("ann")])], Kind::Client, true, false);
        check(&[(ADMINS, &[user("ann")]), (WRITERS, &[])], Kind::User, true, false);
        check(&[(READERS, &[user("bob")])], Kind::User, false, false);
        check(
            &[(READERS, &[group("a")]), ("a", &[group("b")]), ("b", &[user("ann")])],
            Kind::User,
            true,
            false,
        );
        check(&[(READERS, &[group("a")]), ("a", &[group(READERS)])], Kind::User, false, false);
        check(&[(WRITERS, &[group("gone"), user("ann")])], Kind::User, true, true);
        check(&[(WRITERS, &[Member::Client("ann".into())])], Kind::Client, true, true);
    }
}
