//! Frames (RFC 23): one byte of flags, a length of one or eight bytes, the body; and commands inside of them.

use super::Refusal;

/// More frames of this message follow.
pub(super) const MORE: u8 = 1;
/// The length has eight bytes.
pub(super) const LONG: u8 = 2;
/// A command, not part of a message.
pub(super) const COMMAND: u8 = 4;

/// The start of a frame, judged before its body arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Flags without [`LONG`].
    pub(super) flags: u8,
    /// Bytes of the head itself.
    pub(super) len: usize,
    /// Bytes of the body that follows.
    pub(super) body: usize,
}

/// Reads the head of a frame. `None` when more bytes are needed.
pub(super) fn head(bytes: &[u8], limit: usize) -> Result<Option<Head>, Refusal> {
    let Some(&flags) = bytes.first() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
        return Err(Refusal::Flags);
    }
    let (len, body) = if flags & LONG == 0 {
        let Some(&body) = bytes.get(1) else { return Ok(None) };
        (2, u64::from(body))
    } else {
        let Some(body) = bytes.get(1..9).and_then(|b| b.try_into().ok()) else { return Ok(None) };
        (9, u64::from_be_bytes(body))
    };
    match usize::try_from(body) {
        Ok(body) if body <= limit => Ok(Some(Head { flags: flags & !LONG, len, body })),
        _ => Err(Refusal::TooLong),
    }
}

/// Appends the head of a frame whose body has `body` bytes.
pub(super) fn put_head(out: &mut Vec<u8>, flags: u8, body: usize) {
    match u8::try_from(body) {
        Ok(short) => out.extend([flags, short]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body as u64).to_be_bytes());
        }
    }
}

/// Appends a whole frame.
pub(super) fn put(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    put_head(out, flags, body.len());
    out.extend(body);
}

/// A command that may come once the connection is open.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Asks for a PONG with this context, at most 16 bytes.
    Ping(&'a [u8]),
    /// The answer to one.
    Pong,
    /// Wants messages that begin with this.
    Subscribe(&'a [u8]),
    /// Wants them no more.
    Cancel(&'a [u8]),
    /// The peer gives up.
    Error,
    /// Anything else; ignored.
    Unknown,
}

/// Tells the commands apart.
pub(super) fn command(body: &[u8]) -> Result<Command<'_>, Refusal> {
    let (name, rest) = body
        .split_first()
        .and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)))
        .ok_or(Refusal::Command)?;
    match name {
        b"PING" => match rest.get(2..) {
            Some(context) if context.len() <= 16 => Ok(Command::Ping(context)),
            _ => Err(Refusal::Command),
        },
        b"PONG" => Ok(Command::Pong),
        b"SUBSCRIBE" => Ok(Command::Subscribe(rest)),
        b"CANCEL" => Ok(Command::Cancel(rest)),
        b"ERROR" => Ok(Command::Error),
        b"" => Err(Refusal::Command),
        _ => Ok(Command::Unknown),
    }
}

/// Appends the properties of a READY or INITIATE.
pub(super) fn put_metadata(out: &mut Vec<u8>, socket_type: &str, identity: bool) {
    let mut property = |name: &[u8], value: &[u8]| {
        out.push(name.len() as u8);
        out.extend(name);
        out.extend((value.len() as u32).to_be_bytes());
        out.extend(value);
    };
    property(b"Socket-Type", socket_type.as_bytes());
    if identity {
        property(b"Identity", b"");
    }
}

/// Judges the peer's properties (decision 12.9): its socket type must be this one; an identity is checked for
/// length and forgotten; what is unknown is ignored.
pub(super) fn check_metadata(mut bytes: &[u8], socket_type: &str) -> Result<(), Refusal> {
    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = bytes.split_at_checked(len).ok_or(Refusal::Metadata)?;
        *bytes = rest;
        Ok(taken)
    }
    let mut fits = false;
    while !bytes.is_empty() {
        let len = take(&mut bytes, 1)?[0];
        let name = take(&mut bytes, usize::from(len))?;
        let len = take(&mut bytes, 4)?.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let value = take(&mut bytes, len)?;
        if name.is_empty() || name.eq_ignore_ascii_case(b"Identity") && value.len() > 255 {
            return Err(Refusal::Metadata);
        }
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            if value != socket_type.as_bytes() {
                return Err(Refusal::SocketType);
            }
            fits = true;
        }
    }
    if fits { Ok(()) } else { Err(Refusal::SocketType) }
}
