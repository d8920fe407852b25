//! CurveZMQ (RFC 25 and 26): the four commands of the handshake, and the boxes that messages travel in.
//!
//! Names follow the specification: C and S are the long-term keys of client and server, C' and S' those made
//! for one connection.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Refusal;
use super::frame::{self, COMMAND};
use super::nacl::{BoxKey, CurveSecret, TAG, nonce};
use crate::server::{CurveKey, Random};

const HELLO: usize = 200;
const WELCOME: usize = 168;
/// A READY or INITIATE may carry this much besides its fixed part; [`super::HANDSHAKE_LIMIT`] bounds the whole.
const INITIATE_FIXED: usize = 257;
const COOKIE: usize = 96;
/// What a frame of a message is longer than its content: `\x07MESSAGE`, nonce, tag, flags.
pub(super) const OVERHEAD: usize = 8 + 8 + TAG + 1;

/// The content belongs to a message of which more follows.
pub(super) const BOX_MORE: u8 = 1;
/// The content is a command.
pub(super) const BOX_COMMAND: u8 = 2;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Refusal> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or(Refusal::Length)
}

fn counted(prefix: &[u8; 16], count: u64) -> [u8; 24] {
    nonce(prefix, &count.to_be_bytes())
}

/// Appends `content` as a box sealed with `key`.
fn put_box(out: &mut Vec<u8>, key: &BoxKey, nonce: &[u8; 24], content: &[&[u8]]) {
    let at = out.len();
    out.extend([0; TAG]);
    for part in content {
        out.extend_from_slice(part);
    }
    key.seal(nonce, out, at);
}

/// A server that waits for HELLO. All that is random in a handshake is drawn here, so that the rest is a
/// function of what arrives.
pub(super) struct AwaitHello {
    secret: Arc<CurveSecret>,
    seed: Zeroizing<[u8; 32]>,
    cookie: [u8; COOKIE],
    welcome_nonce: [u8; 16],
}

impl AwaitHello {
    pub(super) fn new(secret: Arc<CurveSecret>, random: &mut dyn Random) -> AwaitHello {
        let mut it =
            AwaitHello { secret, seed: Zeroizing::default(), cookie: [0; COOKIE], welcome_nonce: [0; 16] };
        random.fill_bytes(&mut *it.seed);
        random.fill_bytes(&mut it.cookie);
        random.fill_bytes(&mut it.welcome_nonce);
        it
    }

    /// Takes HELLO, appends WELCOME.
    pub(super) fn hello(self, hello: &[u8], out: &mut Vec<u8>) -> Result<AwaitInitiate, Refusal> {
        if !hello.starts_with(b"\x05HELLO") {
            return Err(Refusal::Command);
        }
        if hello.len() != HELLO {
            return Err(Refusal::Length);
        }
        if hello[6..8] != [1, 0] {
            return Err(Refusal::OldVersion);
        }
        // 8..80 is padding against amplification.
        let client: [u8; 32] = array(hello, 80)?;
        let count = u64::from_be_bytes(array(hello, 112)?);
        let key = self.secret.shared(&client).ok_or(Refusal::WeakKey)?;
        let zeros =
            key.open(&counted(b"CurveZMQHELLO---", count), &hello[120..]).ok_or(Refusal::ServerKey)?;
        if zeros != [0; 64] {
            return Err(Refusal::Box);
        }
        let transient = CurveSecret::from_bytes(&self.seed);
        let mut welcome = Vec::with_capacity(WELCOME);
        welcome.extend(b"\x07WELCOME");
        welcome.extend(self.welcome_nonce);
        let content: [&[u8]; 2] = [&transient.public().0, &self.cookie];
        put_box(&mut welcome, &key, &nonce(b"WELCOME-", &self.welcome_nonce), &content);
        frame::put(out, COMMAND, &welcome);
        Ok(AwaitInitiate { server: self.secret.public(), transient, cookie: self.cookie, client, count })
    }
}

/// A server that waits for INITIATE. The cookie is this connection's own and is asked for once; the handshake's
/// deadline ends it (decision 12.4).
pub(super) struct AwaitInitiate {
    server: CurveKey,
    transient: CurveSecret,
    cookie: [u8; COOKIE],
    client: [u8; 32],
    count: u64,
}

impl AwaitInitiate {
    /// Takes INITIATE; answers the client's proven long-term key and the session that READY will open.
    pub(super) fn initiate(self, initiate: &[u8], socket_type: &str) -> Result<(CurveKey, Session), Refusal> {
        if !initiate.starts_with(b"\x08INITIATE") {
            return Err(Refusal::Command);
        }
        if initiate.len() < INITIATE_FIXED {
            return Err(Refusal::Length);
        }
        let cookie: [u8; COOKIE] = array(initiate, 9)?;
        if !bool::from(cookie.ct_eq(&self.cookie)) {
            return Err(Refusal::Cookie);
        }
        let count = u64::from_be_bytes(array(initiate, 105)?);
        if count <= self.count {
            return Err(Refusal::Nonce);
        }
        let key = self.transient.shared(&self.client).ok_or(Refusal::WeakKey)?;
        let content = key.open(&counted(b"CurveZMQINITIATE", count), &initiate[113..]).ok_or(Refusal::Box)?;
        let client: [u8; 32] = array(&content, 0)?;
        let vouch_nonce: [u8; 16] = array(&content, 32)?;
        let vouch: [u8; 80] = array(&content, 48)?;
        // Proves that the owner of C made C', and made it for this server (decision 12.5).
        let vouched = self.transient.shared(&client).ok_or(Refusal::WeakKey)?;
        let vouched = vouched.open(&nonce(b"VOUCH---", &vouch_nonce), &vouch).ok_or(Refusal::Vouch)?;
        if vouched[..32] != self.client || vouched[32..] != self.server.0 {
            return Err(Refusal::Vouch);
        }
        frame::check_metadata(&content[128..], socket_type)?;
        Ok((CurveKey(client), Session { key, server: true, sent: 0, seen: count }))
    }
}

/// A client before its HELLO.
pub(super) struct Client {
    secret: Arc<CurveSecret>,
    server: CurveKey,
    transient: CurveSecret,
    vouch_nonce: [u8; 16],
}

impl Client {
    pub(super) fn new(secret: Arc<CurveSecret>, server: CurveKey, random: &mut dyn Random) -> Client {
        let transient = CurveSecret::generate(random);
        let mut vouch_nonce = [0; 16];
        random.fill_bytes(&mut vouch_nonce);
        Client { secret, server, transient, vouch_nonce }
    }

    /// Appends HELLO.
    pub(super) fn hello(self, out: &mut Vec<u8>) -> Result<AwaitWelcome, Refusal> {
        let key = self.transient.shared(&self.server.0).ok_or(Refusal::WeakKey)?;
        let mut hello = Vec::with_capacity(HELLO);
        hello.extend(b"\x05HELLO\x01\x00");
        hello.resize(80, 0);
        hello.extend(self.transient.public().0);
        hello.extend(1u64.to_be_bytes());
        put_box(&mut hello, &key, &counted(b"CurveZMQHELLO---", 1), &[&[0; 64]]);
        frame::put(out, COMMAND, &hello);
        Ok(AwaitWelcome { client: self, key })
    }
}

/// A client that waits for WELCOME.
pub(super) struct AwaitWelcome {
    client: Client,
    key: BoxKey,
}

impl AwaitWelcome {
    /// Takes WELCOME, appends INITIATE; the session opens with READY.
    pub(super) fn welcome(
        self,
        welcome: &[u8],
        out: &mut Vec<u8>,
        socket_type: &str,
    ) -> Result<Session, Refusal> {
        if !welcome.starts_with(b"\x07WELCOME") {
            return Err(Refusal::Command);
        }
        if welcome.len() != WELCOME {
            return Err(Refusal::Length);
        }
        let content = self.key.open(&nonce(b"WELCOME-", &welcome[8..24]), &welcome[24..]);
        let content = content.ok_or(Refusal::ServerKey)?;
        let transient: [u8; 32] = array(&content, 0)?;
        let cookie: [u8; COOKIE] = array(&content, 32)?;
        let Client { secret, server, transient: own, vouch_nonce } = self.client;

        let mut vouch = Vec::with_capacity(TAG + 64);
        let key = secret.shared(&transient).ok_or(Refusal::WeakKey)?;
        put_box(&mut vouch, &key, &nonce(b"VOUCH---", &vouch_nonce), &[&own.public().0, &server.0]);
        let mut metadata = Vec::with_capacity(48);
        frame::put_metadata(&mut metadata, socket_type, true);
        let key = own.shared(&transient).ok_or(Refusal::WeakKey)?;
        let mut initiate = Vec::with_capacity(INITIATE_FIXED + metadata.len());
        initiate.extend(b"\x08INITIATE");
        initiate.extend(cookie);
        initiate.extend(2u64.to_be_bytes());
        let content: [&[u8]; 4] = [&secret.public().0, &vouch_nonce, &vouch, &metadata];
        put_box(&mut initiate, &key, &counted(b"CurveZMQINITIATE", 2), &content);
        frame::put(out, COMMAND, &initiate);
        Ok(Session { key, server: false, sent: 2, seen: 0 })
    }
}

/// Both ends after the handshake: the key they share and the counters of both directions.
pub(super) struct Session {
    key: BoxKey,
    server: bool,
    sent: u64,
    seen: u64,
}

impl Session {
    fn prefix(from_server: bool) -> &'static [u8; 16] {
        if from_server { b"CurveZMQMESSAGES" } else { b"CurveZMQMESSAGEC" }
    }

    fn next(&mut self) -> u64 {
        // 2^64 frames take longer than any connection stands.
        self.sent = self.sent.wrapping_add(1);
        self.sent
    }

    /// Server: appends READY.
    pub(super) fn put_ready(&mut self, out: &mut Vec<u8>, socket_type: &str) {
        let mut metadata = Vec::with_capacity(48);
        frame::put_metadata(&mut metadata, socket_type, true);
        let count = self.next();
        let mut ready = b"\x05READY".to_vec();
        ready.extend(count.to_be_bytes());
        put_box(&mut ready, &self.key, &counted(b"CurveZMQREADY---", count), &[&metadata]);
        frame::put(out, COMMAND, &ready);
    }

    /// Client: takes READY.
    pub(super) fn ready(&mut self, ready: &[u8], socket_type: &str) -> Result<(), Refusal> {
        if ready.starts_with(b"\x05ERROR") {
            return Err(Refusal::PeerError);
        }
        if !ready.starts_with(b"\x05READY") {
            return Err(Refusal::Command);
        }
        let count = u64::from_be_bytes(array(ready, 6)?);
        let metadata =
            self.key.open(&counted(b"CurveZMQREADY---", count), &ready[14..]).ok_or(Refusal::Box)?;
        self.seen = count;
        frame::check_metadata(&metadata, socket_type)
    }

    /// Appends one frame of a message, or a command.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, flags: u8, content: &[u8]) {
        let count = self.next();
        frame::put_head(out, 0, OVERHEAD + content.len());
        out.extend(b"\x07MESSAGE");
        out.extend(count.to_be_bytes());
        put_box(out, &self.key, &counted(Session::prefix(self.server), count), &[&[flags], content]);
    }

    /// Opens one frame: its flags and content. Counters that do not rise end the connection (decision 12.6).
    pub(super) fn open(&mut self, body: &[u8]) -> Result<(u8, Vec<u8>), Refusal> {
        if !body.starts_with(b"\x07MESSAGE") {
            return Err(Refusal::Command);
        }
        if body.len() < OVERHEAD {
            return Err(Refusal::Length);
        }
        let count = u64::from_be_bytes(array(body, 8)?);
        if count <= self.seen {
            return Err(Refusal::Nonce);
        }
        let prefix = Session::prefix(!self.server);
        let mut content = self.key.open(&counted(prefix, count), &body[16..]).ok_or(Refusal::Box)?;
        self.seen = count;
        let flags = content.remove(0);
        if flags & !(BOX_MORE | BOX_COMMAND) != 0 || flags == BOX_MORE | BOX_COMMAND {
            return Err(Refusal::Flags);
        }
        Ok((flags, content))
    }
}
