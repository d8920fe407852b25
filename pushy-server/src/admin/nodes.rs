//! `node set`, `node unset`, `node show`: what a node is, by the administrator's word (decision 44).

use pushy_core::Result;
use pushy_core::ids::OrgName;
use pushy_core::node_document::{Fixed, check_name, check_tag};
use pushy_core::time::Wall;
use serde_json::{Value, json};

use super::{NewKey, Plan, check_name as check_principal, missing, refused};
use crate::directory::{Change, Org};

/// What can be fixed.
pub const FIELDS: [&str; 3] = ["environment", "roles", "tags"];

impl Plan<'_> {
    /// Refuses what is no node.
    pub(super) fn known_node(&self, org_name: &OrgName, org: &Org, name: &str) -> Result<()> {
        let known = org.clients.contains_key(name);
        if known { Ok(()) } else { Err(missing(format!("no node '{name}' in organization '{org_name}'"))) }
    }

    /// New nodes: all or none.
    pub(super) fn add_nodes(&mut self, org: Option<&str>, nodes: Vec<NewKey>) -> Result<()> {
        let (org_name, org) = self.org(org)?;
        let mut seen = std::collections::HashSet::new();
        for node in nodes {
            check_principal("node", &node.name)?;
            if org.clients.contains_key(&node.name) || !seen.insert(node.name.clone()) {
                return Err(refused(format!(
                    "node '{}' exists already; `pushy-server node rekey` gives it a new key",
                    node.name
                )));
            }
            self.put(Some(org_name.clone()), node)?;
        }
        Ok(())
    }

    /// Fixes fields of nodes; `None` leaves the field to the node again.
    pub(super) fn fix_nodes(
        &mut self,
        org: Option<&str>,
        names: &[String],
        fields: &[(String, Option<String>)],
    ) -> Result<()> {
        let (org_name, org) = self.org(org)?;
        for name in names {
            self.known_node(&org_name, org, name)?;
            let mut fixed = org.nodes.get(name).map(|node| node.fixed.clone()).unwrap_or_default();
            for (field, value) in fields {
                set(&mut fixed, field, value.as_deref())?;
            }
            self.changes.push(Change::FixNode { org: org_name.clone(), node: name.clone(), fixed });
        }
        Ok(())
    }

    /// What is known of a node.
    pub(super) fn show_node(&self, org: Option<&str>, name: &str) -> Result<Value> {
        let (org_name, org) = self.org(org)?;
        self.known_node(&org_name, org, name)?;
        let node = org.nodes.get(name);
        let published = node.and_then(|node| node.published.as_ref()).map(|published| published.at);
        let fixed = node.map(|node| node.fixed.clone()).unwrap_or_default();
        Ok(json!({
            "node": node.map(|node| node.merged.clone()),
            "published_at": published.map(Wall::iso8601),
            "fixed": { "environment": fixed.environment, "roles": fixed.roles, "tags": fixed.tags },
        }))
    }
}

fn set(fixed: &mut Fixed, field: &str, value: Option<&str>) -> Result<()> {
    let list = |value: Option<&str>, check: fn(&str, &str) -> Result<()>| -> Result<Option<Vec<String>>> {
        let Some(value) = value else { return Ok(None) };
        let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| check(field, name).map(|()| name.to_owned())).collect::<Result<_>>().map(Some)
    };
    match field {
        "environment" => {
            if let Some(name) = value {
                check_name(field, name)?;
            }
            fixed.environment = value.map(str::to_owned);
        }
        "roles" => fixed.roles = list(value, check_name)?,
        "tags" => fixed.tags = list(value, check_tag)?,
        _ => {
            return Err(refused(format!(
                "no field '{field}' of a node can be set; there are {}",
                FIELDS.join(", ")
            )));
        }
    }
    Ok(())
}
