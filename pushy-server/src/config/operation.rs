//! The settings about keeping the server in sight: metrics, audit log, log level, drain.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pushy_core::Result;
use toml::de::DeValue;

use super::reader::Reader;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(pub tracing::level_filters::LevelFilter);

/// A network: an address and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse().ok()?, Some(bits.parse::<u32>().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let all = if IpAddr::is_ipv4(&address) { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Network { address, bits })
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - self.bits;
                u32::from(own).checked_shr(shift) == u32::from(other).checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - self.bits;
                u128::from(own).checked_shr(shift) == u128::from(other).checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Where metrics are served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Least level of log lines.
    pub log_level: LogLevel,
    /// Who started what where; `None`: not kept.
    pub audit_log: Option<PathBuf>,
    /// Who may say, with `X-Forwarded-For`, whom it asks for.
    pub trusted_proxies: Vec<Network>,
    /// How long a drain waits for running jobs.
    pub drain_timeout: Duration,
    /// Between two looks at certificate and key.
    pub tls_check_interval: Duration,
}

impl Default for Operation {
    fn default() -> Operation {
        Operation {
            metrics_listen: None,
            log_level: LogLevel(tracing::level_filters::LevelFilter::INFO),
            audit_log: None,
            trusted_proxies: Vec::new(),
            drain_timeout: Duration::from_secs(600),
            tls_check_interval: Duration::from_secs(60),
        }
    }
}

impl Operation {
    pub(super) fn read(r: &mut Reader<'_>, dir: &Path) -> Result<Operation> {
        let default = Operation::default();
        let wanted = "\"ADDRESS:PORT\", e.g. \"127.0.0.1:10004\"";
        let metrics_listen = r.take("metrics_listen", wanted, |v| v.as_str()?.parse().ok())?;
        let levels = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
        let log_level = r.take("log_level", levels, |v| {
            let text = v.as_str().filter(|text| *text != "off")?;
            Some(LogLevel(text.parse().ok()?))
        })?;
        let networks = "a list of addresses and networks, e.g. [\"127.0.0.1\", \"10.0.0.0/8\"]";
        let trusted_proxies = r.take("trusted_proxies", networks, |v| match v {
            DeValue::Array(list) => list.iter().map(|one| Network::parse(one.get_ref().as_str()?)).collect(),
            _ => None,
        })?;
        Ok(Operation {
            metrics_listen,
            log_level: log_level.unwrap_or(default.log_level),
            audit_log: r.text("audit_log")?.map(|file| dir.join(file)),
            trusted_proxies: trusted_proxies.unwrap_or_default(),
            drain_timeout: r.seconds("drain_timeout", 0.0, 86_400.0, 600.0)?,
            tls_check_interval: r.seconds("tls_check_interval", 0.05, 86_400.0, 60.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let check = |network: &str, address: &str, inside: bool| {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        };
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("127.0.0.1", "::ffff:127.0.0.1", true);
        check("10.0.0.0/8", "10.200.3.4", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "8.8.8.8", true);
        check("0.0.0.0/0", "::1", false);
        check("fd00::/8", "fd12::1", true);
        check("::/0", "fd12::1", true);
        check("::1", "::1", true);
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0", "10.0.0.0/x", "host"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
