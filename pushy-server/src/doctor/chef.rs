//! The Chef server, if there is one: it answers, and its clock is ours.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use pushy_core::time::Wall;
use pushy_core::{Error, ErrorCode, Result};

use super::{Report, network};
use crate::config::{ChefServer, Config};

/// A difference of clocks that is said, in seconds; requests are refused at 900.
const OFF: i64 = 30;

pub(super) async fn look(report: &mut Report, config: &Config) {
    let Some(chef) = config.chef.clone() else { return };
    if let Err(error) = chef.read_key() {
        report.problem("chef server", error.message(), "put the private key of chef_client_name there");
    }
    let (url, verify) = (chef.url.clone(), chef.verify);
    let asked = tokio::task::spawn_blocking(move || ask(&chef)).await;
    let answer =
        asked.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the question ended in a panic")));
    if !verify {
        report.warning(
            "chef server",
            "its certificate is not checked (chef_verify = false): anybody on the way can say who may do what",
            "set chef_ca_file to its CA and leave chef_verify out",
        );
    }
    match answer {
        Err(error) => report.problem(
            "chef server",
            format!("{url} does not answer: {}", error.message()),
            "check chef_server_url, the network, and the server itself",
        ),
        Ok(date) => {
            report.ok("chef server", format!("{url} answers"));
            compare(report, date, crate::clock::wall());
        }
    }
}

fn compare(report: &mut Report, theirs: Option<Wall>, ours: Wall) {
    let Some(theirs) = theirs else { return };
    let off = ours.secs() - theirs.secs();
    if off.abs() < OFF {
        return report.ok("clock", "agrees with the Chef server's");
    }
    let way = if off > 0 { "ahead of" } else { "behind" };
    report.problem(
        "clock",
        format!("is {} s {way} the Chef server's", off.abs()),
        "synchronize both (NTP): signed requests more than 15 minutes off are refused",
    );
}

/// The date of whatever it answers.
fn ask(chef: &ChefServer) -> Result<Option<Wall>> {
    let failed = |e: std::io::Error| Error::new(ErrorCode::Connection, e.to_string());
    let no_tls = |e: &dyn std::fmt::Display| Error::new(ErrorCode::Connection, format!("TLS: {e}"));
    let (host, port) = network::of_chef(&chef.url)
        .ok_or_else(|| Error::new(ErrorCode::InvalidConfig, "chef_server_url names no host"))?;
    let mut addresses = (host.as_str(), port).to_socket_addrs().map_err(failed)?;
    let address =
        addresses.next().ok_or_else(|| Error::new(ErrorCode::Connection, "its name is not known"))?;
    let patience = chef.timeout.max(Duration::from_secs(1));
    let stream = TcpStream::connect_timeout(&address, patience).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    let request = format!("GET /_status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    if chef.url.starts_with("https://") {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|e| no_tls(&e))?;
        if let Some(file) = &chef.ca_file {
            builder.set_ca_file(file).map_err(|e| no_tls(&e))?;
        }
        if !chef.verify {
            builder.set_verify(SslVerifyMode::NONE);
        }
        let mut stream = builder.build().connect(&host, stream).map_err(|e| no_tls(&e))?;
        stream.write_all(request.as_bytes()).map_err(failed)?;
        // A peer that closes without saying so has still answered.
        let _ = stream.take(16_384).read_to_end(&mut answer);
    } else {
        let mut stream = stream;
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let _ = stream.take(16_384).read_to_end(&mut answer);
    }
    if !answer.starts_with(b"HTTP/1.") {
        return Err(Error::new(ErrorCode::Connection, "what listens there does not speak HTTP"));
    }
    Ok(date(&String::from_utf8_lossy(&answer)))
}

fn date(answer: &str) -> Option<Wall> {
    let head = answer.split("\r\n\r\n").next()?;
    let line =
        head.lines().find(|line| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("date:")))?;
    Wall::parse_http_date(line[5..].trim())
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn clocks_are_compared() {
        let answer = "HTTP/1.1 200 OK\r\ndate: Tue, 04 Sep 2012 23:01:02 GMT\r\n\r\nDate: no";
        let at = date(answer).unwrap();
        assert_eq!(at, Wall::from_secs(1_346_799_662));
        assert_eq!(date("HTTP/1.1 200 OK\r\n\r\nDate: x"), None);
        let check = |off: i64, level: Level, word: &str| {
            let mut report = Report::default();
            compare(&mut report, Some(at), Wall::from_secs(at.secs() + off));
            assert_eq!(report.findings[0].level, level);
            assert!(report.findings[0].text.contains(word), "{report:?}");
        };
        check(0, Level::Ok, "agrees");
        check(-29, Level::Ok, "agrees");
        check(40, Level::Problem, "is 40 s ahead of");
        check(-1000, Level::Problem, "is 1000 s behind");
    }
}
