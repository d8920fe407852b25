//! The two ways of knowing principals: the server's own directory, and a Chef server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pushy_server::admin::{Command, NewKey, ask};
use pushy_tests::chef_stub::ChefStub;

use crate::call::Actor;
use crate::target::{NODE_KEY, Role, public_key};

/// Who is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    /// One of the people.
    Is(Role),
    /// Another group of the organization, made before.
    Group(&'static str),
}

/// An organization to be made: administrators, members, clients; groups in the order of making.
pub(crate) struct NewOrg<'a> {
    pub(crate) name: &'a str,
    pub(crate) people: &'a BTreeMap<Role, Actor>,
    pub(crate) groups: &'a [(&'a str, &'a [Member])],
}

/// Where a server of ours takes its principals from, with the hand to change it.
pub(crate) trait People: Send + Sync {
    /// Makes an organization.
    fn add_org(&self, org: &NewOrg<'_>);
    /// Makes nodes with the nodes' key.
    fn add_nodes(&self, org: &str, names: &[&str]);
    /// Makes a user of an organization where nobody else is; it has the administrators' key.
    fn add_outsider(&self, name: &str);
}

/// The server's own directory, changed by the operator's commands.
pub(crate) struct Standalone {
    dir: PathBuf,
}

impl Standalone {
    pub(crate) fn new(dir: &Path) -> Standalone {
        Standalone { dir: dir.to_owned() }
    }

    fn operate(&self, command: &Command) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answer = runtime.block_on(ask(&self.dir, command));
        answer.unwrap_or_else(|e| panic!("{command:?}: {e}")).expect("the server runs");
    }
}

fn new_key(name: &str, number: usize) -> NewKey {
    NewKey { name: name.into(), public_key: public_key(number).into() }
}

impl People for Standalone {
    fn add_org(&self, new: &NewOrg<'_>) {
        let org = || Some(new.name.to_owned());
        self.operate(&Command::OrgAdd { name: new.name.into() });
        let name = |role: Role| new.people[&role].name.as_str();
        for (role, key, admin) in [(Role::Admin, 0, true), (Role::Normal, 1, false)] {
            let user = new_key(name(role), key);
            self.operate(&Command::UserAdd { org: org(), user, admin });
        }
        self.add_nodes(new.name, &[name(Role::Client), name(Role::AdminClient)]);
        let admins: (&str, &[Member]) = ("admins", &[Member::Is(Role::AdminClient)]);
        for (group, members) in std::iter::once(&admins).chain(new.groups) {
            if *group != "admins" {
                self.operate(&Command::GroupAdd { org: org(), group: (*group).into() });
            }
            for member in *members {
                let (kind, member) = match member {
                    // The directory keeps nobody in a group who is not in the organization.
                    Member::Is(Role::Outside) => continue,
                    Member::Is(role @ (Role::Client | Role::AdminClient)) => ("client", name(*role)),
                    Member::Is(role) => ("user", name(*role)),
                    Member::Group(group) => ("group", *group),
                };
                self.operate(&Command::GroupAddMember {
                    org: org(),
                    group: (*group).into(),
                    kind: Some(kind.into()),
                    member: member.into(),
                });
            }
        }
    }

    fn add_nodes(&self, org: &str, names: &[&str]) {
        let nodes = names.iter().map(|name| new_key(name, NODE_KEY)).collect();
        self.operate(&Command::NodeAdd { org: Some(org.into()), nodes });
    }

    fn add_outsider(&self, name: &str) {
        self.operate(&Command::OrgAdd { name: "elsewhere".into() });
        let user = new_key(name, 0);
        self.operate(&Command::UserAdd { org: Some("elsewhere".into()), user, admin: false });
    }
}

/// A Chef server in front, of which the stub plays what the push server asks.
pub(crate) struct ChefBacked {
    stub: ChefStub,
}

impl ChefBacked {
    pub(crate) fn new(stub: ChefStub) -> ChefBacked {
        ChefBacked { stub }
    }
}

impl People for ChefBacked {
    fn add_org(&self, new: &NewOrg<'_>) {
        let name = |role: Role| new.people[&role].name.as_str();
        self.stub.add_org(new.name);
        for (role, key) in [(Role::Admin, 0), (Role::Normal, 1)] {
            self.stub.put_user(name(role), &[public_key(key)]);
            self.stub.associate(new.name, name(role));
        }
        self.add_nodes(new.name, &[name(Role::Client), name(Role::AdminClient)]);
        self.stub.put_group(new.name, "admins", &[name(Role::Admin)], &[name(Role::AdminClient)], &[]);
        for (group, members) in new.groups {
            let (mut users, mut clients, mut groups) = (Vec::new(), Vec::new(), Vec::new());
            for member in *members {
                match member {
                    Member::Is(role @ (Role::Client | Role::AdminClient)) => clients.push(name(*role)),
                    Member::Is(role) => users.push(name(*role)),
                    Member::Group(group) => groups.push(*group),
                }
            }
            self.stub.put_group(new.name, group, &users, &clients, &groups);
        }
    }

    fn add_nodes(&self, org: &str, names: &[&str]) {
        for name in names {
            self.stub.put_client(org, name, &[public_key(NODE_KEY)]);
        }
    }

    fn add_outsider(&self, name: &str) {
        self.stub.add_org("elsewhere");
        self.stub.put_user(name, &[public_key(0)]);
        self.stub.associate("elsewhere", name);
    }
}
