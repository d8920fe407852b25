//! Two frames ↔ (header, body).

use zeroize::ZeroizeOnDrop;

/// The key that signs the messages between one node and the server, both ways: 32 random bytes.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct SessionKey(pub [u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(…)")
    }
}
