//! The operator's commands: against the running server through a socket in its directory, else against its database
//! (decision 38). One line of JSON each way.

mod elsewhere;
mod groups;
mod nodes;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use pushy_core::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::config::ChefServer;
use crate::directory::Directory;
use crate::driver::{Event, Handle};
use crate::ops::Ops;
use crate::ops::reload::Reload;
use crate::store::Store;
pub use nodes::FIELDS as NODE_FIELDS;

mod plan;
mod running;

use plan::Plan;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// How the server is; needs a running one.
    Status,
    /// No new jobs; the server stops when the running ones are over. Needs a running one.
    Drain {
        /// Calls it off.
        cancel: bool,
        /// Seconds to wait; `None`: as the settings say.
        timeout: Option<f64>,
    },
    /// Settings, certificate and audit log are read again. Needs a running server.
    Reload,
    /// What should be looked at; needs a running server.
    Warnings,
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
    /// Health and audit log.
    pub ops: Arc<Ops>,
    /// How long a drain waits.
    pub drain_timeout: std::time::Duration,
    /// What is read again on demand, when the server runs.
    pub reload: Option<Arc<Reload>>,
}

fn refused(text: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, text)
}

fn missing(text: String) -> Error {
    Error::new(ErrorCode::NotFound, text)
}

/// Chef's rule for names of nodes and users; anything else could not be written in a URL.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
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
        self.execute_for("this program", command).await
    }

    /// The same, for somebody the audit log names.
    async fn execute_for(&self, who: &str, command: Command) -> Result<Value> {
        match command {
            Command::Status => return self.status().await,
            Command::Warnings => return self.warnings().await,
            Command::Reload => return self.read_again(),
            Command::Drain { cancel, timeout } => return self.drain(who, cancel, timeout).await,
            _ => {}
        }
        elsewhere::check(&command, self.chef.as_ref())?;
        let what = shown(&command);
        let turn = self.directory.read().unwrap_or_else(PoisonError::into_inner).turn();
        let _turn = turn.lock_owned().await;
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
            self.ops.audit_line("directory_changed", json!({ "by": who, "command": what }));
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
        about["unfinished_jobs"] = json!(driver.look(|server, _| server.unfinished_jobs()).await?);
        about["draining"] = json!(self.ops.health.is_draining());
        about["not_ready"] = json!(self.ops.health.reasons());
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
        let who = stream.peer_cred().map_or_else(
            |_| "somebody on this host".to_owned(),
            |peer| format!("uid {} of this host", peer.uid()),
        );
        let mut stream = BufReader::new(stream.take(MAX_LINE));
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let result = match serde_json::from_str::<Command>(&line) {
            Ok(command) => self.execute_for(&who, command).await,
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
