//! The program's arguments, and what each command does with them.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pushy_core::{Error, ErrorCode, Result};
use serde_json::Value;

mod nodes;

use crate::admin::{Admin, Command, NewKey, ask};
use crate::config::Config;
use crate::handover::{self, Target};
use crate::init::{self, ChefArgs, Init};
use crate::ops::Ops;
use crate::store::Options;
use crate::{files, keys, upkeep};

mod run;

use run::{DoctorArgs, DrainArgs, RunArgs};

/// The Push Jobs server.
#[derive(Debug, Parser)]
#[command(name = "pushy-server", version, max_term_width = 100)]
pub struct Cli {
    /// The server's directory, as made by `pushy-server init`
    #[arg(short = 'd', long, global = true, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The organization; needed only when there are several
    #[arg(short, long, global = true, value_name = "NAME")]
    org: Option<String>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a server's directory: keys, database, an organization, an administrator with a knife configuration
    Init(Box<InitArgs>),
    /// Run the server in the foreground until TERM or INT
    Run(RunArgs),
    /// Show how the running server is
    Status {
        /// The server's directory
        dir: Option<PathBuf>,
    },
    /// Look for what is wrong, and say what to do; exit status 1 when there is a problem
    Doctor(DoctorArgs),
    /// Take no new jobs, wait for the running ones, then stop the server
    Drain(DrainArgs),
    /// Let the running server read its settings, certificate and audit log again, as HUP does
    Reload {
        /// The server's directory
        dir: Option<PathBuf>,
    },
    /// Organizations
    #[command(subcommand)]
    Org(OrgVerb),
    /// Users: people who start and watch jobs
    #[command(subcommand)]
    User(UserVerb),
    /// Nodes: machines that run jobs
    #[command(subcommand)]
    Node(nodes::Verb),
    /// Groups: admins, pushy_job_readers, pushy_job_writers and your own
    #[command(subcommand)]
    Group(GroupVerb),
    #[command(flatten)]
    Upkeep(upkeep::Verb),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// A directory that is new or empty
    dir: PathBuf,
    /// Name of the administrator
    #[arg(long, default_value = "admin")]
    admin: String,
    /// Address and port of the REST API [default: 127.0.0.1:10003]
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
    /// Address and port of the server's heartbeats [default: 127.0.0.1:10000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    heartbeat_listen: Option<SocketAddr>,
    /// Address and port of the nodes' command channel [default: 127.0.0.1:10002]
    #[arg(long, value_name = "ADDRESS:PORT")]
    command_listen: Option<SocketAddr>,
    /// Host name or address that nodes and users reach this server by
    #[arg(long, value_name = "HOST")]
    advertise_host: Option<String>,
    /// Keep everything in this empty PostgreSQL database instead of a file: postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Seconds between two heartbeats [default: 10]
    #[arg(long, value_name = "SECONDS")]
    heartbeat_interval: Option<f64>,
    /// Take ports of 127.0.0.1 that are free now, to try things out
    #[arg(long, conflicts_with_all = ["api_listen", "heartbeat_listen", "command_listen"])]
    free_ports: bool,
    #[command(flatten)]
    chef: ChefArgs,
}

#[derive(Debug, Subcommand)]
enum OrgVerb {
    /// Make an organization with an empty group of administrators
    Add { name: String },
    /// Remove an organization with its nodes and groups
    Remove { name: String },
    /// List organizations
    List,
    /// Make a user a member
    AddUser { user: String },
    /// End a user's membership
    RemoveUser { user: String },
}

/// Where keys come from and files go.
#[derive(Debug, Args)]
struct KeyArgs {
    /// Take this public key (PEM) instead of making a pair
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Write the files into OUT/NAME [default: DIR/users or DIR/nodes]
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum UserVerb {
    /// Make a user; writes its key and knife configuration
    Add {
        name: String,
        /// Also make it an administrator of the organization
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        keys: KeyArgs,
    },
    /// Remove users from the server
    Remove {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Give a user a new key; the old one is void at once
    Rekey {
        name: String,
        #[command(flatten)]
        keys: KeyArgs,
    },
    /// List users with their organizations
    List,
}

#[derive(Debug, Args)]
struct MemberArgs {
    /// The group
    group: String,
    /// A user, node or group of the organization
    member: String,
    /// What it is, when several things have that name: user, client (node) or group
    #[arg(long, value_parser = ["user", "client", "group"])]
    kind: Option<String>,
}

#[derive(Debug, Subcommand)]
enum GroupVerb {
    /// Make an empty group
    Add { group: String },
    /// Remove a group
    Remove { group: String },
    /// List groups with their members
    List,
    /// Put a user, node or group into a group
    AddMember(MemberArgs),
    /// Take a user, node or group out of a group
    RemoveMember(MemberArgs),
}

impl Cli {
    /// Carries the command out and writes its results to `out`.
    ///
    /// # Errors
    /// What the command says.
    pub async fn execute(self, out: &mut dyn Write) -> Result<()> {
        let Cli { dir, org, command } = self;
        match command {
            Verb::Init(args) => make(out, *args, org).await,
            Verb::Run(args) => {
                let dir = args.dir.clone().unwrap_or(dir);
                run::run(out, &dir, &args).await
            }
            Verb::Status { dir: given } => run::status(out, &given.unwrap_or(dir)).await,
            Verb::Doctor(args) => {
                let dir = args.dir.clone().unwrap_or(dir);
                run::doctor(out, &dir, &args).await
            }
            Verb::Drain(args) => {
                let dir = args.dir.clone().unwrap_or(dir);
                run::drain(out, &dir, &args).await
            }
            Verb::Reload { dir: given } => run::reload(out, &given.unwrap_or(dir)).await,
            Verb::Org(verb) => org_verb(out, &dir, org, verb).await,
            Verb::User(verb) => user_verb(out, &dir, org, verb).await,
            Verb::Node(verb) => nodes::verb(out, &dir, org, verb).await,
            Verb::Group(verb) => group_verb(out, &dir, org, verb).await,
            Verb::Upkeep(verb) => verb.execute(out, &dir).await,
        }
    }
}

/// Where results go.
type Out<'a> = &'a mut dyn Write;

/// One line of the result; a reader that has gone away is no failure.
fn say(out: Out<'_>, line: impl std::fmt::Display) {
    let _ = writeln!(out, "{line}");
}

async fn make(out: Out<'_>, args: InitArgs, org: Option<String>) -> Result<()> {
    let free = if args.free_ports { Some(free_ports()?) } else { None };
    let port = |i: usize| free.map(|ports| SocketAddr::from(([127, 0, 0, 1], ports[i])));
    let mut settings = Vec::new();
    let mut set = |name, value: Option<String>| settings.extend(value.map(|v| (name, v)));
    let quoted = |a: SocketAddr| format!("\"{a}\"");
    set("api_listen", args.api_listen.or(port(0)).map(quoted));
    set("heartbeat_listen", args.heartbeat_listen.or(port(1)).map(quoted));
    set("command_listen", args.command_listen.or(port(2)).map(quoted));
    set("advertise_host", args.advertise_host.map(|host| Value::from(host).to_string()));
    set("database", args.database.map(|url| Value::from(url).to_string()));
    set("heartbeat_interval", args.heartbeat_interval.map(|secs| format!("{secs:?}")));
    let dir = args.dir;
    if args.chef.given() {
        return init::in_front_of_chef(out, &dir, settings, &args.chef).await;
    }
    let wanted = Init { org: org.unwrap_or_else(|| "acme".into()), admin: args.admin, settings };
    let knife = init::init(&dir, &wanted).await?;
    let d = dir.display();
    say(out, format_args!("Made a push server for organization '{}' in {d}.", wanted.org));
    say(out, format_args!("  start it:    pushy-server run {d}"));
    say(out, format_args!("  add a node:  pushy-server -d {d} node add NAME"));
    say(out, format_args!("  ask it:      knife node status -c {}", knife.display()));
    Ok(())
}

/// Three ports that nobody listens on now, below the range that outgoing connections are given theirs from.
fn free_ports() -> Result<[u16; 3]> {
    let mut held = Vec::new();
    let mut random = rand_core::OsRng;
    for _ in 0..1000 {
        let port = 20_000 + (rand_core::RngCore::next_u32(&mut random) % 12_000) as u16;
        // Each is held until all are known, so that they differ.
        held.extend(std::net::TcpListener::bind(("127.0.0.1", port)).map(|listener| (port, listener)));
        if let [(a, _), (b, _), (c, _)] = held[..] {
            return Ok([a, b, c]);
        }
    }
    Err(Error::new(ErrorCode::Io, "found no free ports on 127.0.0.1; name some with --api-listen and so on"))
}

/// Carries a command out in the running server, or else on its database.
async fn operate(dir: &Path, command: Command) -> Result<Value> {
    // A server that is starting or stopping has the lock but not yet, or no longer, the socket.
    for _ in 0..50 {
        if let Some(answer) = ask(dir, &command).await? {
            return Ok(answer);
        }
        // Before the lock: a wrong directory should not get a lock file.
        let config = Config::load(dir)?;
        if let Some(_lock) = files::DirLock::try_take(dir)? {
            let store = config.database.open(Options::default(), Box::new(|_| {}))?;
            let port = config.api_listen.port();
            let admin = Admin {
                directory: Arc::new(RwLock::new(store.directory()?)),
                store: Arc::clone(&store),
                driver: None,
                api_url: (port != 0 || config.advertise_api_url.is_some()).then(|| config.api_url(port)),
                about: Value::Null,
                ops: Ops::new(&config.operation)?,
                drain_timeout: config.operation.drain_timeout,
                reload: None,
                chef: config.chef,
            };
            let answer = admin.execute(command).await;
            store.close();
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::new(
        ErrorCode::Timeout,
        format!("{}: another pushy-server works here but does not answer", dir.display()),
    ))
}

async fn target(dir: &Path, org: &Option<String>) -> Result<Target> {
    let answer = operate(dir, Command::Describe { org: org.clone() }).await?;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    Ok(Target { api_url: text("api_url"), org: text("org") })
}

async fn org_verb(out: Out<'_>, dir: &Path, org: Option<String>, verb: OrgVerb) -> Result<()> {
    let answer = operate(
        dir,
        match verb {
            OrgVerb::Add { name } => Command::OrgAdd { name },
            OrgVerb::Remove { name } => Command::OrgRemove { name },
            OrgVerb::List => Command::OrgList,
            OrgVerb::AddUser { user } => Command::OrgAddUser { org, user },
            OrgVerb::RemoveUser { user } => Command::OrgRemoveUser { org, user },
        },
    )
    .await?;
    for org in answer.as_array().into_iter().flatten() {
        let text = |name: &str| org[name].as_str().unwrap_or_default();
        say(
            out,
            format_args!("{}\t{}\t{} users\t{} nodes", text("name"), text("id"), org["users"], org["nodes"]),
        );
    }
    Ok(())
}

/// A key for `name`: read from a file, or made. The private half, if made, comes second.
fn new_key(name: &str, public: Option<&Path>) -> Result<(NewKey, Option<String>)> {
    let (private, public_key) = match public {
        Some(path) => {
            let pem = std::fs::read_to_string(path).map_err(|e| files::io(path, &e))?;
            (None, keys::checked_public_key(&pem).map_err(|e| e.context(path.display()))?)
        }
        None => {
            let (private, public) = keys::new_rsa_pair()?;
            (Some(private), public)
        }
    };
    Ok((NewKey { name: name.to_owned(), public_key }, private))
}

async fn user_verb(out: Out<'_>, dir: &Path, org: Option<String>, verb: UserVerb) -> Result<()> {
    match verb {
        UserVerb::Add { name, admin, keys } => {
            let target = target(dir, &org).await?;
            let folder = keys.out.unwrap_or_else(|| dir.join("users")).join(&name);
            handover::must_be_new(&folder)?;
            let (user, private) = new_key(&name, keys.public_key.as_deref())?;
            operate(dir, Command::UserAdd { org, user, admin }).await?;
            say(out, handover::write_user(&folder, &name, private.as_deref(), &target)?.display());
        }
        UserVerb::Remove { names } => {
            for name in names {
                operate(dir, Command::UserRemove { name }).await?;
            }
        }
        UserVerb::Rekey { name, keys } => {
            let target = target(dir, &org).await?;
            let (user, private) = new_key(&name, keys.public_key.as_deref())?;
            let folder = keys.out.unwrap_or_else(|| dir.join("users")).join(&name);
            operate(dir, Command::UserRekey { user }).await?;
            say(out, handover::write_user(&folder, &name, private.as_deref(), &target)?.display());
        }
        UserVerb::List => {
            let users = operate(dir, Command::UserList).await?;
            for user in users.as_array().into_iter().flatten() {
                let orgs = user["orgs"].as_array().into_iter().flatten().map(|org| {
                    let admin = if org["admin"] == true { " (admin)" } else { "" };
                    format!("{}{admin}", org["name"].as_str().unwrap_or_default())
                });
                let orgs: Vec<String> = orgs.collect();
                say(out, format_args!("{}\t{}", user["name"].as_str().unwrap_or_default(), orgs.join(", ")));
            }
        }
    }
    Ok(())
}

async fn group_verb(out: Out<'_>, dir: &Path, org: Option<String>, verb: GroupVerb) -> Result<()> {
    let command = match verb {
        GroupVerb::Add { group } => Command::GroupAdd { org, group },
        GroupVerb::Remove { group } => Command::GroupRemove { org, group },
        GroupVerb::List => Command::GroupList { org },
        GroupVerb::AddMember(MemberArgs { group, member, kind }) => {
            Command::GroupAddMember { org, group, kind, member }
        }
        GroupVerb::RemoveMember(MemberArgs { group, member, kind }) => {
            Command::GroupRemoveMember { org, group, kind, member }
        }
    };
    let answer = operate(dir, command).await?;
    for group in answer.as_array().into_iter().flatten() {
        let members = group["members"].as_array().into_iter().flatten().map(|member| {
            let text = |name: &str| member[name].as_str().unwrap_or_default();
            format!("{} {}", text("kind"), text("name"))
        });
        let members: Vec<String> = members.collect();
        say(out, format_args!("{}\t{}", group["name"].as_str().unwrap_or_default(), members.join(", ")));
    }
    Ok(())
}
