//! What identifies the server: RSA key, CURVE pair and incarnation id, in one file (decision 5).
//!
//! The incarnation id changes whenever nodes may hold something newer than the server does: new keys, or a database
//! that is not the one these keys were last started with. A changed id makes every node fetch its configuration.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use pushy_core::auth::PublicKey;
use pushy_core::ids::IncarnationId;
use pushy_core::server::ServerKeys;
use pushy_core::zmtp::CurveSecret;
use pushy_core::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::store::StoreIdentity;

/// The name of the file in the server's directory.
pub const FILE: &str = "keys.json";

/// Bits of every RSA key made here.
const RSA_BITS: u32 = 2048;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    incarnation_id: IncarnationId,
    curve_secret_key: String,
    signing_key: String,
    /// The database these keys go with, and how often they were started together.
    store_id: String,
    generation: u64,
}

/// The server's keys. Secret: neither printed nor logged.
pub struct Keys {
    document: Document,
    curve: CurveSecret,
}

/// A new RSA key pair as PEM texts: (private, public).
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_rsa_pair() -> Result<(String, String)> {
    let pair = || {
        let rsa = Rsa::generate(RSA_BITS)?;
        Ok((rsa.private_key_to_pem()?, rsa.public_key_to_pem()?))
    };
    let (private, public) =
        pair().map_err(|e: openssl::error::ErrorStack| internal("making an RSA key", &e))?;
    Ok((text(private), text(public)))
}

/// Checks a public key given as text: SubjectPublicKeyInfo, PKCS#1 or a certificate. Answers the text to keep.
///
/// # Errors
/// [`ErrorCode::InvalidKey`] when it is none of these.
pub fn checked_public_key(pem: &str) -> Result<String> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(Error::new(ErrorCode::InvalidKey, "this is a private key; give the public one"));
    }
    let pem = format!("{}\n", pem.trim());
    PublicKey::from_pem(&pem)?;
    Ok(pem)
}

impl Keys {
    /// Makes new keys that go with a new database.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate(store: &StoreIdentity) -> Result<Keys> {
        let (signing_key, _) = new_rsa_pair()?;
        let curve = CurveSecret::generate(&mut rand_core::OsRng);
        Keys::from_document(Document {
            incarnation_id: IncarnationId::generate(&mut rand_core::OsRng),
            curve_secret_key: BASE64.encode(curve.to_bytes()),
            signing_key,
            store_id: store.store_id.clone(),
            generation: store.generation,
        })
    }

    /// Reads the key file.
    ///
    /// # Errors
    /// When it is missing, unreadable or not what [`Keys::save`] wrote. Never says what is in it.
    pub fn load(dir: &Path) -> Result<Keys> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                ErrorCode::InvalidKey,
                format!(
                    "{}: no such file; restore it from a backup, nodes know the server by it",
                    path.display()
                ),
            ),
            _ => Error::new(ErrorCode::InvalidKey, format!("{}: {e}", path.display())),
        })?;
        let bad = |what| Error::new(ErrorCode::InvalidKey, format!("{}: {what}", path.display()));
        let document = serde_json::from_str(&text).map_err(|e| {
            bad(format!("not a key file of pushy-server (line {}, column {})", e.line(), e.column()))
        })?;
        Keys::from_document(document).map_err(|e| bad(e.message().to_owned()))
    }

    fn from_document(document: Document) -> Result<Keys> {
        let bad = |what| Error::new(ErrorCode::InvalidKey, what);
        let secret = BASE64.decode(&document.curve_secret_key).ok();
        let curve_secret: [u8; 32] = secret
            .and_then(|s| s.try_into().ok())
            .ok_or_else(|| bad("`curve_secret_key` is not 32 bytes in Base64"))?;
        signing_key(&document.signing_key)
            .ok_or_else(|| bad("`signing_key` is not an RSA private key in PEM form"))?;
        Ok(Keys { document, curve: CurveSecret::from_bytes(&curve_secret) })
    }

    /// Writes the key file, 0600.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.document)
            .map_err(|e| Error::new(ErrorCode::Internal, format!("writing keys: {e}")))?;
        files::write(&dir.join(FILE), &(text + "\n"), true)
    }

    /// Compares the database with the one these keys were last started with, and takes a new incarnation id when
    /// nodes may hold something newer than it has. Says whether it did. The next start is generation + 1.
    pub fn go_with(&mut self, store: &StoreIdentity) -> bool {
        let known = &self.document;
        // The database is raised first: one ahead is a start that was cut short, behind is an older copy.
        let same = known.store_id == store.store_id
            && (store.generation == known.generation || store.generation == known.generation + 1);
        if !same {
            self.document.incarnation_id = IncarnationId::generate(&mut rand_core::OsRng);
            self.document.store_id = store.store_id.clone();
        }
        self.document.generation = store.generation.max(self.document.generation) + 1;
        !same
    }

    /// Takes a new incarnation id: the database is no longer what nodes knew.
    pub fn renew_incarnation(&mut self) {
        self.document.incarnation_id = IncarnationId::generate(&mut rand_core::OsRng);
    }

    /// How often keys and database were started together.
    pub fn generation(&self) -> u64 {
        self.document.generation
    }

    /// The id of this set of keys.
    pub fn incarnation(&self) -> &IncarnationId {
        &self.document.incarnation_id
    }

    /// The CURVE pair, for the broker.
    pub fn curve_secret(&self) -> CurveSecret {
        CurveSecret::from_bytes(&self.curve.to_bytes())
    }

    /// What the machine needs of them.
    pub fn for_machine(&self, server_name: String) -> ServerKeys {
        ServerKeys {
            signing: self.document.signing_key.clone(),
            curve_public: self.curve.public(),
            incarnation: self.document.incarnation_id.clone(),
            server_name,
        }
    }
}

fn signing_key(pem: &str) -> Option<Rsa<Private>> {
    // With a password given, OpenSSL does not ask the terminal for one.
    Rsa::private_key_from_pem_passphrase(pem.as_bytes(), b"").ok()
}

fn internal(what: &str, error: &openssl::error::ErrorStack) -> Error {
    Error::new(ErrorCode::Internal, format!("{what}: {error}"))
}

fn text(pem: Vec<u8>) -> String {
    String::from_utf8_lossy(&pem).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str, generation: u64) -> StoreIdentity {
        StoreIdentity { store_id: id.into(), generation }
    }

    #[test]
    fn the_incarnation_changes_with_the_database_only() {
        let mut keys = Keys::generate(&identity("a", 0)).unwrap();
        let mut check = |store: &str, generation, changes| {
            let before = keys.incarnation().clone();
            assert_eq!(keys.go_with(&identity(store, generation)), changes, "{store} {generation}");
            assert_eq!(keys.incarnation() != &before, changes, "{store} {generation}");
        };
        check("a", 0, false);
        check("a", 1, false);
        check("a", 3, false); // the last start was cut short after raising the database
        check("a", 2, true); // an older copy
        check("b", 0, true);
    }

    #[test]
    fn a_damaged_file_is_named_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let check = |content: Option<&str>, message: &str| {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap_or_default(),
            }
            let error = Keys::load(dir.path()).err().expect("refused");
            assert_eq!(error.code(), ErrorCode::InvalidKey);
            assert_eq!(error.message(), format!("{}: {message}", path.display()));
        };
        check(None, "no such file; restore it from a backup, nodes know the server by it");
        check(Some("{\n\"secret\": 1}"), "not a key file of pushy-server (line 2, column 8)");
        let keys = Keys::generate(&identity("a", 0)).unwrap();
        keys.save(dir.path()).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        check(Some(&good.replace("BEGIN", "BEGUN")), "`signing_key` is not an RSA private key in PEM form");
        let short = good.replace(&keys.document.curve_secret_key, "AAAA");
        check(Some(&short), "`curve_secret_key` is not 32 bytes in Base64");
        std::fs::write(&path, &good).unwrap();
        let again = Keys::load(dir.path()).unwrap();
        assert_eq!(again.curve.public(), keys.curve.public());
        assert_eq!(again.incarnation(), keys.incarnation());
    }

    #[test]
    fn public_keys_are_checked() {
        let (private, public) = new_rsa_pair().unwrap();
        let rsa = Rsa::private_key_from_pem(private.as_bytes()).unwrap();
        let pkcs1 = text(rsa.public_key_to_pem_pkcs1().unwrap());
        for good in [&public, &pkcs1, &format!("\n{}", public.trim_end())] {
            assert_eq!(checked_public_key(good).unwrap().trim(), good.trim());
        }
        let check = |bad: &str, message: &str| {
            assert_eq!(checked_public_key(bad).unwrap_err().message(), message);
        };
        check(&private, "this is a private key; give the public one");
        check("x", "a public key begins with a line -----BEGIN …-----");
    }
}
