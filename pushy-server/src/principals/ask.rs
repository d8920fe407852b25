//! Asking a Chef server: a few connections that are kept, a time limit, and words for what went wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pushy_core::client::{Client, Document, Settings, TlsSettings};
use pushy_core::{Error, ErrorCode, Result};
use tokio::sync::Semaphore;

use super::Unanswered;
use super::answers::Strange;
use crate::config::ChefServer;

/// Questions on their way at the same time; more wait their turn within the time limit.
const CONNECTIONS: usize = 16;
/// Between two lines in the log about answers that are of no use.
const QUIET: Duration = Duration::from_secs(60);

/// Asks one Chef server as one of its users or clients.
pub(super) struct Asker {
    /// Clients that nobody uses now; each keeps its connection.
    idle: Mutex<Vec<Client>>,
    turns: Semaphore,
    timeout: Duration,
    /// Who asks; for messages.
    who: String,
    /// Whether the last question got no answer, so that the log tells of a change and not of every request.
    away: AtomicBool,
    /// When the log last told of an answer that is of no use.
    odd: Mutex<Option<Instant>>,
    /// Told of every question whether it was answered.
    on_heard: Box<dyn Fn(bool) + Send + Sync>,
}

/// Puts a client back when its question is over, also when nobody waits for the answer any more.
struct Borrowed<'a> {
    client: Option<Client>,
    idle: &'a Mutex<Vec<Client>>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
    }
}

impl Asker {
    /// Checks the settings; opens nothing.
    pub(super) fn new(chef: &ChefServer, on_heard: Box<dyn Fn(bool) + Send + Sync>) -> Result<Asker> {
        let key = chef.read_key()?;
        let mut settings = Settings::new(&chef.url, &chef.client_name);
        settings.key = Some(std::sync::Arc::new(key));
        settings.key_source = chef.client_key.display().to_string();
        settings.tls =
            TlsSettings { no_verify: !chef.verify, ca_file: chef.ca_file.clone(), ..TlsSettings::default() };
        settings.connect_timeout = chef.timeout;
        settings.timeout = chef.timeout;
        settings.retries = 0;
        settings.user_agent = concat!("pushy-server/", env!("CARGO_PKG_VERSION")).to_owned();
        let made: Result<Vec<Client>> = (0..CONNECTIONS).map(|_| Client::new(settings.clone())).collect();
        let idle = made?;
        if let Some(client) = idle.first() {
            client.check()?;
        }
        Ok(Asker {
            idle: Mutex::new(idle),
            turns: Semaphore::new(CONNECTIONS),
            timeout: chef.timeout,
            who: chef.client_name.clone(),
            away: AtomicBool::new(false),
            odd: Mutex::new(None),
            on_heard,
        })
    }

    /// Asks for `path` and reads the answer; `what` names in messages what is asked for.
    pub(super) async fn ask<T>(
        &self,
        what: &str,
        path: &str,
        read: impl FnOnce(&Document) -> std::result::Result<T, Strange>,
    ) -> std::result::Result<T, Unanswered> {
        let document = match tokio::time::timeout(self.timeout, self.fetch(path)).await {
            Ok(Ok(document)) => document,
            Ok(Err(error)) => return Err(self.unreachable(what, &error)),
            Err(_) => {
                return Err(self.unreachable(what, &Error::new(ErrorCode::Timeout, "no answer in time")));
            }
        };
        let read = read(&document);
        if !matches!(read, Err(Strange::Busy(_))) {
            (self.on_heard)(true);
            if self.away.swap(false, Ordering::Relaxed) {
                tracing::info!("the Chef server answers again");
            }
        }
        read.map_err(|strange| self.strange(what, &strange))
    }

    async fn fetch(&self, path: &str) -> Result<Document> {
        let closed = || Error::new(ErrorCode::Internal, "no connection to ask with");
        let _turn = self.turns.acquire().await.map_err(|_| closed())?;
        let client = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let borrowed = Borrowed { client, idle: &self.idle };
        borrowed.client.as_ref().ok_or_else(closed)?.document(path).await
    }

    /// It does not answer: one line in the log when that begins; details there, not in answers, which anybody may see.
    fn is_away(&self, what: &str, why: &str) {
        (self.on_heard)(false);
        if self.away.swap(true, Ordering::Relaxed) {
            tracing::debug!("cannot ask the Chef server for {what}: {why}");
        } else {
            tracing::warn!("cannot ask the Chef server for {what}: {why}");
        }
    }

    /// It answers, but not so that it helps: a line once in a while, since that may concern one organization only.
    fn is_odd(&self, text: &str) {
        let now = Instant::now();
        let mut last = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| now - at < QUIET) {
            tracing::debug!("{text}");
        } else {
            *last = Some(now);
            tracing::warn!("{text}");
        }
    }

    fn unreachable(&self, what: &str, error: &Error) -> Unanswered {
        self.is_away(what, error.message());
        let text = |why: &str| format!("cannot ask the Chef server for {what}: {why}");
        match error.code() {
            ErrorCode::Timeout => Unanswered::Unavailable(text("no answer in time")),
            ErrorCode::Connection => Unanswered::BadGateway(text("no connection")),
            _ => Unanswered::BadGateway(text("its answer cannot be read")),
        }
    }

    fn strange(&self, what: &str, strange: &Strange) -> Unanswered {
        let text = match strange {
            Strange::Forbidden(status) => {
                format!("the Chef server does not let {:?} read {what} (HTTP {status})", self.who)
            }
            Strange::Busy(status) | Strange::Status(status) => {
                format!("the Chef server answers HTTP {status} when asked for {what}")
            }
            Strange::Body(body) => format!("the Chef server answers with {body} when asked for {what}"),
        };
        match strange {
            Strange::Busy(_) => {
                self.is_away(what, &text);
                Unanswered::Unavailable(text)
            }
            Strange::Forbidden(_) | Strange::Status(_) | Strange::Body(_) => {
                self.is_odd(&text);
                Unanswered::BadGateway(text)
            }
        }
    }
}
