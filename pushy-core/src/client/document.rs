//! Reading a document of a Chef server whatever it answers, for callers to whom a refusal tells something (3.2).

use super::Client;
use crate::api;
use crate::error::Result;

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The HTTP status.
    pub status: u16,
    /// The header `X-Ops-Server-API-Version`, a JSON text; `None` when there is none.
    pub api_version: Option<String>,
    /// Bytes of the body.
    pub body: Vec<u8>,
}

impl Client {
    /// Asks for a document; `path` is escaped and relative to the server URL. Every status is an answer. Repeated as the
    /// settings say after failures that may pass; the last answer counts.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Connection`], [`crate::ErrorCode::Timeout`], [`crate::ErrorCode::Protocol`], [`crate::ErrorCode::TooLarge`]: no answer that
    /// could be read. [`crate::ErrorCode::InvalidConfig`]: TLS or proxy settings. [`crate::ErrorCode::Server`]: a redirect to nowhere.
    pub async fn document(&self, path: &str) -> Result<Document> {
        let request = api::Request {
            method: api::Method::Get,
            path: path.to_owned(),
            query: String::new(),
            body: Vec::new(),
            accept: "application/json",
            last_event_id: None,
        };
        let answer = self.perform(&request).await.map_err(|failure| failure.error)?;
        let version = answer.headers.get("X-Ops-Server-API-Version");
        Ok(Document {
            status: answer.status,
            api_version: version.and_then(|v| v.to_str().ok()).map(str::to_owned),
            body: answer.body,
        })
    }

    /// Whether the settings work as far as that can be known without a server: TLS files exist and can be read.
    ///
    /// # Errors
    /// [`crate::ErrorCode::InvalidConfig`] naming the setting that cannot be used.
    pub fn check(&self) -> Result<()> {
        match self.shared.base.origin.scheme {
            super::Scheme::Http => Ok(()),
            super::Scheme::Https => self.shared.tls().map(|_| ()),
        }
    }
}
