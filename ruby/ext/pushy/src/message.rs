//! `Pushy::Message`: the two frames that server and nodes exchange (4.3 to 4.9).

use magnus::{Module, Object, RModule, RString, Ruby, Value, function};
use pushy_core::message::{FromNode, FromServer};
use pushy_core::wire::{self, Channel, RsaSigner, RsaVerifier, WireError};
use pushy_core::{Error, ErrorCode};

use crate::{convert, error};

fn refused(ruby: &Ruby, reason: &WireError) -> magnus::Error {
    let code = match reason {
        WireError::HeaderTooLarge(_) | WireError::BodyTooLarge { .. } => ErrorCode::TooLarge,
        WireError::Version | WireError::Method | WireError::Signature => ErrorCode::BadSignature,
        WireError::Body(_) => ErrorCode::Malformed,
        WireError::Skew(_) => ErrorCode::ClockSkew,
    };
    error::raise(ruby, &Error::new(code, reason.to_string()))
}

fn session_header(ruby: &Ruby, body: RString, session_key: RString) -> RString {
    ruby.str_from_slice(&wire::hmac_header(&convert::bytes(session_key), &convert::bytes(body)))
}

fn rsa_header(ruby: &Ruby, body: RString, private_key: String) -> Result<RString, magnus::Error> {
    let header = RsaSigner::from_pem(&private_key).and_then(|signer| signer.header(&convert::bytes(body)));
    header.map(|header| ruby.str_from_slice(&header)).map_err(|e| error::raise(ruby, &e))
}

fn check_from_node(ruby: &Ruby, header: RString, body: RString, key: RString) -> Result<bool, magnus::Error> {
    wire::check_from_node(&convert::bytes(key), &convert::bytes(header), &convert::bytes(body))
        .map(|()| true)
        .map_err(|reason| refused(ruby, &reason))
}

fn check_from_server(
    ruby: &Ruby,
    header: RString,
    body: RString,
    session_key: RString,
    server_key: String,
) -> Result<magnus::Symbol, magnus::Error> {
    let server = RsaVerifier::from_pem(&server_key).map_err(|e| error::raise(ruby, &e))?;
    let (key, header, body) = (convert::bytes(session_key), convert::bytes(header), convert::bytes(body));
    match wire::check_from_server(&key, &server, &header, &body) {
        Ok(Channel::Command) => Ok(ruby.to_symbol("command")),
        Ok(Channel::Heartbeat) => Ok(ruby.to_symbol("heartbeat")),
        Err(reason) => Err(refused(ruby, &reason)),
    }
}

fn from_node(ruby: &Ruby, body: RString) -> Result<Value, magnus::Error> {
    let body = convert::bytes(body);
    FromNode::decode(&body).map_err(|reason| refused(ruby, &reason.into()))?;
    members(ruby, &body)
}

fn from_server(ruby: &Ruby, body: RString) -> Result<Value, magnus::Error> {
    let body = convert::bytes(body);
    FromServer::decode(&body).map_err(|reason| refused(ruby, &reason.into()))?;
    members(ruby, &body)
}

/// Every member, also those that this version does not know.
fn members(ruby: &Ruby, body: &[u8]) -> Result<Value, magnus::Error> {
    let json = serde_json::from_slice(body)
        .map_err(|_| refused(ruby, &pushy_core::message::DecodeError::NotAnObject.into()))?;
    convert::document(ruby, &json)
}

pub(crate) fn init(module: RModule) -> Result<(), magnus::Error> {
    let message = module.define_module("Message")?;
    message.define_singleton_method("session_header", function!(session_header, 2))?;
    message.define_singleton_method("rsa_header", function!(rsa_header, 2))?;
    message.define_singleton_method("check_from_node", function!(check_from_node, 3))?;
    message.define_singleton_method("check_from_server", function!(check_from_server, 4))?;
    message.define_singleton_method("from_node", function!(from_node, 1))?;
    message.define_singleton_method("from_server", function!(from_server, 1))?;
    Ok(())
}
