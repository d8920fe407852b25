//! The 64 bytes that open a ZMTP connection (RFC 23 and 37): signature, version, mechanism, as-server.

use super::Refusal;

/// Bytes of a greeting of ZMTP 3.
pub(super) const LEN: usize = 64;

/// How a connection is protected. Fixed by the role, never negotiated (decision 12.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Not at all.
    Null,
    /// CurveZMQ.
    Curve,
}

impl Mechanism {
    fn field(self) -> &'static [u8; 20] {
        match self {
            Mechanism::Null => b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            Mechanism::Curve => b"CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }
}

/// Our greeting: version 3.1.
pub(super) fn ours(mechanism: Mechanism, as_server: bool) -> [u8; LEN] {
    let mut greeting = [0; LEN];
    greeting[0] = 0xff;
    greeting[8] = 1;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[11] = 1;
    greeting[12..32].copy_from_slice(mechanism.field());
    greeting[32] = u8::from(as_server);
    greeting
}

/// Judges as much of the peer's greeting as has arrived, and answers the minor version once it is whole.
///
/// The length inside the signature, the as-server byte (libzmq leaves it 0 on both sides) and the padding are
/// ignored. A peer of ZMTP 2 or 1 sends less than 64 bytes, so each byte is judged as it comes.
pub(super) fn check(theirs: &[u8], mechanism: Mechanism) -> Result<Option<u8>, Refusal> {
    let at = |i: usize, good: fn(u8) -> bool| theirs.get(i).is_none_or(|b| good(*b));
    if !at(0, |b| b == 0xff) || !at(9, |b| b == 0x7f) {
        return Err(Refusal::NotZmtp);
    }
    if !at(10, |b| b >= 3) {
        return Err(Refusal::OldVersion);
    }
    let named = theirs.get(12..).unwrap_or_default();
    if named.iter().zip(mechanism.field()).any(|(a, b)| a != b) {
        return Err(Refusal::Mechanism);
    }
    Ok(if theirs.len() < LEN {
        None
    } else if theirs[10] > 3 {
        // A later protocol is spoken down to ours.
        Some(1)
    } else {
        Some(theirs[11])
    })
}
