//! TLS of the REST API: 1.2 and later, HTTP/1.1.

use std::path::Path;
use std::sync::Arc;

use axum_server::tls_openssl::OpenSSLConfig;
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{AlpnError, SslAcceptor, SslMethod, select_next_proto};
use pushy_core::{Error, ErrorCode, Result};

use crate::files;

/// The protocols offered, each with its length before it.
const PROTOCOLS: &[u8] = b"\x08http/1.1";

/// Reads certificate chain and key.
///
/// # Errors
/// When a file cannot be read, or the two are not what they should be or do not belong together.
pub(crate) fn config(cert: &Path, key: &Path) -> Result<OpenSSLConfig> {
    Ok(OpenSSLConfig::from_acceptor(acceptor_of(cert, key)?))
}

/// The same for a listener that has a configuration already.
///
/// # Errors
/// As [`config`].
pub(crate) fn acceptor_of(cert: &Path, key: &Path) -> Result<Arc<SslAcceptor>> {
    for path in [cert, key] {
        std::fs::File::open(path).map_err(|e| files::io(path, &e))?;
    }
    let acceptor = acceptor(cert, key).map_err(|_| {
        let what = "not a certificate chain and its unencrypted private key in PEM form";
        let text = format!("tls_cert {} and tls_key {}: {what}", cert.display(), key.display());
        Error::new(ErrorCode::InvalidKey, text)
    })?;
    Ok(Arc::new(acceptor))
}

fn acceptor(cert: &Path, key: &Path) -> std::result::Result<SslAcceptor, ErrorStack> {
    // Not the "modern" set: Chef clients that know TLS 1.2 only are still about.
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_certificate_chain_file(cert)?;
    // With a password given, OpenSSL does not ask the terminal for one.
    let key = std::fs::read(key).unwrap_or_default();
    let key = PKey::private_key_from_pem_passphrase(&key, b"")?;
    builder.set_private_key(&key)?;
    builder.check_private_key()?;
    builder
        .set_alpn_select_callback(|_, offered| select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::NOACK));
    Ok(builder.build())
}
