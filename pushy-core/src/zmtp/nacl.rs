//! The few NaCl operations that CurveZMQ (RFC 26) is made of, on RustCrypto's and dalek's primitives: no
//! `unsafe` here, and no failure but a wrong box.
//!
//! X25519 measured both ways on a 2-core machine, best of 8 × 400 rounds: a shared key takes 50.9 µs with
//! x25519-dalek and 42.6 µs with OpenSSL 3, a new pair 17.8 and 44.1 µs. A server's handshake is three of the
//! first and one of the second, 171 against 172 µs, so dalek, which cannot fail, is kept (decision 13).

use crypto_secretbox::aead::{AeadInPlace, KeyInit};
use crypto_secretbox::{Nonce, Tag, XSalsa20Poly1305};
use salsa20::cipher::consts::U10;
use salsa20::hsalsa;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use crate::server::{CurveKey, Random};

/// Bytes that a box is longer than what is in it.
pub(super) const TAG: usize = 16;

/// The secret half of a CURVE pair, with its public half. Wiped when dropped; has no `Debug`.
#[derive(Clone)]
pub struct CurveSecret {
    secret: StaticSecret,
    public: CurveKey,
}

impl CurveSecret {
    /// A new pair.
    pub fn generate(random: &mut dyn Random) -> CurveSecret {
        let mut secret = Zeroizing::new([0; 32]);
        random.fill_bytes(&mut *secret);
        CurveSecret::from_bytes(&secret)
    }

    /// The pair whose secret half is this; any 32 bytes are one.
    pub fn from_bytes(secret: &[u8; 32]) -> CurveSecret {
        let secret = StaticSecret::from(*secret);
        let public = CurveKey(PublicKey::from(&secret).to_bytes());
        CurveSecret { secret, public }
    }

    /// The secret half, for a file that only its owner may read.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> CurveKey {
        self.public
    }

    /// NaCl's `crypto_box_beforenm`. `None` for a low-order point, whose shared secret everybody knows
    /// (decision 12.3).
    pub(super) fn shared(&self, theirs: &[u8; 32]) -> Option<BoxKey> {
        let point = self.secret.diffie_hellman(&PublicKey::from(*theirs));
        if !point.was_contributory() {
            return None;
        }
        let mut key = hsalsa::<U10>(point.as_bytes().into(), &[0; 16].into());
        let shared = BoxKey(XSalsa20Poly1305::new(&key));
        key.as_mut_slice().zeroize();
        Some(shared)
    }
}

/// What two pairs share: seals and opens boxes between them. Wiped when dropped; has no `Debug`.
pub(super) struct BoxKey(XSalsa20Poly1305);

impl BoxKey {
    /// Seals what `out` holds from `at` on: the first [`TAG`] bytes are room for the tag, the rest is content.
    pub(super) fn seal(&self, nonce: &[u8; 24], out: &mut [u8], at: usize) {
        let Some((tag, content)) = out.get_mut(at..).and_then(|b| b.split_at_mut_checked(TAG)) else {
            return;
        };
        match self.0.encrypt_in_place_detached(Nonce::from_slice(nonce), b"", content) {
            Ok(made) => tag.copy_from_slice(&made),
            // Only associated data fails, and there is none; if it did, nothing would leave in the clear.
            Err(_) => content.fill(0),
        }
    }

    /// Opens a box. `None` when it was not sealed with this key and nonce.
    pub(super) fn open(&self, nonce: &[u8; 24], boxed: &[u8]) -> Option<Vec<u8>> {
        let (tag, content) = boxed.split_at_checked(TAG)?;
        let mut content = content.to_vec();
        let tag = Tag::from_slice(tag);
        self.0.decrypt_in_place_detached(Nonce::from_slice(nonce), b"", &mut content, tag).ok()?;
        Some(content)
    }
}

/// A nonce: what the box is for, then what makes it unique.
pub(super) fn nonce(prefix: &[u8], rest: &[u8]) -> [u8; 24] {
    let mut nonce = [0; 24];
    for (to, from) in nonce.iter_mut().zip(prefix.iter().chain(rest)) {
        *to = *from;
    }
    nonce
}
