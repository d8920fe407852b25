//! Certificate and key of the REST API: they belong together, are valid now, and name the host that users type.

use std::net::IpAddr;

use openssl::asn1::Asn1Time;
use openssl::x509::X509;

use super::{Report, network};
use crate::config::Config;
use crate::tls;

/// So many days before its end a certificate is mentioned.
const SOON: u32 = 30;

pub(super) fn look(report: &mut Report, config: &Config) {
    let Some((cert, key)) = &config.tls else {
        if config.api_listen.ip().is_loopback() {
            report.ok("certificate", "none: the REST API is for this host, or for a front end on it");
        } else {
            report.warning(
                "certificate",
                format!("none: requests to {} can be read and repeated on the way", config.api_listen),
                "set tls_cert and tls_key, or put a front end with TLS before it (packaging/nginx/pushy.conf)",
            );
        }
        return;
    };
    if let Err(error) = tls::acceptor_of(cert, key) {
        return report.problem(
            "certificate",
            error.message(),
            "give the chain, the server's certificate first, and the key it was made for",
        );
    }
    let chain = std::fs::read(cert).ok().and_then(|pem| X509::stack_from_pem(&pem).ok());
    let Some(leaf) = chain.as_ref().and_then(|chain| chain.first()) else {
        return report.problem("certificate", "cannot be read", "look at tls_cert");
    };
    let hosts = network::api_hosts(config);
    judge(report, leaf, &hosts);
}

fn judge(report: &mut Report, leaf: &X509, hosts: &[String]) {
    let before = report.findings.len();
    let Ok(now) = Asn1Time::days_from_now(0) else {
        return report.problem("certificate", "its dates cannot be read", "look at tls_cert");
    };
    let renew = "renew it; the server takes the new one within a minute, or at `pushy-server reload`";
    if leaf.not_before() > now {
        report.problem(
            "certificate",
            format!("is valid only from {}", leaf.not_before()),
            "wait, or look at this host's clock",
        );
    }
    match now.diff(leaf.not_after()) {
        Ok(left) if left.days < 0 || left.secs < 0 => {
            report.problem("certificate", format!("has ended at {}", leaf.not_after()), renew);
        }
        Ok(left) if left.days < SOON as i32 => {
            report.warning(
                "certificate",
                format!("ends in {} days, at {}", left.days, leaf.not_after()),
                renew,
            );
        }
        _ => {}
    }
    for host in hosts.iter().filter(|host| !names(leaf, host)) {
        report.problem(
            "certificate",
            format!("does not name {host}, by which nodes and users reach the server"),
            "make one that names it (subjectAltName), or correct advertise_host",
        );
    }
    if report.findings.len() == before {
        let names = hosts.join(", ");
        report.ok(
            "certificate",
            format!("fits its key, names {names} and is valid until {}", leaf.not_after()),
        );
    }
}

/// Whether a client that was given this name takes the certificate (RFC 6125; the common name counts only when there
/// is nothing else).
fn names(leaf: &X509, host: &str) -> bool {
    let Some(alternatives) = leaf.subject_alt_names() else {
        let mut common = leaf.subject_name().entries_by_nid(openssl::nid::Nid::COMMONNAME);
        return common.any(|name| name.data().to_string().is_ok_and(|name| fits(&name, host)));
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        let bytes = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        return alternatives.iter().any(|name| name.ipaddress() == Some(&bytes));
    }
    alternatives.iter().filter_map(|name| name.dnsname()).any(|name| fits(name, host))
}

fn fits(pattern: &str, host: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("*.") {
        return host
            .split_once('.')
            .is_some_and(|(first, other)| !first.is_empty() && other.eq_ignore_ascii_case(rest));
    }
    pattern.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;
    use openssl::x509::X509Name;
    use openssl::x509::extension::SubjectAlternativeName;

    fn certificate(from: i64, to: i64, names: &[&str]) -> X509 {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_text("CN", "push.example.com").unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        let now = crate::clock::wall().secs();
        let at = |days: i64| Asn1Time::from_unix(now + days * 86_400).unwrap();
        builder.set_not_before(&at(from)).unwrap();
        builder.set_not_after(&at(to)).unwrap();
        if !names.is_empty() {
            let mut alternatives = SubjectAlternativeName::new();
            for name in names {
                match name.parse::<IpAddr>() {
                    Ok(_) => alternatives.ip(name),
                    Err(_) => alternatives.dns(name),
                };
            }
            let alternatives = alternatives.build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(alternatives).unwrap();
        }
        // Who signed it is not judged here.
        builder.build()
    }

    #[test]
    fn dates_and_names() {
        let check = |from: i64, to: i64, names: &[&str], host: &str, level: Level, word: &str| {
            let mut report = Report::default();
            judge(&mut report, &certificate(from, to, names), &[host.to_owned()]);
            let worst = report.findings.iter().max_by_key(|finding| finding.level).unwrap();
            assert_eq!(worst.level, level, "{report:?}");
            assert!(worst.text.contains(word), "{report:?}");
        };
        let host = "push.example.com";
        check(-1, 90, &[host], host, Level::Ok, "valid until");
        check(-1, 90, &[], host, Level::Ok, "valid until");
        check(-1, 20, &[host], host, Level::Warning, "ends in ");
        check(-9, -2, &[host], host, Level::Problem, "has ended at");
        check(2, 90, &[host], host, Level::Problem, "valid only from");
        check(-1, 90, &["other.example.com"], host, Level::Problem, "does not name push.example.com");
        check(-1, 90, &["*.example.com"], host, Level::Ok, "valid until");
        check(-1, 90, &["*.example.com"], "a.b.example.com", Level::Problem, "does not name");
        check(-1, 90, &["10.0.0.1", "fd00::1"], "10.0.0.1", Level::Ok, "valid until");
        check(-1, 90, &["10.0.0.1", "fd00::1"], "fd00::1", Level::Ok, "valid until");
        check(-1, 90, &["10.0.0.1"], "10.0.0.2", Level::Problem, "does not name 10.0.0.2");
    }
}
