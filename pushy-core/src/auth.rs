//! Chef's signed headers: signing requests and checking them, protocol versions 1.0, 1.1 and 1.3 (3.1).

mod key;

pub use key::{PublicKey, SigningKey};
