//! Carries out the calls of [`crate::api`] over HTTP: signing, TLS, proxies, redirects, retries, waiting for a job.
//!
//! The only part of this crate that does I/O. [`Client`] is async and needs a tokio runtime with I/O and time;
//! [`blocking`] wraps it for C and Ruby. A client is cheap to make: nothing is opened or read before the first request,
//! and certificates only for an `https` server (decision 27). Each try is signed anew (chef-auth 9.7).
//!
//! After a `fork` a client keeps working in the child: it notices the other process id, leaves the parent's connection
//! alone and opens its own. Requests under way during the fork belong to the parent.

pub mod blocking;
mod connection;
mod document;
mod jobs;
mod output;
mod outputs;
mod proxy;
mod stream;
mod tls;
mod url;
mod wait;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use openssl::ssl::SslContext;

pub use document::Document;
pub use output::{OutputEnd, OutputPiece, OutputStream};
pub use outputs::{OutputEvent, OutputStreams};
pub use proxy::ProxySettings;
pub use tls::TlsSettings;
pub use wait::{JobWait, Progress};

use crate::api::{
    self, Call, Channel, GetConfig, GetJob, GetNodeState, GetOutput, JobView, ListJobs, ListNodeStates,
    Method, NodeState, SearchNodes, StartJob, Started, Who,
};
use crate::auth::{self, SigningKey};
use crate::error::{Error, ErrorCode, Result};
use crate::ids::{JobId, NodeName};
use crate::job::JobRequest;
use crate::time::Wall;
use crate::watch::WatchOptions;
use connection::{Answer, Route, Sender};
use url::{Scheme, Url};

/// Redirects followed for one request (chef-auth 9.6).
const MAX_REDIRECTS: usize = 10;
/// Rows asked for in one page of a search; the Chef server's own limit.
const SEARCH_PAGE: u32 = 1000;
/// The version of Chef whose HTTP behaviour this is: the front of a Chef server refuses clients below 10 (chef-auth 9.2).
const CHEF_VERSION: &str = "18.0.0";
/// API version of the Chef server (chef-auth 9.3); the push server does not look at it.
const API_VERSION: &str = "1";

/// Everything a client needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `chef_server_url`, ending in `/organizations/ORG`.
    pub server_url: String,
    /// The name requests are signed as.
    pub user: String,
    /// The key they are signed with; without one they go out unsigned (chef-auth 9.2).
    pub key: Option<Arc<SigningKey>>,
    /// Where the key was read; for messages.
    pub key_source: String,
    /// `authentication_protocol_version`.
    pub auth_version: auth::Version,
    /// TLS settings.
    pub tls: TlsSettings,
    /// Proxy settings.
    pub proxy: ProxySettings,
    /// Bound on resolving, connecting and the TLS handshake.
    pub connect_timeout: Duration,
    /// Bound on each silence of the server (`rest_timeout`).
    pub timeout: Duration,
    /// How often a reading request is repeated after a failure that may pass (`http_retry_count`). A job is never started
    /// twice: its request is repeated only when it cannot have arrived.
    pub retries: u32,
    /// Pause before each repetition (`http_retry_delay`).
    pub retry_delay: Duration,
    /// `custom_http_headers`: sent besides; a name that is already there is replaced.
    pub custom_headers: Vec<(String, String)>,
    /// Value of `User-Agent`.
    pub user_agent: String,
}

impl Settings {
    /// Settings for a server and a user, with defaults: protocol 1.1, certificates checked against the system's CAs, 30 s
    /// to connect, 300 s of silence, two repetitions.
    pub fn new(server_url: impl Into<String>, user: impl Into<String>) -> Settings {
        Settings {
            server_url: server_url.into(),
            user: user.into(),
            key: None,
            key_source: String::new(),
            auth_version: auth::Version::default(),
            tls: TlsSettings::default(),
            proxy: ProxySettings::default(),
            connect_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(300),
            retries: 2,
            retry_delay: Duration::from_millis(500),
            custom_headers: Vec::new(),
            user_agent: concat!("pushy/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// The same with a key and where it was read.
    #[must_use]
    pub fn with_key(mut self, key: SigningKey, source: impl Into<String>) -> Settings {
        self.key = Some(Arc::new(key));
        self.key_source = source.into();
        self
    }
}

/// What a try comes to.
type Try<T> = std::result::Result<T, Failure>;

/// A failed try.
#[derive(Debug)]
struct Failure {
    error: Error,
    /// Whether it may pass.
    transient: bool,
    /// Whether the server may have seen the request.
    sent: bool,
}

impl Failure {
    fn unsent(error: Error, transient: bool) -> Failure {
        Failure { error, transient, sent: false }
    }

    fn sent(error: Error) -> Failure {
        Failure { error, transient: true, sent: true }
    }
}

/// A client of one push server, for one user. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    base: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    tls: OnceLock<SslContext>,
    /// The connection to the server while no request uses it, and the process that opened it.
    idle: Mutex<Option<(u32, Sender)>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.settings)
    }
}

impl Client {
    /// Checks the settings; opens nothing.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`] naming the setting that cannot be used.
    pub fn new(settings: Settings) -> Result<Client> {
        let base = Url::parse(&settings.server_url)?;
        let headers = fixed_headers(&settings)?;
        let shared = Shared { settings, base, headers, tls: OnceLock::new(), idle: Mutex::new(None) };
        Ok(Client { shared: Arc::new(shared) })
    }

    /// Starts a job (2.4.4). A 1.x server is spoken to in its own way when nothing is lost by it ([`Started::v1`]).
    ///
    /// # Errors
    /// As [`Client::call`]; [`ErrorCode::InvalidArgument`] when the server is too old for an option (D-71).
    pub async fn start_job(&self, job: &JobRequest) -> Result<Started> {
        let call = StartJob(job);
        let request = call.request();
        let answer = self.perform(&request).await.map_err(|f| f.error)?;
        if api::is_v1_server(answer.status, &answer.body) {
            let request = api::v1_fallback(job)?;
            let answer = self.perform(&request).await.map_err(|f| f.error)?;
            let started = call.answer(self.success(&request, &answer)?)?;
            return Ok(Started { v1: true, ..started });
        }
        call.answer(self.success(&request, &answer)?)
    }

    /// Every job of the organization, oldest first.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn jobs(&self) -> Result<Vec<JobView>> {
        self.call(&ListJobs).await
    }

    /// One job, with all that the server says of it when asked for details.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn job(&self, id: &JobId) -> Result<JobView> {
        self.call(&GetJob { id, include_file: false, detail: true }).await
    }

    /// What a node's command wrote.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ErrorCode::NotFound`] too while the command runs and when nothing was kept.
    pub async fn output(&self, id: &JobId, node: &NodeName, channel: Channel) -> Result<Vec<u8>> {
        self.call(&GetOutput { id, node, channel }).await
    }

    /// The availability of every node the server has seen.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn node_states(&self) -> Result<Vec<NodeState>> {
        self.call(&ListNodeStates).await
    }

    /// The availability of one node; a node that the server has never seen is `offline`.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn node_state(&self, node: &NodeName) -> Result<NodeState> {
        self.call(&GetNodeState(node)).await
    }

    /// A node's configuration document (2.4.2), which binds its CURVE public key.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn config(&self, node: &NodeName, ccpk: &str) -> Result<serde_json::Value> {
        self.call(&GetConfig { node, ccpk }).await
    }

    /// Names of the nodes that a query of the Chef server finds, all pages of them (D-74).
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn search_nodes(&self, query: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut start = 0;
        loop {
            let page = self.call(&SearchNodes { query, start, rows: SEARCH_PAGE }).await?;
            names.extend(page.names);
            start += page.rows;
            if page.rows == 0 || start >= page.total {
                return Ok(names);
            }
        }
    }

    /// Waits until a job ends. Dropping the future, or what [`JobWait::next`] returned, is harmless at any time.
    pub fn wait(&self, id: JobId, options: WatchOptions) -> JobWait {
        JobWait::new(self.clone(), id, options)
    }

    /// Carries out a call, with the repetitions of the settings.
    ///
    /// # Errors
    /// [`ErrorCode::Connection`], [`ErrorCode::Timeout`]: no answer. [`ErrorCode::Unauthorized`], [`ErrorCode::ClockSkew`],
    /// [`ErrorCode::Forbidden`], [`ErrorCode::NotFound`], [`ErrorCode::Server`]: an answer that says no.
    /// [`ErrorCode::Protocol`]: an answer that cannot be read. [`ErrorCode::InvalidConfig`]: TLS or proxy settings.
    pub async fn call<C: Call>(&self, call: &C) -> Result<C::Answer> {
        let request = call.request();
        let answer = self.perform(&request).await.map_err(|f| f.error)?;
        call.answer(self.success(&request, &answer)?)
    }

    /// One try of asking for a job, for the wait, which has its own idea of repetition.
    async fn ask_once(&self, id: &JobId) -> Try<JobView> {
        let call = GetJob { id, include_file: false, detail: true };
        let request = call.request();
        let answer = self.try_once(&request).await?;
        let body = self.success(&request, &answer).map_err(|error| Failure {
            error,
            transient: is_passing(answer.status),
            sent: true,
        })?;
        call.answer(body).map_err(|error| Failure { error, transient: false, sent: true })
    }

    fn success<'a>(&self, request: &api::Request, answer: &'a Answer) -> Result<&'a [u8]> {
        if (200..300).contains(&answer.status) {
            return Ok(&answer.body);
        }
        let settings = &self.shared.settings;
        let who = Who { url: &settings.server_url, user: &settings.user, key: &settings.key_source };
        let date = answer.headers.get(hyper::header::DATE).and_then(|d| d.to_str().ok());
        Err(api::refusal(who, request, answer.status, &answer.body, date))
    }

    /// Tries until an answer is there that is worth having.
    async fn perform(&self, request: &api::Request) -> Try<Answer> {
        let settings = &self.shared.settings;
        let mut left = settings.retries;
        loop {
            let outcome = self.try_once(request).await;
            let again = match &outcome {
                Ok(answer) => request.method == Method::Get && is_passing(answer.status),
                Err(failure) => failure.transient && (request.method == Method::Get || !failure.sent),
            };
            if !again || left == 0 {
                return outcome;
            }
            left -= 1;
            tokio::time::sleep(settings.retry_delay).await;
        }
    }

    /// One try: follows redirects, signs each step anew where the signature may be seen.
    async fn try_once(&self, request: &api::Request) -> Try<Answer> {
        let base = &self.shared.base;
        let mut url = base.join(&request.path, &request.query);
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask(request, &url).await?;
            let location = answer.headers.get(LOCATION).and_then(|l| l.to_str().ok());
            let Some(location) = location.filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308))
            else {
                if url.origin != base.origin && answer.status >= 400 {
                    return Err(self.led_astray(&url.origin.authority()));
                }
                return Ok(answer);
            };
            match url.redirect(location).filter(|_| request.method == Method::Get) {
                Some(to) => url = to,
                None => return Err(self.led_astray(location)),
            }
        }
        let text = format!("{} redirects in circles ({})", base.origin.authority(), request.path);
        Err(Failure { error: Error::new(ErrorCode::Server, text), transient: false, sent: true })
    }

    /// A redirect that leads nowhere: the usual reason is a server URL with the wrong scheme or host.
    fn led_astray(&self, to: &str) -> Failure {
        let from = self.shared.base.origin.authority();
        let to: String = to.chars().filter(|c| !c.is_control()).take(200).collect();
        let text = format!(
            "{from} redirects to {to}, where requests are not signed; set chef_server_url to the server itself"
        );
        Failure { error: Error::new(ErrorCode::Server, text), transient: false, sent: true }
    }

    async fn ask(&self, request: &api::Request, url: &Url) -> Try<Answer> {
        let shared = &*self.shared;
        let proxy = shared.settings.proxy.choose(&url.origin).map_err(|e| Failure::unsent(e, false))?;
        let own = url.origin == shared.base.origin;
        // A connection that was idle may have been closed by the server: what goes out on it may be lost. Only what may
        // be repeated is sent on one.
        let idle = if own && request.method == Method::Get { self.take_idle() } else { None };
        if let Some(mut sender) = idle {
            let outgoing = self.outgoing(request, url, proxy.as_ref())?;
            let outcome =
                connection::exchange(&mut sender, outgoing, &url.origin, shared.settings.timeout).await;
            match outcome {
                Ok(answer) => {
                    self.put_idle(sender);
                    return Ok(answer);
                }
                Err(failure) if failure.error.code() != ErrorCode::Connection => return Err(failure),
                Err(_) => {}
            }
        }
        let mut sender = self.connect(url, proxy.as_ref()).await?;
        let outgoing = self.outgoing(request, url, proxy.as_ref())?;
        let answer =
            connection::exchange(&mut sender, outgoing, &url.origin, shared.settings.timeout).await?;
        if own {
            self.put_idle(sender);
        }
        Ok(answer)
    }

    /// A new connection.
    async fn connect(&self, url: &Url, proxy: Option<&Url>) -> Try<Sender> {
        let shared = &*self.shared;
        let tls = match url.origin.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(shared.tls().map_err(|e| Failure::unsent(e, false))?),
        };
        let route = Route {
            server: &url.origin,
            proxy,
            tls,
            connect_timeout: shared.settings.connect_timeout,
            trust_hint: &shared.trust_hint(),
        };
        connection::open(&route).await
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.take() {
            Some((pid, sender)) if pid == std::process::id() => (!sender.is_closed()).then_some(sender),
            Some((_, sender)) => {
                // The parent's: closing it here would end the parent's TLS session.
                std::mem::forget(sender);
                None
            }
            None => None,
        }
    }

    fn put_idle(&self, sender: Sender) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((pid, old)) = idle.replace((std::process::id(), sender)) {
            if pid != std::process::id() {
                std::mem::forget(old);
            }
        }
    }

    /// The request as it goes out: signed for its path, unsigned for a foreign origin (chef-auth 9.6).
    fn outgoing(
        &self,
        request: &api::Request,
        url: &Url,
        proxy: Option<&Url>,
    ) -> Try<hyper::Request<Full<Bytes>>> {
        let shared = &*self.shared;
        let settings = &shared.settings;
        let refused = |error| Failure::unsent(error, false);
        let plain_proxy = proxy.filter(|_| url.origin.scheme == Scheme::Http);
        let target = if plain_proxy.is_some() { url.absolute_target() } else { url.target() };
        let mut outgoing = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(target)
            .body(Full::new(Bytes::copy_from_slice(&request.body)))
            .map_err(|_| {
                refused(Error::new(ErrorCode::InvalidArgument, format!("{} is no path", request.path)))
            })?;
        let headers = outgoing.headers_mut();
        let mut put = |name: &str, value: &str| -> Try<()> {
            let bad = || Error::new(ErrorCode::InvalidArgument, format!("header {name} cannot be sent"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused(bad()))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refused(bad()))?;
            headers.insert(name, value);
            Ok(())
        };
        put("Host", &url.origin.authority())?;
        put("Accept", request.accept)?;
        if let Some(id) = &request.last_event_id {
            put("Last-Event-ID", id)?;
        }
        if request.method != Method::Get {
            put("Content-Type", "application/json")?;
        }
        if let Some(basic) = plain_proxy.and_then(|proxy| proxy.basic.as_ref()) {
            put("Proxy-Authorization", basic)?;
        }
        if url.origin == shared.base.origin {
            if let Some(basic) = &url.basic {
                put("Authorization", basic)?;
            }
            if let Some(key) = &settings.key {
                let to_sign = auth::Request {
                    version: settings.auth_version,
                    method: request.method.as_str(),
                    path: &url.path,
                    body: &request.body,
                    user: &settings.user,
                    at: now(),
                    api_version: Some(API_VERSION),
                };
                for (name, value) in auth::sign(key, &to_sign).map_err(refused)? {
                    put(&name, &value)?;
                }
            }
            for (name, value) in &shared.headers {
                outgoing.headers_mut().insert(name, value.clone());
            }
        }
        Ok(outgoing)
    }
}

impl Drop for Shared {
    /// A child of a fork leaves its parent's connection alone, also when it ends without having used the client.
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((pid, sender)) = idle.take() {
            if pid != std::process::id() {
                std::mem::forget(sender);
            }
        }
    }
}

impl Shared {
    fn tls(&self) -> Result<&SslContext> {
        if let Some(context) = self.tls.get() {
            return Ok(context);
        }
        let context = tls::context(&self.settings.tls)?;
        Ok(self.tls.get_or_init(|| context))
    }

    fn trust_hint(&self) -> String {
        match &self.settings.tls.trusted_certs_dir {
            Some(dir) => format!(
                "if it is the right server, put its certificate into {} (`knife ssl fetch`) or name its CA as ssl_ca_file",
                dir.display()
            ),
            None => "if it is the right server, name its CA as ssl_ca_file".to_owned(),
        }
    }
}

/// What every request of a client carries; checked once.
fn fixed_headers(settings: &Settings) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let fixed = [("X-Ops-Server-API-Version", API_VERSION), ("Accept-Encoding", "identity")];
    let last = [("X-Chef-Version", CHEF_VERSION), ("User-Agent", settings.user_agent.as_str())];
    let custom = settings.custom_headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    fixed
        .into_iter()
        .chain(custom)
        .chain(last)
        .map(|(name, value)| {
            let bad = || {
                Error::new(ErrorCode::InvalidConfig, format!("custom_http_headers: {name:?} cannot be sent"))
            };
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            Ok((header, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?))
        })
        .collect()
}

/// Answers that may be different the next time.
fn is_passing(status: u16) -> bool {
    matches!(status, 429 | 500..=599)
}

fn now() -> Wall {
    #[expect(clippy::disallowed_methods, reason = "the client is the part of the core that does I/O")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_secs(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
