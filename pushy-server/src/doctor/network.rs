//! Ports that are ours or free, addresses that nodes and users can reach.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use super::Report;
use crate::config::{Config, bracketed};

/// An address that does not answer within this is not reached.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn ports(report: &mut Report, config: &Config, about: Option<&Value>) {
    let all = [
        ("api_listen", "api", Some(config.api_listen)),
        ("heartbeat_listen", "heartbeat", Some(config.heartbeat_listen)),
        ("command_listen", "command", Some(config.command_listen)),
        ("metrics_listen", "metrics", config.operation.metrics_listen),
    ];
    for (setting, name, address) in all {
        let Some(address) = address else { continue };
        let ours = about.and_then(|about| about[name].as_str()?.parse::<SocketAddr>().ok());
        match ours {
            Some(bound) if address.port() == 0 || bound == address => {
                report.ok("ports", format!("{setting} {bound} is ours"));
            }
            Some(bound) => report.warning(
                "ports",
                format!("{setting} is {address}, but the running server listens on {bound}"),
                "restart the server",
            ),
            None if address.port() == 0 => report.ok("ports", format!("{setting} takes any free port")),
            None => match TcpListener::bind(address) {
                Ok(_) => report.ok("ports", format!("{setting} {address} is free")),
                Err(error) => {
                    let advice = match error.kind() {
                        std::io::ErrorKind::AddrInUse => format!(
                            "another program listens there: find it with `ss -ltnp 'sport = :{}'`, or choose another port",
                            address.port()
                        ),
                        std::io::ErrorKind::AddrNotAvailable => {
                            "this host does not have that address: see `ip address`".into()
                        }
                        std::io::ErrorKind::PermissionDenied => {
                            "ports below 1024 need CAP_NET_BIND_SERVICE: choose another".into()
                        }
                        _ => "choose another address or port".into(),
                    };
                    report.problem("ports", format!("{setting} {address}: {error}"), advice);
                }
            },
        }
    }
}

/// `tcp://HOST:PORT` or an URL as something to connect to.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (scheme, rest) = address.split_once("://")?;
    let rest = rest.split('/').next()?;
    let default = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let split = rest.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let (host, port) = match split {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (rest, default?),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

async fn resolve(host: String, port: u16) -> Vec<SocketAddr> {
    let look = tokio::task::spawn_blocking(move || {
        (host.as_str(), port).to_socket_addrs().map(|all| all.collect::<Vec<_>>()).unwrap_or_default()
    });
    match tokio::time::timeout(PATIENCE * 2, look).await {
        Ok(Ok(found)) => found,
        _ => Vec::new(),
    }
}

pub(super) async fn addresses(report: &mut Report, config: &Config, about: Option<&Value>) {
    let port = |name: &str, set: SocketAddr| {
        let bound = about.and_then(|about| about[name].as_str()?.parse::<SocketAddr>().ok());
        bound.map_or(set.port(), |bound| bound.port())
    };
    let machine =
        config.machine(port("heartbeat", config.heartbeat_listen), port("command", config.command_listen));
    let told = [
        (machine.heartbeat_addr, config.heartbeat_listen),
        (machine.command_addr, config.command_listen),
        (config.api_url(port("api", config.api_listen)), config.api_listen),
    ];
    for (told, listens) in told {
        let Some((host, port)) = host_and_port(&told) else {
            report.problem(
                "addresses",
                format!("{told} names no host and port"),
                "correct the advertise_ setting",
            );
            continue;
        };
        let found = resolve(host.clone(), port).await;
        if found.is_empty() {
            report.problem(
                "addresses",
                format!("{told}: the name {host} is not known here"),
                "correct advertise_host, or the name service",
            );
            continue;
        }
        if found.iter().all(|at| at.ip().is_loopback()) && !listens.ip().is_loopback() {
            report.warning(
                "addresses",
                format!("{told} leads to this host only, though the server listens on {listens}"),
                "set advertise_host to what nodes and users reach it by",
            );
            continue;
        }
        if about.is_none() {
            report.ok("addresses", format!("{told}: the name is known; the server does not run"));
            continue;
        }
        let connect = tokio::net::TcpStream::connect(&found[..]);
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(Ok(_)) => report.ok("addresses", format!("{told} can be reached from here")),
            Ok(Err(_)) | Err(_) => report.warning(
                "addresses",
                format!("{told} cannot be reached from here ({})", bracketed(&found[0].ip().to_string())),
                "check it from a node: a firewall, or a front end that does not let this host in",
            ),
        }
    }
}

/// The hosts by which others reach the REST API.
pub(super) fn api_hosts(config: &Config) -> Vec<String> {
    let url = config.api_url(config.api_listen.port());
    let mut hosts: Vec<String> = host_and_port(&url).map(|(host, _)| host).into_iter().collect();
    if let Some(host) = config.advertise_host.clone().filter(|host| !hosts.contains(host)) {
        hosts.push(host);
    }
    hosts
}

pub(super) fn of_chef(url: &str) -> Option<(String, u16)> {
    host_and_port(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let check = |address: &str, expected: Option<(&str, u16)>| {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(address), expected, "{address}");
        };
        check("tcp://a:1", Some(("a", 1)));
        check("tcp://[::1]:10000", Some(("::1", 10000)));
        check("https://push.example.com", Some(("push.example.com", 443)));
        check("http://push.example.com:8080/x", Some(("push.example.com", 8080)));
        check("https://[fd00::1]", Some(("fd00::1", 443)));
        check("tcp://a", None);
        check("a:1", None);
    }
}
