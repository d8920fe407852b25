//! A small HTTP/1.1 server that answers as a test tells it to, plain or over TLS.

use std::sync::{Arc, Mutex};

use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslContext, SslMethod};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Which connection of the server's life, from 0.
    pub(crate) connection: usize,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// What to do with a request.
pub(crate) enum Reply {
    /// Status, further head lines, body.
    Http(u16, String, Vec<u8>),
    /// Close without a word.
    Close,
    /// Say nothing and keep the connection.
    Silence,
    /// Send these bytes, head included, as they come; close when their sender is gone.
    Bytes(UnboundedReceiver<Vec<u8>>),
}

impl Reply {
    pub(crate) fn json(status: u16, body: &str) -> Reply {
        Reply::Http(status, "Content-Type: application/json\r\n".to_owned(), body.as_bytes().to_vec())
    }

    pub(crate) fn redirect(status: u16, to: &str) -> Reply {
        Reply::Http(status, format!("Location: {to}\r\n"), Vec::new())
    }
}

type Handler = Arc<dyn Fn(usize, &Received) -> Reply + Send + Sync>;

/// A running server; ends with the runtime.
pub(crate) struct Server {
    pub(crate) port: u16,
    log: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Starts one; the handler gets the number of the request, from 0.
    pub(crate) async fn start(handler: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Server {
        Server::start_with(None, handler).await
    }

    pub(crate) async fn start_with(
        tls: Option<SslContext>,
        handler: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = Arc::new(handler);
        let shared = Arc::clone(&log);
        tokio::spawn(async move {
            for connection in 0.. {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (handler, log, tls) = (Arc::clone(&handler), Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(tcp, connection, &handler, &log).await,
                        Some(context) => {
                            let mut stream =
                                tokio_openssl::SslStream::new(Ssl::new(&context).unwrap(), tcp).unwrap();
                            if std::pin::Pin::new(&mut stream).accept().await.is_ok() {
                                serve(stream, connection, &handler, &log).await;
                            }
                        }
                    }
                });
            }
        });
        Server { port, log }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/organizations/acme", self.port)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }
}

async fn serve<S>(mut stream: S, connection: usize, handler: &Handler, log: &Mutex<Vec<Received>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer, connection).await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        match handler(number, &request) {
            Reply::Http(status, head, body) => {
                let mut answer =
                    format!("HTTP/1.1 {status} X\r\n{head}Content-Length: {}\r\n\r\n", body.len())
                        .into_bytes();
                answer.extend_from_slice(&body);
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
                if head.contains("Connection: close") {
                    let _ = stream.shutdown().await;
                    return;
                }
            }
            Reply::Close => return,
            Reply::Bytes(mut pieces) => {
                while let Some(bytes) = pieces.recv().await {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                return;
            }
            Reply::Silence => std::future::pending::<()>().await,
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Received> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap_or_default())
        .collect();
    let length = headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, v)| v.parse::<usize>().unwrap());
    while buffer.len() < end + 4 + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end + 4..end + 4 + length].to_vec();
    buffer.drain(..end + 4 + length);
    Some(Received { method, target, headers, body, connection })
}

/// A self-signed certificate for these names, and its key.
pub(crate) fn certificate(names: &[&str], addresses: &[&str]) -> (X509, PKey<Private>) {
    use openssl::asn1::Asn1Time;
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::x509::X509NameBuilder;
    use openssl::x509::extension::SubjectAlternativeName;

    // An elliptic key is made at once.
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "chef.test").unwrap();
    let name = name.build();
    let mut cert = X509::builder().unwrap();
    cert.set_version(2).unwrap();
    cert.set_serial_number(&BigNum::from_u32(7).unwrap().to_asn1_integer().unwrap()).unwrap();
    cert.set_subject_name(&name).unwrap();
    cert.set_issuer_name(&name).unwrap();
    cert.set_pubkey(&key).unwrap();
    cert.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    cert.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    let mut san = SubjectAlternativeName::new();
    for name in names {
        san.dns(name);
    }
    for address in addresses {
        san.ip(address);
    }
    let san = san.build(&cert.x509v3_context(None, None)).unwrap();
    cert.append_extension(san).unwrap();
    cert.sign(&key, MessageDigest::sha256()).unwrap();
    (cert.build(), key)
}

/// A server's TLS context with this certificate.
pub(crate) fn server_tls(cert: &X509, key: &PKey<Private>) -> SslContext {
    let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
    context.set_certificate(cert).unwrap();
    context.set_private_key(key).unwrap();
    context.build()
}
