//! `pushy-server node …`.

use std::io::Read as _;
use std::path::Path;

use clap::{Args, Subcommand};
use pushy_core::{Error, ErrorCode, Result};
use serde_json::Value;

use super::{KeyArgs, Out, new_key, operate, say, target};
use crate::admin::{Command, NODE_FIELDS};
use crate::{files, handover};

/// `pushy-server node`.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make nodes; writes each one's key and push-jobs-client.rb
    Add {
        /// Names; @FILE or - (standard input): one name a line
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        keys: KeyArgs,
        /// Let all of the names have the one public key, as a simulated fleet does
        #[arg(long, requires = "public_key")]
        shared: bool,
    },
    /// Remove nodes; their connections end at once
    Remove {
        /// Names; @FILE or - (standard input): one name a line
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Give a node a new key; the old one is void and its connection ends at once
    Rekey {
        name: String,
        #[command(flatten)]
        keys: KeyArgs,
    },
    /// List nodes
    List,
    /// Say what nodes are; wins over what they say themselves
    Set(Set),
    /// Leave it to a node again what it is
    Unset(Unset),
    /// Show what is known of a node
    Show { name: String },
}

/// Names of nodes and what is to be said of them.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Names; @FILE or - (standard input): one name a line; then FIELD=VALUE: environment=prod roles=web,db tags=blue
    #[arg(required = true, value_name = "NAME... FIELD=VALUE")]
    words: Vec<String>,
}

/// Names of nodes and fields that are theirs to say again.
#[derive(Debug, Args)]
pub(super) struct Unset {
    /// The node
    name: String,
    /// environment, roles or tags; all of them when none is named
    #[arg(value_parser = NODE_FIELDS, value_name = "FIELD")]
    fields: Vec<String>,
}

/// Names as given; `@FILE` and `-` stand for one name a line, blank lines and `#` comments left out.
fn expand(names: Vec<String>) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in names {
        let text = match name.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).map_err(|e| files::io(Path::new(path), &e))?,
            None if name == "-" => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(|e| files::io(Path::new("-"), &e))?;
                text
            }
            None => {
                all.push(name);
                continue;
            }
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(lines.map(str::to_owned));
    }
    if all.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, "no names given"));
    }
    Ok(all)
}

/// Carries the verb out.
pub(super) async fn verb(out: Out<'_>, dir: &Path, org: Option<String>, verb: Verb) -> Result<()> {
    match verb {
        Verb::Add { names, keys, shared } => {
            let names = expand(names)?;
            if keys.public_key.is_some() && names.len() > 1 && !shared {
                return Err(Error::new(ErrorCode::InvalidArgument, "--public-key goes with one name"));
            }
            let target = target(dir, &org).await?;
            let folder = keys.out.unwrap_or_else(|| dir.join("nodes"));
            let (mut nodes, mut privates) = (Vec::new(), Vec::new());
            for name in &names {
                handover::must_be_new(&folder.join(name))?;
                let (node, private) = new_key(name, keys.public_key.as_deref())?;
                nodes.push(node);
                privates.push(private);
            }
            operate(dir, Command::NodeAdd { org, nodes }).await?;
            for (name, private) in names.iter().zip(privates) {
                say(
                    out,
                    handover::write_node(&folder.join(name), name, private.as_deref(), &target)?.display(),
                );
            }
        }
        Verb::Remove { names } => {
            operate(dir, Command::NodeRemove { org, names: expand(names)? }).await?;
        }
        Verb::Rekey { name, keys } => {
            let target = target(dir, &org).await?;
            let (node, private) = new_key(&name, keys.public_key.as_deref())?;
            let folder = keys.out.unwrap_or_else(|| dir.join("nodes")).join(&name);
            operate(dir, Command::NodeRekey { org, node }).await?;
            let key = folder.join("client.pem");
            match private {
                // A configuration that the operator may have filled in stays.
                Some(private) if folder.join("push-jobs-client.rb").exists() => {
                    files::write(&key, &private, true)?;
                    say(out, key.display());
                }
                private => {
                    say(out, handover::write_node(&folder, &name, private.as_deref(), &target)?.display())
                }
            }
        }
        Verb::Set(args) => set(dir, org, args).await?,
        Verb::Unset(args) => unset(dir, org, args).await?,
        Verb::Show { name } => show(out, dir, org, name).await?,
        Verb::List => {
            let nodes = operate(dir, Command::NodeList { org }).await?;
            for name in nodes.as_array().into_iter().flatten().filter_map(Value::as_str) {
                say(out, name);
            }
        }
    }
    Ok(())
}

async fn set(dir: &Path, org: Option<String>, args: Set) -> Result<()> {
    let (fields, names): (Vec<String>, Vec<String>) =
        args.words.into_iter().partition(|word| !word.starts_with('@') && word.contains('='));
    if fields.is_empty() {
        let text = "nothing to set: write FIELD=VALUE, for example environment=prod roles=web,db";
        return Err(Error::new(ErrorCode::InvalidArgument, text));
    }
    let pair =
        |word: &String| word.split_once('=').map(|(field, value)| (field.to_owned(), Some(value.to_owned())));
    let fields = fields.iter().filter_map(pair).collect();
    operate(dir, Command::NodeSet { org, names: expand(names)?, fields }).await?;
    Ok(())
}

async fn unset(dir: &Path, org: Option<String>, args: Unset) -> Result<()> {
    let named = |fields: Vec<String>| fields.into_iter().map(|field| (field, None)).collect();
    let fields = if args.fields.is_empty() {
        named(NODE_FIELDS.iter().map(|field| (*field).to_owned()).collect())
    } else {
        named(args.fields)
    };
    operate(dir, Command::NodeSet { org, names: vec![args.name], fields }).await?;
    Ok(())
}

async fn show(out: Out<'_>, dir: &Path, org: Option<String>, name: String) -> Result<()> {
    let answer = operate(dir, Command::NodeShow { org, name }).await?;
    let node = &answer["node"];
    let list = |value: &Value| match value {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    let line = |out: Out<'_>, label: &str, text: &str, fixed: bool| {
        let fixed = if fixed { " (set here)" } else { "" };
        say(out, format_args!("{label:<13}{text}{fixed}").to_string().trim_end());
    };
    line(out, "name", &list(&node["name"]), false);
    for (field, member) in [("environment", "chef_environment"), ("roles", "roles"), ("tags", "tags")] {
        line(out, field, &list(&node[member]), !answer["fixed"][field].is_null());
    }
    for member in ["fqdn", "ipaddress", "platform"] {
        line(out, member, &list(&node[member]), false);
    }
    let commands: Vec<&str> = node["push_jobs"]["whitelist"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    line(out, "commands", &commands.join(", "), false);
    line(out, "published", answer["published_at"].as_str().unwrap_or("never"), false);
    Ok(())
}
