//! Why a connection ends.

use crate::{Error, ErrorCode};

/// Why a connection ends. Nothing of it is told to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The greeting's signature is wrong.
    #[error("peer does not speak ZMTP")]
    NotZmtp,
    /// ZMTP below 3.0, or a CurveZMQ other than 1.0.
    #[error("peer speaks ZMTP or CurveZMQ of another version; 3.0 or later with CURVE 1.0 is needed")]
    OldVersion,
    /// CURVE and NULL have a port each.
    #[error("peer offers another security mechanism than this port has")]
    Mechanism,
    /// Reserved or contradictory flags.
    #[error("frame with wrong flags")]
    Flags,
    /// A frame beyond its limit.
    #[error("frame longer than allowed")]
    TooLong,
    /// A command of the wrong length.
    #[error("command of a wrong length")]
    Length,
    /// A command that does not belong here, or a broken one.
    #[error("unexpected or malformed command")]
    Command,
    /// HELLO or WELCOME does not open: the two ends have different ideas of the server's key.
    #[error("peer uses another server key; it must fetch its configuration again")]
    ServerKey,
    /// A low-order point (decision 12.3).
    #[error("peer uses a weak key")]
    WeakKey,
    /// A box does not open.
    #[error("box sealed with another key, or damaged")]
    Box,
    /// INITIATE brings back another cookie.
    #[error("cookie is not this connection's")]
    Cookie,
    /// The vouch is not for this connection and this server.
    #[error("vouch does not fit this connection")]
    Vouch,
    /// A nonce that does not rise (decision 12.6).
    #[error("nonce used before")]
    Nonce,
    /// Broken properties.
    #[error("malformed metadata")]
    Metadata,
    /// Not the socket type that belongs on this port.
    #[error("peer has the wrong socket type for this port")]
    SocketType,
    /// Bytes before the handshake was answered.
    #[error("peer sent data before the handshake was complete")]
    Early,
    /// A message that has not exactly two frames (decision 12.10).
    #[error("message does not have exactly two frames")]
    FrameCount,
    /// More than [`super::MAX_SUBSCRIPTIONS`].
    #[error("too many subscriptions")]
    Subscriptions,
    /// The peer sent ERROR.
    #[error("peer refused the connection")]
    PeerError,
    /// No READY within [`super::HANDSHAKE_DEADLINE`].
    #[error("handshake not complete within 10 seconds")]
    Deadline,
    /// No answer to a PING.
    #[error("peer does not answer")]
    Silent,
    /// The connection ended before.
    #[error("connection has ended")]
    Ended,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let code = match refusal {
            Refusal::Deadline | Refusal::Silent => ErrorCode::Timeout,
            Refusal::TooLong => ErrorCode::TooLarge,
            Refusal::Ended => ErrorCode::InvalidState,
            _ => ErrorCode::Protocol,
        };
        Error::new(code, refusal.to_string())
    }
}
