//! Where a PostgreSQL database is, and how its name appears in messages: without user and password.

use std::path::PathBuf;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;
use pushy_core::{Error, ErrorCode, Result};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;

/// A connection that is not open by then has failed.
const CONNECT: Duration = Duration::from_secs(3);
/// A peer that acknowledges nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// A database's address, read.
#[derive(Clone)]
pub(crate) struct Address {
    config: tokio_postgres::Config,
    /// What messages call it.
    pub(crate) label: String,
    verify: Verify,
    root: Option<PathBuf>,
}

/// What is checked of the database's certificate, in the words of libpq's `sslmode`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verify {
    Nothing,
    Ca,
    Full,
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST/DATABASE?PARAMETERS`.
    ///
    /// # Errors
    /// When it is none. Never says what is in it.
    pub(crate) fn parse(url: &str) -> Result<Address> {
        let bad = |what: String| Error::new(ErrorCode::InvalidConfig, format!("database: {what}"));
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut verify, mut root, mut kept) = (Verify::Nothing, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                // These the library does not know.
                Some(("sslmode", "verify-ca")) => verify = Verify::Ca,
                Some(("sslmode", "verify-full")) => verify = Verify::Full,
                Some(("sslrootcert", path)) => root = Some(PathBuf::from(path)),
                _ => kept.push(pair),
            }
        }
        if verify != Verify::Nothing {
            kept.push("sslmode=require");
        }
        // As in libpq, a host among the parameters replaces that of the URL; the library would try both.
        let mut base = base.to_owned();
        if kept.iter().any(|pair| pair.starts_with("host=")) {
            let start = base.find("://").map_or(0, |at| at + 3);
            let end = base[start..].find('/').map_or(base.len(), |at| start + at);
            let user = base[start..end].rfind('@').map_or(start, |at| start + at + 1);
            base.replace_range(user..end, "");
        }
        let text = format!("{base}?{}", kept.join("&"));
        let mut config: tokio_postgres::Config = text.parse().map_err(|e: tokio_postgres::Error| {
            // The source names a parameter at most, and no value.
            let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            bad(format!("not a URL of PostgreSQL: {why}"))
        })?;
        let name = config.get_dbname().ok_or_else(|| bad("the URL names no database".into()))?.to_owned();
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => return Err(bad("the URL names no host".into())),
        };
        let label = format!("PostgreSQL database '{name}' at {host}");
        config.connect_timeout(CONNECT).tcp_user_timeout(SILENCE).keepalives_idle(SILENCE);
        if config.get_application_name().is_none() {
            config.application_name("pushy-server");
        }
        Ok(Address { config, label, verify, root })
    }

    /// Opens a connection; its traffic runs as a task of the caller's runtime.
    ///
    /// # Errors
    /// When the database is away or refuses.
    pub(super) async fn connect(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) = self.config.connect(self.tls()?).await.map_err(|e| self.failed(&e))?;
        // How it ends is seen by whoever uses the client.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    fn tls(&self) -> Result<MakeTlsConnector> {
        let build = || {
            let mut builder = SslConnector::builder(SslMethod::tls())?;
            if let Some(root) = &self.root {
                builder.set_ca_file(root)?;
            }
            let checked = self.verify != Verify::Nothing || self.root.is_some();
            builder.set_verify(if checked { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
            Ok(MakeTlsConnector::new(builder.build()))
        };
        let mut connector = build().map_err(|e: openssl::error::ErrorStack| {
            Error::new(ErrorCode::InvalidConfig, format!("{}: sslrootcert: {e}", self.label))
        })?;
        let host = self.verify == Verify::Full;
        connector.set_callback(move |ssl, _| {
            ssl.set_verify_hostname(host);
            Ok(())
        });
        Ok(connector)
    }

    /// A failure of this database, with what can be done about it. Details that quote rows are left out.
    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> Error {
        let text = match error.as_db_error() {
            Some(db) => {
                let hint = match *db.code() {
                    SqlState::INVALID_CATALOG_NAME => "; create it with createdb, or correct `database`",
                    SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                        "; correct user and password in `database`"
                    }
                    _ => "",
                };
                format!("{}{hint}", db.message())
            }
            None => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(inner) = source {
                    let inner_text = inner.to_string();
                    if !text.contains(&inner_text) {
                        text = format!("{text}: {inner_text}");
                    }
                    source = inner.source();
                }
                text
            }
        };
        self.error(text)
    }

    /// A failure that names this database.
    pub(super) fn error(&self, text: impl std::fmt::Display) -> Error {
        Error::new(ErrorCode::Storage, format!("{}: {text}", self.label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_their_secrets_kept() {
        let check = |url: &str, wanted: std::result::Result<&str, &str>| {
            let read = Address::parse(url);
            let found = read.as_ref().map(|a| a.label.as_str()).map_err(|e| e.message());
            assert_eq!(found, wanted, "{url}");
        };
        check(
            "postgres://u:secret@db.example.com/pushy",
            Ok("PostgreSQL database 'pushy' at db.example.com"),
        );
        check("postgres://u@localhost:5433/pushy?sslmode=verify-full&sslrootcert=/ca.pem", {
            Ok("PostgreSQL database 'pushy' at localhost")
        });
        check("postgres://u@%2Frun%2Fpostgresql/pushy", Ok("PostgreSQL database 'pushy' at /run/postgresql"));
        check(
            "postgres://u@/pushy?host=/run/postgresql",
            Ok("PostgreSQL database 'pushy' at /run/postgresql"),
        );
        check(
            "postgres://u:p@localhost:1/pushy?host=/run/x&user=me",
            Ok("PostgreSQL database 'pushy' at /run/x"),
        );
        check("postgres://u:secret@db/", Err("database: the URL names no database"));
        check("postgres:///pushy", Err("database: the URL names no host"));
        let error = Address::parse("postgres://u:secret@db:port/pushy").err().expect("refused");
        assert!(!error.message().contains("secret"), "{}", error.message());
    }
}
