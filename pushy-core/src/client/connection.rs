//! One connection: TCP to the server or its proxy, TLS where wanted, HTTP/1.1 on top.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use openssl::ssl::{Ssl, SslContext};
use openssl::x509::X509VerifyResult;
use openssl::x509::verify::X509CheckFlags;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::tls::reason;
use super::url::{Origin, Scheme, Url};
use super::{Failure, Try};
use crate::error::{Error, ErrorCode};

/// The largest answer that is taken in, in bytes. Captured output and the list of all jobs are what grows.
const MAX_ANSWER: usize = 256 << 20;
/// The longest answer of a proxy to CONNECT, in bytes.
const MAX_PROXY_ANSWER: usize = 16 << 10;

/// How to reach a server.
pub(super) struct Route<'a> {
    pub(super) server: &'a Origin,
    pub(super) proxy: Option<&'a Url>,
    /// For `https` servers.
    pub(super) tls: Option<&'a SslContext>,
    /// Bound on everything before the first request.
    pub(super) connect_timeout: Duration,
    /// What to do about a certificate that is not trusted.
    pub(super) trust_hint: &'a str,
}

/// An answer, complete.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: hyper::HeaderMap,
    pub(super) body: Vec<u8>,
}

/// An open connection that can take the next request.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Opens a connection.
pub(super) async fn open(route: &Route<'_>) -> Try<Sender> {
    let opened = tokio::time::timeout(route.connect_timeout, async {
        let near = route.proxy.map_or(route.server, |proxy| &proxy.origin);
        let mut tcp = dial(near, route.connect_timeout).await?;
        match (route.server.scheme, route.tls) {
            (Scheme::Http, _) => speak_http(tcp, route.server).await,
            (Scheme::Https, None) => {
                Err(Failure::unsent(Error::new(ErrorCode::Internal, "no TLS context"), false))
            }
            (Scheme::Https, Some(context)) => {
                if let Some(proxy) = route.proxy {
                    tunnel(&mut tcp, proxy, route.server).await?;
                }
                speak_http(handshake(tcp, context, route).await?, route.server).await
            }
        }
    });
    opened.await.unwrap_or_else(|_| {
        let text = format!(
            "no connection to {} within {} s; is chef_server_url right and the server reachable?",
            route.server.authority(),
            route.connect_timeout.as_secs()
        );
        Err(Failure::unsent(Error::new(ErrorCode::Timeout, text), true))
    })
}

async fn dial(to: &Origin, limit: Duration) -> Try<TcpStream> {
    let addresses = resolve(to).await?;
    // One silent address must not use up the time of the others.
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer");
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Small requests and answers: waiting to fill a segment costs 40 ms each (Nagle).
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(e)) => last = e,
            Err(_) => {}
        }
    }
    let text = format!(
        "cannot connect to {}: {}; is chef_server_url right and the server running?",
        to.authority(),
        io_text(&last)
    );
    Err(Failure::unsent(Error::new(ErrorCode::Connection, text), true))
}

async fn resolve(to: &Origin) -> Try<Vec<SocketAddr>> {
    if let Ok(ip) = to.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, to.port)]);
    }
    match tokio::net::lookup_host((to.host.as_str(), to.port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(_) => {
            let text = format!("cannot find the address of host {}; check chef_server_url", to.host);
            Err(Failure::unsent(Error::new(ErrorCode::Connection, text), true))
        }
    }
}

/// Asks a proxy for a connection to `server` (RFC 9110, 9.3.6).
async fn tunnel(tcp: &mut TcpStream, proxy: &Url, server: &Origin) -> Try<()> {
    let name = proxy.origin.authority();
    let broken = |why: &str| {
        let text = format!("the proxy {name} {why}; check https_proxy and no_proxy");
        Failure::unsent(Error::new(ErrorCode::Connection, text), false)
    };
    let authority = server.authority();
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(basic) = &proxy.basic {
        request.push_str(&format!("Proxy-Authorization: {basic}\r\n"));
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(|_| broken("closed the connection"))?;
    let mut head = Vec::new();
    // A byte at a time: what follows the head belongs to the server.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_PROXY_ANSWER {
            return Err(broken("answered with something that is not HTTP"));
        }
        head.push(tcp.read_u8().await.map_err(|_| broken("closed the connection"))?);
    }
    let status = std::str::from_utf8(&head)
        .ok()
        .and_then(|head| head.strip_prefix("HTTP/1."))
        .and_then(|head| head.get(2..5)?.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => Err(broken(&format!("refused to connect to {authority} with HTTP status {status}"))),
        None => Err(broken("answered with something that is not HTTP")),
    }
}

async fn handshake(tcp: TcpStream, context: &SslContext, route: &Route<'_>) -> Try<SslStream<TcpStream>> {
    let host = &route.server.host;
    let prepare = || -> Result<Ssl, openssl::error::ErrorStack> {
        let mut ssl = Ssl::new(context)?;
        ssl.param_mut().set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
        match host.parse::<IpAddr>() {
            Ok(ip) => ssl.param_mut().set_ip(ip)?,
            Err(_) => {
                ssl.set_hostname(host)?;
                ssl.param_mut().set_host(host)?;
            }
        }
        Ok(ssl)
    };
    let mut stream = prepare().and_then(|ssl| SslStream::new(ssl, tcp)).map_err(|e| {
        let text = format!("cannot set up TLS for {}: {}", route.server.authority(), reason(&e));
        Failure::unsent(Error::new(ErrorCode::Internal, text), false)
    })?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => Err(tls_failure(&error, stream.ssl().verify_result(), route)),
    }
}

fn tls_failure(error: &openssl::ssl::Error, verified: X509VerifyResult, route: &Route<'_>) -> Failure {
    let server = route.server.authority();
    if verified != X509VerifyResult::OK {
        let text = format!(
            "the certificate of {server} is not trusted ({}); {}",
            verified.error_string().to_ascii_lowercase(),
            route.trust_hint
        );
        return Failure::unsent(Error::new(ErrorCode::Connection, text), false);
    }
    let why = match (error.ssl_error(), error.io_error()) {
        (Some(stack), _) => reason(stack),
        (None, Some(io)) => io_text(io),
        (None, None) => "the connection was closed".to_owned(),
    };
    let plain = why.contains("wrong version number") || why.contains("http request");
    let hint = if plain { "; does it speak plain http://?" } else { "" };
    let text = format!("cannot set up TLS with {server}: {why}{hint}");
    Failure::unsent(Error::new(ErrorCode::Connection, text), !plain)
}

async fn speak_http<S>(stream: S, server: &Origin) -> Try<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| {
        let text = format!("cannot speak HTTP with {}", server.authority());
        Failure::unsent(Error::new(ErrorCode::Connection, text), true)
    })?;
    // Ends with the connection; what goes wrong on it reaches whoever waits for an answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Sends a request and takes in the whole answer. `limit` bounds each silence, not the sum.
pub(super) async fn exchange(
    sender: &mut Sender,
    request: hyper::Request<Full<Bytes>>,
    server: &Origin,
    limit: Duration,
) -> Try<Answer> {
    let silent = || {
        let text = format!("no answer from {} within {} s", server.authority(), limit.as_secs());
        Failure::sent(Error::new(ErrorCode::Timeout, text))
    };
    let answered = tokio::time::timeout(limit, sender.send_request(request)).await.map_err(|_| silent())?;
    let (head, mut body) = answered.map_err(|e| broken(server, &e))?.into_parts();
    let mut bytes = Vec::new();
    if let Some(expected) = body.size_hint().exact() {
        bytes.reserve(usize::try_from(expected).unwrap_or(0).min(1 << 20));
    }
    while let Some(frame) = tokio::time::timeout(limit, body.frame()).await.map_err(|_| silent())? {
        let Ok(data) = frame.map_err(|e| broken(server, &e))?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_ANSWER {
            let text = format!("the answer of {} is larger than {} MB", server.authority(), MAX_ANSWER >> 20);
            return Err(Failure {
                error: Error::new(ErrorCode::TooLarge, text),
                transient: false,
                sent: true,
            });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes })
}

pub(super) fn broken(server: &Origin, error: &hyper::Error) -> Failure {
    let server = server.authority();
    if error.is_parse() {
        let text = format!("{server} answered with something that is not HTTP; does it want https://?");
        return Failure { error: Error::new(ErrorCode::Protocol, text), transient: false, sent: true };
    }
    let text = format!("{server} closed the connection before its answer was complete");
    let failure = Error::new(ErrorCode::Connection, text);
    // A canceled request never reached the wire.
    if error.is_canceled() { Failure::unsent(failure, true) } else { Failure::sent(failure) }
}

/// What the system says, without its error number.
fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_ascii_lowercase()
}
