//! RSA keys, parsed once and kept: parsing costs more than signing.

use std::fmt;

use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::x509::X509;
use rand_core::{CryptoRng, RngCore};

use crate::error::{Error, ErrorCode, Result};

/// The smallest modulus accepted, in bytes.
const MIN_MODULUS: u32 = 64;
/// The largest modulus accepted, in bytes: a larger one only costs time.
const MAX_MODULUS: u32 = 2048;

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidKey, text)
}

/// A private RSA key, ready to sign. A secret.
#[derive(Clone)]
pub struct SigningKey {
    rsa: Rsa<Private>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} bits)", self.rsa.size() * 8)
    }
}

impl SigningKey {
    /// Reads a PEM file's content: PKCS#1 `RSA PRIVATE KEY` or PKCS#8 `PRIVATE KEY`, not encrypted, RSA, with anything
    /// around it (auth 5.1).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidKey`], saying what is wrong with the content, never showing it.
    pub fn from_pem(text: impl AsRef<[u8]>) -> Result<SigningKey> {
        let text = text.as_ref().trim_ascii();
        let has = |needle: &str| text.windows(needle.len()).any(|w| w == needle.as_bytes());
        let key = PKey::private_key_from_pem_passphrase(text, b"").map_err(|_| {
            if text.is_empty() {
                invalid("the key file is empty")
            } else if has("ENCRYPTED") {
                invalid("the private key is encrypted; store it without a passphrase (openssl rsa -in FILE -out NEW)")
            } else if has("BEGIN OPENSSH PRIVATE KEY") {
                invalid("an OpenSSH private key; convert it to PEM (ssh-keygen -p -m PEM -f FILE)")
            } else if has("PUBLIC KEY-----") || has("BEGIN CERTIFICATE") {
                invalid("a public key; a private key is needed to sign")
            } else {
                invalid("not a private RSA key in PEM format")
            }
        })?;
        let rsa = key.rsa().map_err(|_| invalid("the private key is not an RSA key"))?;
        check_size(rsa.size())?;
        Ok(SigningKey { rsa })
    }

    /// The modulus, in bytes: every signature has this length.
    pub fn size(&self) -> usize {
        self.rsa.size() as usize
    }

    /// The public half as PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when OpenSSL cannot write it.
    pub fn public_pem(&self) -> Result<String> {
        let pem = self
            .rsa
            .public_key_to_pem()
            .map_err(|_| Error::new(ErrorCode::Internal, "cannot write a key"))?;
        Ok(String::from_utf8_lossy(&pem).into_owned())
    }

    /// The private-key operation over `text` itself with PKCS#1 v1.5 type 1 padding and no `DigestInfo`. It is
    /// deterministic.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] when `text` is longer than the modulus less 11 bytes.
    pub(crate) fn seal(&self, text: &[u8], signature: &mut Vec<u8>) -> Result<()> {
        if text.len() + 11 > self.size() {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "{} bytes to sign, a key of {} bits takes {}; use a larger key or protocol 1.3",
                    text.len(),
                    self.size() * 8,
                    self.size() - 11
                ),
            ));
        }
        signature.resize(self.size(), 0);
        self.rsa
            .private_encrypt(text, signature, Padding::PKCS1)
            .map_err(|_| invalid("OpenSSL refuses to sign with this key"))?;
        Ok(())
    }

    /// Takes what [`PublicKey::wrap`] or any PKCS#1 v1.5 encryption made.
    pub(crate) fn unwrap(&self, wrapped: &[u8]) -> Option<Vec<u8>> {
        let mut text = vec![0; self.size()];
        let length = self.rsa.private_decrypt(wrapped, &mut text, Padding::PKCS1).ok()?;
        text.truncate(length);
        Some(text)
    }
}

/// A public RSA key, ready to check signatures.
#[derive(Clone)]
pub struct PublicKey {
    rsa: Rsa<Public>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bits)", self.rsa.size() * 8)
    }
}

impl PublicKey {
    /// Reads PEM: `PUBLIC KEY`, `RSA PUBLIC KEY`, or the key in a `CERTIFICATE`, of which nothing else is looked at.
    /// The text must begin with the PEM line and hold one block, whose label and content agree (auth 5.2).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidKey`], saying what is wrong with the content.
    pub fn from_pem(text: impl AsRef<[u8]>) -> Result<PublicKey> {
        let text = text.as_ref();
        let Some(rest) = text.strip_prefix(b"-----BEGIN ") else {
            return Err(invalid("a public key begins with a line -----BEGIN …-----"));
        };
        if rest.windows(11).any(|w| w == b"-----BEGIN ") {
            return Err(invalid("more than one PEM block; give one public key"));
        }
        let key = if rest.starts_with(b"PUBLIC KEY-----") {
            PKey::public_key_from_pem(text).and_then(|key| key.rsa())
        } else if rest.starts_with(b"RSA PUBLIC KEY-----") {
            Rsa::public_key_from_pem_pkcs1(text)
        } else if rest.starts_with(b"CERTIFICATE-----") {
            X509::from_pem(text).and_then(|certificate| certificate.public_key()?.rsa())
        } else {
            return Err(invalid("not a public key: expected PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE"));
        };
        let rsa = key.map_err(|_| invalid("not a public RSA key in PEM format"))?;
        check_size(rsa.size())?;
        Ok(PublicKey { rsa })
    }

    /// The modulus, in bytes.
    pub fn size(&self) -> usize {
        self.rsa.size() as usize
    }

    /// Whether `signature` holds exactly `text` in a PKCS#1 v1.5 type 1 block: the whole block is compared. A
    /// signature shorter than the modulus is one whose leading zeros were dropped.
    pub(crate) fn opens_to(&self, signature: &[u8], prefix: &[u8], text: &[u8]) -> bool {
        let size = self.size();
        let length = prefix.len() + text.len();
        if signature.len() > size || signature.is_empty() || length + 11 > size {
            return false;
        }
        let mut blocks = [0u8; 3 * MAX_MODULUS as usize];
        let (padded, rest) = blocks.split_at_mut(size);
        let (block, rest) = rest.split_at_mut(size);
        let expected = &mut rest[..size];
        padded[size - signature.len()..].copy_from_slice(signature);
        if !matches!(self.rsa.public_decrypt(padded, block, Padding::NONE), Ok(n) if n == size) {
            return false;
        }
        let start = size - length;
        expected[..start].fill(0xff);
        expected[0] = 0;
        expected[1] = 1;
        expected[start - 1] = 0;
        expected[start..start + prefix.len()].copy_from_slice(prefix);
        expected[start + prefix.len()..].copy_from_slice(text);
        openssl::memcmp::eq(block, expected)
    }

    /// Encrypts `secret` with PKCS#1 v1.5 type 2 padding made from `random` (decision 13).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidKey`] when the key is too small for the secret.
    pub(crate) fn wrap<R: RngCore + CryptoRng + ?Sized>(
        &self,
        secret: &[u8],
        random: &mut R,
    ) -> Result<Vec<u8>> {
        let size = self.size();
        if secret.len() + 11 > size {
            return Err(invalid(format!("a public key of {} bits is too small", size * 8)));
        }
        let mut block = vec![0u8; size];
        block[1] = 2;
        let start = size - secret.len();
        let padding = &mut block[2..start - 1];
        random.fill_bytes(padding);
        for byte in padding {
            while *byte == 0 {
                random.fill_bytes(std::slice::from_mut(byte));
            }
        }
        block[start..].copy_from_slice(secret);
        let mut wrapped = vec![0u8; size];
        let done = self.rsa.public_encrypt(&block, &mut wrapped, Padding::NONE);
        zeroize::Zeroize::zeroize(&mut block);
        done.map_err(|_| invalid("OpenSSL refuses to encrypt with this key"))?;
        Ok(wrapped)
    }
}

fn check_size(size: u32) -> Result<()> {
    if (MIN_MODULUS..=MAX_MODULUS).contains(&size) {
        Ok(())
    } else {
        Err(invalid(format!("an RSA key of {} bits; use 2048 to 4096", size * 8)))
    }
}

/// Whether a configuration value is a key itself and not a path: it starts with the line of an unencrypted private
/// key. The original knows PKCS#1 only and takes PKCS#8 for a path (auth 5.1).
pub fn is_inline_key(value: &str) -> bool {
    ["-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----"]
        .iter()
        .any(|line| value.starts_with(line))
}
