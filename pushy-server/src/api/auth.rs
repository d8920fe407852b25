//! Who asks, and whether they may: signed headers, look-ups and rules in the order of 2.1 and 3.3.

use std::sync::Arc;

use axum::http::request::Parts;
use pushy_core::auth::{AuthError, Head, MAX_SKEW, PublicKey};
use pushy_core::ids::OrgId;

use super::Api;
use super::error::Failure;
use crate::directory::{Kind, Principal, StoredKey};
use crate::ops::audit;
use crate::principals::{Action, OrgRef};

/// Somebody whose signature fits and who belongs to the organization.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The organization of the path.
    pub(super) org: OrgRef,
    /// User or client.
    pub(super) kind: Kind,
    /// The name.
    pub(super) name: String,
    /// PEM of the key that fits.
    pub(super) public_key: String,
}

/// The authentication headers, checked as far as that goes without knowing anybody.
pub(super) fn read(parts: &Parts) -> Result<Head<'_>, AuthError> {
    let header = |name: &str| parts.headers.get(name).map(|value| value.as_bytes());
    Head::read(header, crate::clock::wall(), MAX_SKEW)
}

/// Organization, principal, membership, signature: the first that fails decides (2.1, step 7).
pub(super) async fn authenticate(
    api: &Api,
    head: &Head<'_>,
    org: &str,
    parts: &Parts,
    body: &[u8],
) -> Result<Caller, Failure> {
    let user = head.user();
    let found = api.principals.look_up(org, user).await?;
    if !found.known {
        return Err(AuthError::UnknownPrincipal { user: user.to_owned() }.into());
    }
    if found.members.is_empty() {
        return Err(
            AuthError::NotAssociated { user: user.to_owned(), org: found.org.name.to_string() }.into()
        );
    }
    let (kind, key) = fitting_key(head, parts, body, &found.members)?;
    Ok(Caller { kind, name: user.to_owned(), public_key: key.pem.clone(), org: found.org })
}

/// The first key that fits decides who it was (chef-auth 6.3).
fn fitting_key<'a>(
    head: &Head<'_>,
    parts: &Parts,
    body: &[u8],
    principals: &'a [Arc<Principal>],
) -> Result<(Kind, &'a StoredKey), AuthError> {
    let candidates: Vec<(Kind, &StoredKey, &PublicKey)> = principals
        .iter()
        .flat_map(|who| who.keys.iter().filter_map(|key| Some((who.kind, key, key.parsed()?))))
        .collect();
    let keys = candidates.iter().map(|(_, _, key)| *key);
    let fitting = head.verify(parts.method.as_str(), parts.uri.path(), body, keys)?;
    let (kind, key, _) = candidates[fitting];
    Ok((kind, key))
}

impl Caller {
    /// A line in the audit log: who, from where, and `about`. That it cannot be written stops nothing.
    pub(super) fn audit(&self, api: &Api, parts: &Parts, what: &str, mut about: serde_json::Value) {
        self.describe(api, parts, &mut about);
        api.ops.audit_line(what, about);
    }

    /// Adds who and from where to the object of a line.
    pub(super) fn describe(&self, api: &Api, parts: &Parts, about: &mut serde_json::Value) {
        let origin = api.ops.audit.origin(parts);
        about["org"] = self.org.name.as_str().into();
        about["user"] = self.name.as_str().into();
        about["kind"] = if self.kind == Kind::Client { "client" } else { "user" }.into();
        about["key"] = audit::fingerprint(&self.public_key).into();
        about["address"] = origin.address.map(|address| address.to_string()).into();
        about["via"] = origin.via.map(|address| address.to_string()).into();
    }

    /// The read rule (3.3).
    pub(super) async fn may_read(&self, api: &Api) -> Result<(), Failure> {
        self.may(api, Action::Read).await
    }

    /// The write rule (3.3).
    pub(super) async fn may_write(&self, api: &Api) -> Result<(), Failure> {
        self.may(api, Action::Write).await
    }

    async fn may(&self, api: &Api, action: Action) -> Result<(), Failure> {
        if api.principals.allows(&self.org, self.kind, &self.name, action).await? {
            Ok(())
        } else {
            Err(AuthError::NoAccess { user: self.name.clone() }.into())
        }
    }
}

/// The organizations, of those asked about, of the user who signed a request that needs no signature; none for anybody
/// else.
pub(super) async fn organizations_of_user(
    api: &Api,
    parts: &Parts,
    body: &[u8],
    wanted: impl Fn(&OrgId) -> bool,
) -> Vec<OrgId> {
    let Ok(head) = read(parts) else { return Vec::new() };
    let signed = |user: &Arc<Principal>| fitting_key(&head, parts, body, std::slice::from_ref(user)).is_ok();
    api.principals.organizations_of_user(head.user(), wanted, signed).await
}
