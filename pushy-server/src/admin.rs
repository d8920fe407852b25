//! The operator's commands: against the running server through a socket in its directory, else against its database
//! (decision 38). One line of JSON each way.

mod elsewhere;
mod groups;
mod nodes;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use pushy_core::ids::{NodeName, NodeRef, OrgId, OrgName};
use pushy_core::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::config::ChefServer;
use crate::directory::{ADMINS, Change, Directory, Kind, Member, Org, PrincipalId};
use crate::driver::{Event, Handle};
use crate::keys;
use crate::store::Store;
use groups::{find_member, known_group};
pub use nodes::FIELDS as NODE_FIELDS;

/// The name of the socket in the server's directory.
pub const SOCKET: &str = "admin.sock";

/// The longest line taken: 10,000 nodes with their keys fit several times.
const MAX_LINE: u64 = 64 << 20;

/// A name with its public key. `Debug` shows the name only, as do logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// The name.
    pub name: String,
    /// PEM.
    pub public_key: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

/// One command. `org: None` means the only organization there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// How the server is; needs a running one.
    Status,
    /// The URL of the REST API and the name of the organization, for files to hand over.
    Describe {
        /// Its name.
        org: Option<String>,
    },
    /// A new organization with an empty group of administrators.
    OrgAdd {
        /// Its name.
        name: String,
    },
    /// An organization goes away with its nodes and groups. Its jobs stay in the database.
    OrgRemove {
        /// Its name.
        name: String,
    },
    /// Every organization.
    OrgList,
    /// A user becomes a member of an organization.
    OrgAddUser {
        /// Which.
        org: Option<String>,
        /// Who.
        user: String,
    },
    /// A user leaves an organization and its groups.
    OrgRemoveUser {
        /// Which.
        org: Option<String>,
        /// Who.
        user: String,
    },
    /// A new user, member of one organization.
    UserAdd {
        /// Which.
        org: Option<String>,
        /// Name and key.
        user: NewKey,
        /// Whether it joins the group of administrators.
        admin: bool,
    },
    /// A user goes away, from every organization.
    UserRemove {
        /// Who.
        name: String,
    },
    /// A user gets a new key in place of the old.
    UserRekey {
        /// Name and key.
        user: NewKey,
    },
    /// Every user with its organizations.
    UserList,
    /// New nodes: all or none.
    NodeAdd {
        /// Where.
        org: Option<String>,
        /// Names and keys.
        nodes: Vec<NewKey>,
    },
    /// Nodes go away; their connections end.
    NodeRemove {
        /// Where.
        org: Option<String>,
        /// Names.
        names: Vec<String>,
    },
    /// A node gets a new key in place of the old; its connection ends.
    NodeRekey {
        /// Where.
        org: Option<String>,
        /// Name and key.
        node: NewKey,
    },
    /// The organization's nodes.
    NodeList {
        /// Where.
        org: Option<String>,
    },
    /// What nodes are: each field with its value; without one it is the node's to say.
    NodeSet {
        /// Where.
        org: Option<String>,
        /// Which.
        names: Vec<String>,
        /// Out of [`NODE_FIELDS`].
        fields: Vec<(String, Option<String>)>,
    },
    /// What is known of a node.
    NodeShow {
        /// Where.
        org: Option<String>,
        /// Which.
        name: String,
    },
    /// A new, empty group.
    GroupAdd {
        /// Where.
        org: Option<String>,
        /// Its name.
        group: String,
    },
    /// A group goes away.
    GroupRemove {
        /// Where.
        org: Option<String>,
        /// Its name.
        group: String,
    },
    /// The organization's groups with their members.
    GroupList {
        /// Where.
        org: Option<String>,
    },
    /// A group gets a member.
    GroupAddMember {
        /// Where.
        org: Option<String>,
        /// Which group.
        group: String,
        /// `user`, `client` or `group`; `None`: whichever there is of that name.
        kind: Option<String>,
        /// The member's name.
        member: String,
    },
    /// A group loses a member.
    GroupRemoveMember {
        /// Where.
        org: Option<String>,
        /// Which group.
        group: String,
        /// As above.
        kind: Option<String>,
        /// The member's name.
        member: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(Value),
    Failed(String),
}

/// What commands act on.
pub struct Admin {
    /// In memory, as the REST API sees it.
    pub directory: Arc<RwLock<Directory>>,
    /// Where it is kept.
    pub store: Arc<dyn Store>,
    /// The machine, when the server runs.
    pub driver: Option<Handle>,
    /// The URL of the REST API; `None` when its port is known only once the server runs.
    pub api_url: Option<String>,
    /// What `status` tells beside the machine's figures.
    pub about: Value,
    /// The Chef server that knows who is who.
    pub chef: Option<ChefServer>,
}

fn refused(text: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, text)
}

fn missing(text: String) -> Error {
    Error::new(ErrorCode::NotFound, text)
}

/// Chef's rule for names of nodes and users; anything else could not be written in a URL.
fn check_name(what: &str, name: &str) -> Result<()> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if name.is_empty() || name.len() > 255 || !name.bytes().all(ok) || name.bytes().all(|b| b == b'.') {
        return Err(refused(format!(
            "invalid {what} name {name:?}: use 1 to 255 letters, digits, '_', '.', ':' and '-'"
        )));
    }
    Ok(())
}

impl Admin {
    /// Carries a command out; nothing is changed when it fails.
    ///
    /// # Errors
    /// When a name is unknown, taken or invalid, a key cannot be used, or the store fails.
    pub async fn execute(&self, command: Command) -> Result<Value> {
        if command == Command::Status {
            return self.status().await;
        }
        elsewhere::check(&command, self.chef.as_ref())?;
        let what = shown(&command);
        let (changes, ended, answer) = {
            let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
            let foreign = self.chef.is_some();
            let mut plan = Plan { directory: &directory, foreign, changes: Vec::new(), ended: Vec::new() };
            let answer = plan.make(command, self.api_url.as_deref())?;
            (plan.changes, plan.ended, answer)
        };
        if !changes.is_empty() {
            self.store.change_directory(changes.clone()).await?;
            let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                directory.apply(change);
            }
            tracing::info!("directory changed: {what}");
        }
        if let Some(driver) = &self.driver {
            for (node, why) in ended {
                driver.post(Event::EndBindings(node, why.into()));
            }
        }
        Ok(answer)
    }

    async fn status(&self) -> Result<Value> {
        let driver = self.driver.as_ref().ok_or_else(not_running)?;
        let (nodes, jobs) = driver.counts().await?;
        let (connected, subscribed) = driver.connections().await?;
        let mut about = self.about.clone();
        about["nodes"] = json!(nodes);
        about["jobs"] = json!(jobs.len());
        about["command_connections"] = json!(connected);
        about["heartbeat_connections"] = json!(subscribed);
        Ok(about)
    }

    /// Answers commands on the socket until dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let admin = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = admin.answer(stream).await {
                            tracing::debug!("admin connection: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("admin socket: {error}");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn answer(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream.take(MAX_LINE));
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let result = match serde_json::from_str::<Command>(&line) {
            Ok(command) => self.execute(command).await,
            Err(_) => {
                Err(refused("not a command of this server; use the pushy-server of its version".into()))
            }
        };
        let answer = match result {
            Ok(value) => Answer::Done(value),
            Err(error) => Answer::Failed(error.message().to_owned()),
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        stream.get_mut().get_mut().write_all(text.as_bytes()).await
    }
}

/// The command as the log shows it: names, no keys, not too long.
fn shown(command: &Command) -> String {
    let text = format!("{command:?}");
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn not_running() -> Error {
    Error::new(ErrorCode::InvalidState, "the server does not run")
}

/// Asks a running server; `None`: there is none.
///
/// # Errors
/// What the server answers, or when it does not answer.
pub async fn ask(dir: &Path, command: &Command) -> Result<Option<Value>> {
    let path = dir.join(SOCKET);
    let io = |e: std::io::Error| crate::files::io(&path, &e);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(e)
            if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(io(e)),
    };
    let mut stream = BufReader::new(stream);
    let mut text = serde_json::to_string(command)
        .map_err(|e| Error::new(ErrorCode::Internal, format!("writing a command: {e}")))?;
    text.push('\n');
    stream.get_mut().write_all(text.as_bytes()).await.map_err(io)?;
    let mut line = String::new();
    stream.read_line(&mut line).await.map_err(io)?;
    match serde_json::from_str(&line) {
        Ok(Answer::Done(value)) => Ok(Some(value)),
        Ok(Answer::Failed(text)) => Err(refused(text)),
        Err(_) => {
            Err(Error::new(ErrorCode::Connection, format!("{}: the server gave no answer", path.display())))
        }
    }
}

/// A command being turned into changes, against the directory as it is.
struct Plan<'a> {
    directory: &'a Directory,
    /// Whether members of groups are known elsewhere.
    foreign: bool,
    changes: Vec<Change>,
    ended: Vec<(NodeRef, &'static str)>,
}

impl<'a> Plan<'a> {
    fn make(&mut self, command: Command, api_url: Option<&str>) -> Result<Value> {
        match command {
            Command::Status => return Err(not_running()),
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
    fn org(&self, name: Option<&str>) -> Result<(OrgName, &'a Org)> {
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

    fn known_user(&self, name: &str) -> Result<()> {
        self.directory.user(name).map(|_| ()).ok_or_else(|| missing(format!("no user '{name}'")))
    }

    fn put(&mut self, org: Option<OrgName>, key: NewKey) -> Result<()> {
        let public_key = keys::checked_public_key(&key.public_key).map_err(|e| e.context(&key.name))?;
        self.changes.push(Change::PutPrincipal { id: PrincipalId { org, name: key.name }, public_key });
        Ok(())
    }

    fn end(&mut self, org: &Org, name: &str, why: &'static str) {
        if let Ok(node) = NodeName::new(name) {
            self.ended.push((NodeRef { org: org.id.clone(), node }, why));
        }
    }

    fn add_user(&mut self, org: Option<&str>, user: NewKey, admin: bool) -> Result<()> {
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
