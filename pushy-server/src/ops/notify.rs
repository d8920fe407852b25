//! Telling systemd where the server is in its life (`Type=notify`): datagrams to the socket it names.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends a state; without systemd, nowhere. A manager that does not listen is no failure of the server's.
pub(crate) fn tell(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(name.as_encoded_bytes(), state) {
        tracing::debug!("NOTIFY_SOCKET: {error}");
    }
}

fn send(name: &[u8], state: &str) -> std::io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => {
            use std::os::unix::ffi::OsStrExt as _;
            SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?
        }
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

/// The state at the beginning of a reload: systemd compares its clock.
pub(crate) fn reloading() -> String {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let micros = now.map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000);
    format!("RELOADING=1\nMONOTONIC_USEC={micros}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket() {
        let check = |name: &[u8], socket: &UnixDatagram| {
            send(name, "READY=1").unwrap();
            let mut buffer = [0; 32];
            let count = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"READY=1");
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        check(path.as_os_str().as_encoded_bytes(), &UnixDatagram::bind(&path).unwrap());
        let name = format!("pushy-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(format!("@{name}").as_bytes(), &UnixDatagram::bind_addr(&address).unwrap());
        assert!(send(b"/nowhere/at/all", "READY=1").is_err());
    }
}
