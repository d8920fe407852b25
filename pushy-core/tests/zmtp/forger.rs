//! A CURVE client of its own, straight from RFC 26: for what an honest end would never send.

use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use pushy_core::curve_key::CurveKey;
use pushy_core::zmtp::CurveSecret;
use salsa20::cipher::consts::U10;
use salsa20::hsalsa;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::ends::{body_of, command, rng, server_key};

/// One key pair; as a client, the transient one.
pub(crate) struct Forger {
    secret: StaticSecret,
}

fn nonce(prefix: &[u8], rest: &[u8]) -> Nonce {
    *Nonce::from_slice(&[prefix, rest].concat())
}

impl Forger {
    /// The pair that `ends::secret` makes of the same seed.
    pub(crate) fn new(seed: u64) -> Forger {
        Forger { secret: StaticSecret::from(*CurveSecret::generate(&mut rng(seed)).to_bytes()) }
    }

    pub(crate) fn public(&self) -> CurveKey {
        CurveKey(PublicKey::from(&self.secret).to_bytes())
    }

    fn seal(&self, to: &[u8; 32], nonce: Nonce, content: &[u8]) -> Vec<u8> {
        self.shared(to).encrypt(&nonce, content).expect("there is memory")
    }

    fn shared(&self, with: &[u8; 32]) -> XSalsa20Poly1305 {
        let point = self.secret.diffie_hellman(&PublicKey::from(*with));
        XSalsa20Poly1305::new(&hsalsa::<U10>(point.as_bytes().into(), &[0; 16].into()))
    }

    /// HELLO.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let count = 1u64.to_be_bytes();
        let boxed = self.seal(&server_key().0, nonce(b"CurveZMQHELLO---", &count), &[0; 64]);
        command(&[&b"\x05HELLO\x01\x00"[..], &[0; 72], &self.public().0, &count, &boxed].concat())
    }

    /// INITIATE in answer to a WELCOME, saying that `claims` is our long-term key, with a vouch of this content
    /// sealed by that key.
    pub(crate) fn initiate(
        &self,
        welcome: &[u8],
        vouched: [CurveKey; 2],
        sealed_by: &Forger,
        claims: CurveKey,
    ) -> Vec<u8> {
        let welcome = body_of(welcome);
        let content = self
            .shared(&server_key().0)
            .decrypt(&nonce(b"WELCOME-", &welcome[8..24]), &welcome[24..])
            .expect("our server made it");
        let server: [u8; 32] = content[..32].try_into().expect("32 bytes");
        let vouch = sealed_by.seal(&server, nonce(b"VOUCH---", &[9; 16]), &vouched.map(|k| k.0).concat());
        let metadata = b"\x0bSocket-Type\0\0\0\x06DEALER";
        let inner = [&claims.0[..], &[9; 16], &vouch, metadata].concat();
        let count = 2u64.to_be_bytes();
        let boxed = self.seal(&server, nonce(b"CurveZMQINITIATE", &count), &inner);
        command(&[&b"\x08INITIATE"[..], &content[32..], &count, &boxed].concat())
    }
}
