//! One connection of a node.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use pushy_core::server::{ConnId, CurveKey};
use pushy_core::time::Millis;
use pushy_core::zmtp::Peer;

/// Where the nodes' commands go; index of its listener.
pub(super) const COMMANDS: usize = 0;
/// Where the server's heartbeats come from; index of its listener.
pub(super) const HEARTBEATS: usize = 1;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The handshake is not complete.
    HalfOpen,
    /// It is.
    Open,
    /// It was refused; the connection ends at this time.
    Held(Millis),
}

pub(super) struct Conn {
    stream: TcpStream,
    pub(super) id: ConnId,
    pub(super) address: SocketAddr,
    pub(super) port: usize,
    pub(super) stage: Stage,
    /// Absent once refused.
    pub(super) peer: Option<Peer>,
    /// The proven key. When there is one, the machine knows of this connection.
    pub(super) key: Option<CurveKey>,
    /// Bytes counted in the total.
    pub(super) counted: usize,
    /// Listed for writing.
    pub(super) dirty: bool,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, id: ConnId, address: SocketAddr, port: usize, peer: Peer) -> Conn {
        let stage = Stage::HalfOpen;
        Conn { stream, id, address, port, stage, peer: Some(peer), key: None, counted: 0, dirty: false }
    }

    /// Finds dead peers (decision 4: keep-alive of 30 s) and sends small messages at once.
    pub(super) fn set_options(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&self.stream);
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3);
        socket.set_tcp_keepalive(&keepalive)?;
        // Keep-alive rests while data waits for an answer; this does not.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
        Ok(())
    }

    pub(super) fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads once. `None` when there is nothing now; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match self.stream.read(buffer) {
                Ok(count) => Ok(Some(count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
        }
    }

    /// Writes what waits, as far as the network takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        while !peer.transmit().is_empty() {
            match self.stream.write(peer.transmit()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => peer.sent(count),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.peer.as_ref().map_or(0, |peer| peer.transmit().len())
    }
}
