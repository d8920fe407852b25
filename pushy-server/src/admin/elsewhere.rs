//! The operator's commands when a Chef server knows who is who: what would have no effect is refused with a word about
//! where to go instead.

use pushy_core::Result;

use super::{Command, check_name, refused};
use crate::config::ChefServer;
use crate::directory::Member;

/// Lets a command through, or says where it belongs.
pub(super) fn check(command: &Command, chef: Option<&ChefServer>) -> Result<()> {
    let Some(chef) = chef else { return Ok(()) };
    let what = match command {
        Command::Status | Command::Drain { .. } | Command::Reload | Command::Warnings => return Ok(()),
        Command::Describe { .. } if chef.organization.is_some() => return Ok(()),
        Command::Describe { .. } => "users and nodes",
        Command::OrgAdd { .. }
        | Command::OrgRemove { .. }
        | Command::OrgList
        | Command::OrgAddUser { .. }
        | Command::OrgRemoveUser { .. } => "organizations",
        Command::UserAdd { .. }
        | Command::UserRemove { .. }
        | Command::UserRekey { .. }
        | Command::UserList => "users",
        Command::NodeAdd { .. }
        | Command::NodeRemove { .. }
        | Command::NodeRekey { .. }
        | Command::NodeList { .. }
        | Command::NodeSet { .. }
        | Command::NodeShow { .. } => "nodes",
        Command::GroupAdd { .. }
        | Command::GroupRemove { .. }
        | Command::GroupList { .. }
        | Command::GroupAddMember { .. }
        | Command::GroupRemoveMember { .. } => {
            if chef.organization.is_some() {
                return Ok(());
            }
            "groups"
        }
    };
    let at = match (&chef.organization, what) {
        (Some(_), "organizations") => {
            "there is one organization, `chef_organization` of server.toml".to_owned()
        }
        _ => format!("the {what} of this server are those of the Chef server; use knife there"),
    };
    Err(refused(at))
}

/// A member that only the Chef server knows: its kind must be said.
pub(super) fn member(kind: Option<&str>, name: &str) -> Result<Member> {
    check_name("member", name)?;
    kind.and_then(|kind| Member::new(kind, name.to_owned())).ok_or_else(|| {
        refused(format!("say what '{name}' is with --kind: the Chef server knows it, this server does not"))
    })
}
