//! What this node is, for the server's search: settings of the file, and what the system says (decision 44).

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use pushy_core::Result;
use pushy_core::node_document::{NodeDocument, check_name, check_tag};
use serde_json::Map;

use crate::file::Settings;

/// Where the distribution says its name.
const OS_RELEASE: &str = "/etc/os-release";

/// Ohai's words for distributions that call themselves otherwise.
const PLATFORMS: [(&str, &str); 5] = [
    ("rhel", "redhat"),
    ("ol", "oracle"),
    ("amzn", "amazon"),
    ("sles", "suse"),
    ("opensuse-leap", "opensuseleap"),
];

/// The document, but for the address; `None` with `publish_node false`.
///
/// `whitelist` is what others may see of it.
///
/// # Errors
/// When `node_environment`, `node_roles` or `node_tags` cannot be used.
pub(crate) fn document(
    settings: &Settings,
    fqdn: String,
    whitelist: Map<String, serde_json::Value>,
) -> Result<Option<NodeDocument>> {
    if !settings.flag("publish_node")?.unwrap_or(true) {
        return Ok(None);
    }
    type Check = fn(&str, &str) -> Result<()>;
    let checked = |setting: &str, name: &str, check: Check| {
        check(setting, name).map_err(|e| e.context(settings.name()))
    };
    let environment = settings.text("node_environment")?.or(settings.text("environment")?);
    if let Some(environment) = &environment {
        checked("node_environment", environment, check_name)?;
    }
    let names = |setting: &str, check: Check| -> Result<Vec<String>> {
        let names = settings.texts(setting)?.unwrap_or_default();
        names.iter().try_for_each(|name| checked(setting, name, check))?;
        Ok(names)
    };
    let (platform, platform_version) = platform(&std::fs::read_to_string(OS_RELEASE).unwrap_or_default());
    Ok(Some(NodeDocument {
        fqdn: Some(fqdn),
        ipaddress: None,
        platform,
        platform_version,
        environment,
        roles: names("node_roles", check_name)?,
        tags: names("node_tags", check_tag)?,
        whitelist,
    }))
}

/// Name and version out of the text of `os-release`.
fn platform(text: &str) -> (Option<String>, Option<String>) {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    let known = |id: String| {
        PLATFORMS.iter().find(|(theirs, _)| *theirs == id).map_or(id, |(_, ours)| (*ours).into())
    };
    (value("ID").map(known), value("VERSION_ID"))
}

/// The address that packets for the server's host leave from. Sends none, but may ask the name service.
pub(crate) fn address(server_url: &str) -> Option<IpAddr> {
    let (scheme, rest) = server_url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let authority = authority.rsplit('@').next()?;
    let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let port = if scheme == "http" { 80 } else { 443 };
    let target = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
    target.to_socket_addrs().ok()?.find_map(|server| {
        let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(server).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let check = |text: &str, name: Option<&str>, version: Option<&str>| {
            let (found, at) = platform(text);
            assert_eq!((found.as_deref(), at.as_deref()), (name, version), "{text}");
        };
        check("NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n", Some("debian"), Some("12"));
        check("ID=\"rhel\"\nVERSION_ID='9.4'\n", Some("redhat"), Some("9.4"));
        check("ID_LIKE=debian\nVERSION_ID=\n", None, None);
    }

    #[test]
    fn addresses() {
        let check = |url: &str, expected: Option<&str>| {
            assert_eq!(address(url).map(|ip| ip.to_string()).as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:10003/organizations/x", Some("127.0.0.1"));
        check("https://user@127.0.0.1/organizations/x", Some("127.0.0.1"));
        check("nonsense", None);
    }
}
