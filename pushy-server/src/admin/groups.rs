//! Groups and their members by name.

use std::collections::BTreeSet;

use pushy_core::Result;

use super::{missing, refused};
use crate::directory::{Member, Org};

/// The members of a group.
pub(super) fn known_group<'a>(org: &'a Org, group: &str) -> Result<&'a BTreeSet<Member>> {
    org.groups
        .get(group)
        .ok_or_else(|| missing(format!("no group '{group}'; make it with `pushy-server group add {group}`")))
}

/// The member of this name: the kind decides, or there is only one thing called so.
pub(super) fn find_member(org: &Org, kind: Option<&str>, name: &str) -> Result<Member> {
    let all = [
        (org.users.contains(name), Member::User(name.to_owned())),
        (org.clients.contains_key(name), Member::Client(name.to_owned())),
        (org.groups.contains_key(name), Member::Group(name.to_owned())),
    ];
    let mut found =
        all.into_iter().filter(|(there, m)| *there && kind.is_none_or(|k| k == m.kind())).map(|(_, m)| m);
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (None, _) => Err(missing(format!(
            "no {} '{name}' in this organization",
            kind.unwrap_or("user, node or group")
        ))),
        (Some(_), Some(_)) => {
            Err(refused(format!("several things are called '{name}'; say which with --kind")))
        }
    }
}
