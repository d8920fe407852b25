//! `Pushy::Auth`: Chef's signed headers.

use magnus::{Module, Object, RArray, RHash, RModule, RString, Ruby, function};
use pushy_core::auth::{self, AuthError, Head, PublicKey, SigningKey, Version};
use pushy_core::time::Wall;
use pushy_core::{Error, ErrorCode};

use crate::{convert, error};

fn refused(ruby: &Ruby, reason: &AuthError) -> magnus::Error {
    let code = match reason {
        AuthError::MissingHeaders(_)
        | AuthError::BadTimestamp
        | AuthError::Version
        | AuthError::Malformed(_) => ErrorCode::Malformed,
        AuthError::Clock { .. } => ErrorCode::ClockSkew,
        AuthError::BadSignature { .. } => ErrorCode::BadSignature,
        AuthError::UnknownOrganization { .. } => ErrorCode::NotFound,
        AuthError::UnknownPrincipal { .. } => ErrorCode::Unauthorized,
        AuthError::NotAssociated { .. } | AuthError::NoAccess { .. } => ErrorCode::Forbidden,
    };
    error::raise(ruby, &Error::new(code, reason.to_string()))
}

/// Method, path and body as `lib/pushy/auth.rb` gives them.
type Asked = (String, String, RString);

fn sign(
    ruby: &Ruby,
    key: RString,
    user: String,
    asked: Asked,
    microseconds: i64,
    version: String,
    api_version: Option<String>,
) -> Result<RHash, magnus::Error> {
    let (method, path, body) = asked;
    let body = convert::bytes(body);
    let signed = Version::from_text(&version).and_then(|version| {
        let request = auth::Request {
            version,
            method: &method,
            path: &path,
            body: &body,
            user: &user,
            at: Wall(microseconds),
            api_version: api_version.as_deref(),
        };
        auth::sign(&SigningKey::from_pem(convert::bytes(key))?, &request)
    });
    let headers = ruby.hash_new();
    for (name, value) in signed.map_err(|e| error::raise(ruby, &e))? {
        headers.aset(ruby.str_new(&name), value)?;
    }
    Ok(headers)
}

fn verify(
    ruby: &Ruby,
    keys: RArray,
    asked: Asked,
    headers: RArray,
    microseconds: i64,
    skew: u32,
) -> Result<String, magnus::Error> {
    let (method, path, body) = asked;
    let body = convert::bytes(body);
    let keys = keys
        .into_iter()
        .map(|key| {
            let pem = convert::bytes(<RString as magnus::TryConvert>::try_convert(key)?);
            PublicKey::from_pem(pem).map_err(|e| error::raise(ruby, &e))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let headers = convert::pair_list(headers)?;
    let find = |name: &str| {
        headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    };
    let verdict = Head::read(find, Wall(microseconds), skew).and_then(|head| {
        head.verify(&method, &path, &body, &keys)?;
        Ok(head.user().to_owned())
    });
    verdict.map_err(|reason| refused(ruby, &reason))
}

pub(crate) fn init(module: RModule) -> Result<(), magnus::Error> {
    let auth = module.define_module("Auth")?;
    auth.define_singleton_method("sign_request", function!(sign, 6))?;
    auth.define_singleton_method("verify_request", function!(verify, 5))?;
    Ok(())
}
