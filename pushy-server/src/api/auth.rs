//! Who asks, and whether they may: signed headers, look-ups and rules in the order of 2.1 and 3.3.

use axum::http::request::Parts;
use pushy_core::auth::{AuthError, Head, MAX_SKEW, PublicKey};
use pushy_core::ids::OrgId;

use super::{Api, OrgRef};
use crate::directory::{Kind, Org, StoredKey};

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
pub(super) fn authenticate(
    api: &Api,
    head: &Head<'_>,
    org: &str,
    parts: &Parts,
    body: &[u8],
) -> Result<Caller, AuthError> {
    let user = head.user();
    let (org, principals) = {
        let directory = api.directory();
        let Some((name, found)) = directory.named_org(org) else {
            return Err(AuthError::UnknownOrganization { org: org.to_owned() });
        };
        (OrgRef { name: name.clone(), id: found.id.clone() }, directory.principals(org, user))
    };
    if principals.is_empty() {
        return Err(AuthError::UnknownPrincipal { user: user.to_owned() });
    }
    let mut candidates: Vec<(Kind, &StoredKey, &PublicKey)> = Vec::new();
    let mut belongs = false;
    for (principal, member) in &principals {
        if *member {
            belongs = true;
            let keys = principal.keys.iter().filter_map(|key| Some((principal.kind, key, key.parsed()?)));
            candidates.extend(keys);
        }
    }
    if !belongs {
        return Err(AuthError::NotAssociated { user: user.to_owned(), org: org.name.to_string() });
    }
    let keys = candidates.iter().map(|(_, _, key)| *key);
    let fitting = head.verify(parts.method.as_str(), parts.uri.path(), body, keys)?;
    let (kind, key, _) = candidates[fitting];
    Ok(Caller { org, kind, name: user.to_owned(), public_key: key.pem.clone() })
}

impl Caller {
    /// The read rule (3.3).
    pub(super) fn may_read(&self, api: &Api) -> Result<(), AuthError> {
        self.allowed(api, Org::may_read)
    }

    /// The write rule (3.3).
    pub(super) fn may_write(&self, api: &Api) -> Result<(), AuthError> {
        self.allowed(api, Org::may_write)
    }

    fn allowed(&self, api: &Api, rule: fn(&Org, Kind, &str) -> bool) -> Result<(), AuthError> {
        let directory = api.directory();
        let allowed =
            directory.org(self.org.name.as_str()).is_some_and(|org| rule(org, self.kind, &self.name));
        if allowed { Ok(()) } else { Err(AuthError::NoAccess { user: self.name.clone() }) }
    }
}

/// The organizations of the user who signed a request that needs no signature; none for anybody else.
pub(super) fn organizations_of_user(api: &Api, parts: &Parts, body: &[u8]) -> Vec<OrgId> {
    let Ok(head) = read(parts) else { return Vec::new() };
    let directory = api.directory();
    let Some(user) = directory.user(head.user()) else { return Vec::new() };
    let keys = user.keys.iter().filter_map(StoredKey::parsed);
    if head.verify(parts.method.as_str(), parts.uri.path(), body, keys).is_err() {
        return Vec::new();
    }
    let theirs = directory.orgs().filter(|(_, org)| org.users.contains(&user.name));
    theirs.map(|(_, org)| org.id.clone()).collect()
}
