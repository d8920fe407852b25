//! What a Chef server answers, read to the letter of 3.2 and 12.17: which answers mean yes, which mean no, and which
//! mean that something is wrong.

use std::collections::HashSet;
use std::sync::Arc;

use pushy_core::client::Document;
use pushy_core::ids::OrgId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::directory::{Kind, Principal};

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Strange {
    /// The Chef server does not show this to the configured client (401, 403).
    Forbidden(u16),
    /// It has trouble of its own that may pass (429, 503).
    Busy(u16),
    /// Any other status.
    Status(u16),
    /// A body that is not what it should be; says what is wrong with it.
    Body(&'static str),
}

/// What is known about a name in an organization.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// There is no such organization.
    NoOrganization,
    /// Nobody has the name.
    Nobody,
    /// Somebody has; those who belong to the organization, in the order their keys are tried, and whether one of them
    /// is a client.
    Somebody { members: Vec<Arc<Principal>>, client: bool },
}

/// A group's members.
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    users: HashSet<String>,
    clients: HashSet<String>,
    pub(super) groups: Vec<String>,
}

impl Group {
    pub(super) fn has(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::User => self.users.contains(name),
            Kind::Client => self.clients.contains(name),
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    name: Option<String>,
    r#type: String,
    public_key: Option<String>,
    #[serde(default)]
    org_member: Option<bool>,
}

/// A JSON object; a list that happens to fit is none.
fn object<T: DeserializeOwned>(body: &[u8], otherwise: &'static str) -> Result<T, Strange> {
    let read = || body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok())?;
    read().ok_or(Strange::Body(otherwise))
}

fn strange(status: u16) -> Strange {
    match status {
        401 | 403 => Strange::Forbidden(status),
        429 | 503 => Strange::Busy(status),
        _ => Strange::Status(status),
    }
}

/// `not_found` of a 404: what there is not.
fn not_found(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.get("not_found")?.as_str().map(str::to_owned)
}

/// The `response_version` of the header, `"0"` or `"1"`.
fn response_version(document: &Document) -> Option<String> {
    let header: Value = serde_json::from_str(document.api_version.as_ref()?).ok()?;
    header.get("response_version")?.as_str().map(str::to_owned)
}

/// The answer to `organizations/ORG/principals/NAME`.
pub(super) fn principals(name: &str, document: &Document) -> Result<Names, Strange> {
    match document.status {
        200 => {}
        404 => {
            return match not_found(&document.body).as_deref() {
                Some("org") => Ok(Names::NoOrganization),
                Some("principal") => Ok(Names::Nobody),
                _ => Err(strange(404)),
            };
        }
        status => return Err(strange(status)),
    }
    #[derive(Deserialize)]
    struct List {
        principals: Vec<Entry>,
    }
    let list = || object::<List>(&document.body, "a body without a list of principals").map(|l| l.principals);
    let entries = match response_version(document).as_deref() {
        Some("1") => list()?,
        // chef-zero says 0 and sends the list of version 1.
        Some("0") | None => {
            entry(&document.body).map(|one| vec![one]).or_else(|why| list().map_err(|_| why))?
        }
        Some(_) => return Err(Strange::Body("a version of the API that is not known")),
    };
    Ok(somebody(name, entries, |entry| entry.org_member == Some(true)))
}

/// The answer to `principals/NAME` of a server without organizations, where everybody belongs (decision 33). Its header
/// may promise version 1; the body is of version 0.
pub(super) fn principal_without_org(name: &str, document: &Document) -> Result<Names, Strange> {
    match document.status {
        200 => Ok(somebody(name, vec![entry(&document.body)?], |entry| entry.org_member != Some(false))),
        404 if is_refusal(&document.body) => Ok(Names::Nobody),
        status => Err(strange(status)),
    }
}

fn entry(body: &[u8]) -> Result<Entry, Strange> {
    object(body, "a body that is not a principal")
}

/// `{"error":…}`: the server's own answer and not that of something in between.
fn is_refusal(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body.get("error").is_some())
}

/// The keys of members, the last of the list first (3.2). An entry about another name, say in other letters, is not
/// about the one who asks.
fn somebody(name: &str, entries: Vec<Entry>, member: impl Fn(&Entry) -> bool) -> Names {
    let mut members = Vec::with_capacity(entries.len());
    for entry in entries.into_iter().rev().filter(member) {
        if entry.name.as_deref().is_some_and(|other| other != name) {
            continue;
        }
        let kind = match entry.r#type.as_str() {
            "user" => Kind::User,
            "client" => Kind::Client,
            _ => continue,
        };
        let keys = entry.public_key.into_iter().collect();
        members.push(Arc::new(Principal::new(kind, name.to_owned(), keys)));
    }
    let client = members.iter().any(|who| who.kind == Kind::Client);
    Names::Somebody { members, client }
}

/// The answer to `organizations/ORG`; `None`: it is not found, which alone decides nothing (3.2).
pub(super) fn organization(document: &Document) -> Result<Option<OrgId>, Strange> {
    #[derive(Deserialize)]
    struct Org {
        guid: String,
    }
    match document.status {
        200 => {
            let org: Org = object(&document.body, "an organization without a GUID")?;
            let id = OrgId::new(&org.guid).map_err(|_| Strange::Body("a GUID that is not 32 hex digits"))?;
            Ok(Some(id))
        }
        404 => Ok(None),
        status => Err(strange(status)),
    }
}

/// The answer to `organizations/ORG/groups/GROUP`; `None`: there is no such group.
pub(super) fn group(document: &Document) -> Result<Option<Group>, Strange> {
    match document.status {
        200 => object(&document.body, "a body that is not a group").map(Some),
        // An absent group may open a door (3.3): the word of something in between does not count.
        404 if is_refusal(&document.body) => Ok(None),
        status => Err(strange(status)),
    }
}

/// The answer to `users/NAME` of a server without organizations: whether it is an administrator.
pub(super) fn is_admin(document: &Document) -> Result<bool, Strange> {
    #[derive(Deserialize)]
    struct User {
        admin: bool,
    }
    match document.status {
        200 => object(&document.body, "a body that is not a user").map(|user: User| user.admin),
        404 if is_refusal(&document.body) => Ok(false),
        status => Err(strange(status)),
    }
}
