//! TLS as Chef configures it (chef-auth 9.12). Built when the first `https` request is made: an `http` server never
//! costs a look at certificates (decision 27).

use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslContextBuilder, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::{X509Lookup, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;

use crate::error::{Error, ErrorCode, Result};

/// Folders where systems keep their CAs under hashed names, of which OpenSSL reads only the one it needs: reading the
/// whole bundle costs 50 to 70 ms.
const HASHED_CA_DIRS: &[&str] = &[
    "/etc/ssl/certs",
    "/etc/pki/ca-trust/extracted/pem/directory-hash",
    "/etc/pki/tls/certs",
    "/etc/openssl/certs",
];

/// Chef's TLS settings. Paths are used as they are; make them absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `ssl_verify_mode :verify_none` without `verify_api_cert`: any certificate will do.
    pub no_verify: bool,
    /// `ssl_ca_path`: a folder of CAs under hashed names; wins over the next two.
    pub ca_path: Option<PathBuf>,
    /// `ssl_ca_file`: a bundle; wins over the next.
    pub ca_file: Option<PathBuf>,
    /// `SSL_CERT_FILE` of the environment: a bundle in place of the system's CAs.
    pub env_cert_file: Option<PathBuf>,
    /// `trusted_certs_dir`: its `*.crt` and `*.pem` are trusted besides; need not exist.
    pub trusted_certs_dir: Option<PathBuf>,
    /// `ssl_client_cert`, PEM.
    pub client_cert: Option<PathBuf>,
    /// `ssl_client_key`, PEM; both or neither.
    pub client_key: Option<PathBuf>,
}

/// Makes the context for every connection of a client.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] naming the setting and the file that cannot be used.
pub(super) fn context(settings: &TlsSettings) -> Result<SslContext> {
    let internal =
        |e: ErrorStack| Error::new(ErrorCode::Internal, format!("cannot set up TLS: {}", reason(&e)));
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).map_err(internal)?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(internal)?;
    if settings.no_verify {
        builder.set_verify(SslVerifyMode::NONE);
    } else {
        let mut store = X509StoreBuilder::new().map_err(internal)?;
        // A certificate of trusted_certs_dir is trusted whether it is a CA or not (`knife ssl fetch`).
        store.set_flags(X509VerifyFlags::PARTIAL_CHAIN).map_err(internal)?;
        add_authorities(&mut store, settings)?;
        if let Some(dir) = &settings.trusted_certs_dir {
            add_trusted(&mut store, dir)?;
        }
        builder.set_cert_store(store.build());
        builder.set_verify(SslVerifyMode::PEER);
    }
    match (&settings.client_cert, &settings.client_key) {
        (None, None) => {}
        (Some(cert), Some(key)) => {
            builder.set_certificate_chain_file(cert).map_err(|e| unusable("ssl_client_cert", cert, &e))?;
            builder
                .set_private_key_file(key, SslFiletype::PEM)
                .and_then(|()| builder.check_private_key())
                .map_err(|e| unusable("ssl_client_key", key, &e))?;
        }
        _ => {
            return Err(Error::new(
                ErrorCode::InvalidConfig,
                "ssl_client_cert and ssl_client_key must be given together",
            ));
        }
    }
    Ok(builder.build())
}

fn add_authorities(store: &mut X509StoreBuilder, settings: &TlsSettings) -> Result<()> {
    let chosen = match (&settings.ca_path, &settings.ca_file, &settings.env_cert_file) {
        (Some(dir), _, _) => {
            if !dir.is_dir() {
                return Err(missing("ssl_ca_path", dir));
            }
            return add_dir(store, "ssl_ca_path", dir);
        }
        (None, Some(file), _) => Some(("ssl_ca_file", file)),
        (None, None, Some(file)) => Some(("SSL_CERT_FILE", file)),
        (None, None, None) => None,
    };
    if let Some((setting, file)) = chosen {
        return store
            .add_lookup(X509Lookup::file())
            .and_then(|lookup| lookup.load_cert_file(file, SslFiletype::PEM))
            .map(|_| ())
            .map_err(|e| if file.exists() { unusable(setting, file, &e) } else { missing(setting, file) });
    }
    if let Some(dir) = HASHED_CA_DIRS.iter().map(Path::new).find(|dir| is_hashed(dir)) {
        return add_dir(store, "CA folder", dir);
    }
    store.set_default_paths().map_err(|e| {
        Error::new(ErrorCode::InvalidConfig, format!("cannot read the system's CAs: {}", reason(&e)))
    })
}

fn add_dir(store: &mut X509StoreBuilder, setting: &str, dir: &Path) -> Result<()> {
    // The binding takes text only.
    let text = dir.to_str().ok_or_else(|| {
        Error::new(ErrorCode::InvalidConfig, format!("{setting} {} is not UTF-8", dir.display()))
    })?;
    store
        .add_lookup(X509Lookup::hash_dir())
        .and_then(|lookup| lookup.add_dir(text, SslFiletype::PEM))
        .map_err(|e| unusable(setting, dir, &e))
}

/// Whether a folder holds a file named as OpenSSL looks it up: eight hex digits, a dot, a number.
fn is_hashed(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.len() > 9
                && name[8] == b'.'
                && name[..8].iter().all(u8::is_ascii_hexdigit)
                && name[9..].iter().all(u8::is_ascii_digit)
        })
    })
}

fn add_trusted(store: &mut X509StoreBuilder, dir: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "crt" || e == "pem"))
        .collect();
    files.sort();
    for file in files {
        #[expect(clippy::disallowed_methods, reason = "the client is the part of the core that does I/O")]
        let text = std::fs::read(&file).map_err(|e| {
            Error::new(
                ErrorCode::InvalidConfig,
                format!("trusted_certs_dir: cannot read {}: {e}", file.display()),
            )
        })?;
        // The first certificate of each file counts; one that is there twice does no harm.
        let cert = X509::from_pem(&text).map_err(|e| unusable("trusted_certs_dir", &file, &e))?;
        store.add_cert(cert).map_err(|e| unusable("trusted_certs_dir", &file, &e))?;
    }
    Ok(())
}

fn missing(setting: &str, path: &Path) -> Error {
    Error::new(ErrorCode::InvalidConfig, format!("{setting} {} does not exist", path.display()))
}

fn unusable(setting: &str, path: &Path, error: &ErrorStack) -> Error {
    Error::new(
        ErrorCode::InvalidConfig,
        format!("{setting}: cannot use {}: {}", path.display(), reason(error)),
    )
}

/// OpenSSL's first reason in words.
pub(super) fn reason(error: &ErrorStack) -> String {
    error.errors().iter().find_map(|e| e.reason()).unwrap_or("unknown reason").to_ascii_lowercase()
}
