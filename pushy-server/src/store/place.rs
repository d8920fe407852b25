//! Where a server keeps what must outlive it, as its configuration says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pushy_core::{Error, ErrorCode, Result};

use super::{OnSaved, Options, SqliteStore, Store};

/// The name of the SQLite file in the server's directory.
pub const DATABASE: &str = "pushy.db";

/// One of the databases. Shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A URL, `postgres://USER:PASSWORD@HOST/DATABASE`.
    Postgres(String),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.label())
    }
}

impl Place {
    /// The database of a server's directory; `url`: what its configuration says.
    ///
    /// # Errors
    /// When the URL is none of PostgreSQL, or this program was built without it. Never says what is in the URL.
    pub fn of(dir: &Path, url: Option<&str>) -> Result<Place> {
        let Some(url) = url else { return Ok(Place::Sqlite(dir.join(DATABASE))) };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            let text = "database: must be \"postgres://USER:PASSWORD@HOST/DATABASE\"";
            return Err(Error::new(ErrorCode::InvalidConfig, text));
        }
        #[cfg(feature = "postgres")]
        super::postgres::address::Address::parse(url)?;
        #[cfg(not(feature = "postgres"))]
        return Err(without());
        #[cfg(feature = "postgres")]
        Ok(Place::Postgres(url.to_owned()))
    }

    /// What messages call it.
    pub fn label(&self) -> String {
        match self {
            Place::Sqlite(path) => path.display().to_string(),
            #[cfg(feature = "postgres")]
            Place::Postgres(url) => super::postgres::address::Address::parse(url)
                .map_or_else(|_| "PostgreSQL".into(), |address| address.label),
            #[cfg(not(feature = "postgres"))]
            Place::Postgres(_) => "PostgreSQL".into(),
        }
    }

    /// Makes an empty database: the file, or the tables in a database that PostgreSQL has already.
    ///
    /// # Errors
    /// When there is one with something in it, or it cannot be written.
    pub fn create(&self) -> Result<()> {
        match self {
            Place::Sqlite(path) => SqliteStore::create(path),
            #[cfg(feature = "postgres")]
            Place::Postgres(url) => {
                let store = super::PostgresStore::open(url, Options::default(), Box::new(|_| {}))?;
                let used = store.is_used();
                store.close();
                if used? {
                    let text = format!("{}: not empty; give a new database", self.label());
                    return Err(Error::new(ErrorCode::InvalidState, text));
                }
                Ok(())
            }
            #[cfg(not(feature = "postgres"))]
            Place::Postgres(_) => Err(without()),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it is missing or away, damaged, of a newer program, or in use by another server.
    pub fn open(&self, options: Options, on_saved: OnSaved) -> Result<Arc<dyn Store>> {
        Ok(match self {
            Place::Sqlite(path) => Arc::new(SqliteStore::open(path, options, on_saved)?),
            #[cfg(feature = "postgres")]
            Place::Postgres(url) => Arc::new(super::PostgresStore::open(url, options, on_saved)?),
            #[cfg(not(feature = "postgres"))]
            Place::Postgres(_) => return Err(without()),
        })
    }
}

#[cfg(not(feature = "postgres"))]
pub(super) fn without() -> Error {
    let text = "database: this program was built without PostgreSQL (cargo feature `postgres`)";
    Error::new(ErrorCode::InvalidConfig, text)
}
