//! The client against a server of the test's own: signatures, retries, redirects, proxies, TLS, waiting, cancelling.
#![cfg(feature = "client")]
#![expect(clippy::disallowed_methods, reason = "tests read clocks, start threads and write files")]

mod client_feed;
mod http;

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{Received, Reply, Server, certificate, server_tls};
use pushy_core::ErrorCode;
use pushy_core::api::Channel;
use pushy_core::auth::{self, PublicKey, SigningKey};
use pushy_core::client::blocking::{self, CancelToken};
use pushy_core::client::{Client, Progress, Settings};
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{JobOptions, JobRequest};
use pushy_core::time::{Millis, Wall};
use pushy_core::watch::WatchOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ID: &str = "4be1d6f0a9c30123456789abcdef0123";

/// One key for all tests: making one takes longer than any of them.
fn key() -> SigningKey {
    static PEM: OnceLock<Vec<u8>> = OnceLock::new();
    let pem = PEM.get_or_init(|| openssl::rsa::Rsa::generate(2048).unwrap().private_key_to_pem().unwrap());
    SigningKey::from_pem(pem).unwrap()
}

fn settings(url: String) -> Settings {
    Settings {
        retry_delay: Duration::from_millis(5),
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        ..Settings::new(url, "alice").with_key(key(), "/home/alice/alice.pem")
    }
}

fn client(url: String) -> Client {
    Client::new(settings(url)).unwrap()
}

fn id() -> JobId {
    JobId::new(ID).unwrap()
}

fn job() -> JobRequest {
    JobRequest {
        command: "chef-client".to_owned(),
        nodes: vec![NodeName::new("web-01").unwrap()],
        run_timeout: None,
        quorum: Some(1),
        options: JobOptions::default(),
    }
}

fn job_json(status: &str) -> String {
    format!(r#"{{"id":"{ID}","status":"{status}","nodes":{{"succeeded":["web-01"]}}}}"#)
}

/// Who signed a request, as a server sees it.
fn signer(received: &Received, key: &PublicKey) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let head = auth::Head::read(
        |name| received.header(name).map(str::as_bytes),
        Wall::from_secs(i64::try_from(now).unwrap()),
        900,
    )
    .map_err(|e| e.to_string())?;
    head.verify(&received.method, &received.target, &received.body, [key]).map_err(|e| e.to_string())?;
    Ok(head.user().to_owned())
}

#[tokio::test]
async fn requests_are_signed_and_share_a_connection() {
    let server = Server::start(|_, request| match request.method.as_str() {
        "POST" => Reply::json(201, &format!(r#"{{"uri":"http://x/{ID}"}}"#)),
        _ => Reply::json(200, "[]"),
    })
    .await;
    for version in [auth::Version::V1_0, auth::Version::V1_1, auth::Version::V1_3] {
        let settings = Settings { auth_version: version, ..settings(server.url("http")) };
        let public = PublicKey::from_pem(settings.key.as_ref().unwrap().public_pem().unwrap()).unwrap();
        let client = Client::new(settings).unwrap();
        let before = server.received().len();
        assert_eq!(client.start_job(&job()).await.unwrap().line(), format!("Started.  Job ID: {ID}"));
        client.jobs().await.unwrap();
        client.node_states().await.unwrap();
        let received = server.received().split_off(before);
        for request in &received {
            assert_eq!(signer(request, &public).unwrap(), "alice", "{request:?}");
            assert_eq!(request.header("Host").unwrap(), format!("127.0.0.1:{}", server.port));
            assert_eq!(request.header("X-Chef-Version").unwrap(), "18.0.0");
            assert!(request.header("User-Agent").unwrap().starts_with("pushy/"));
            assert_eq!(request.connection, received[0].connection, "one connection serves all");
        }
        let lines: Vec<_> = received.iter().map(|r| format!("{} {}", r.method, r.target)).collect();
        assert_eq!(
            lines,
            [
                "POST /organizations/acme/pushy/jobs",
                "GET /organizations/acme/pushy/jobs",
                "GET /organizations/acme/pushy/node_states"
            ]
        );
        assert_eq!(received[0].header("Content-Type").unwrap(), "application/json");
    }
}

#[tokio::test]
async fn custom_headers_go_along_and_a_keyless_request_is_unsigned() {
    let server = Server::start(|_, _| Reply::json(200, "[]")).await;
    let mut settings = Settings { key: None, ..settings(server.url("http")) };
    settings.custom_headers = vec![("X-Site".to_owned(), "berlin".to_owned())];
    Client::new(settings.clone()).unwrap().jobs().await.unwrap();
    let received = server.received();
    assert_eq!(received[0].header("X-Site"), Some("berlin"));
    assert_eq!(received[0].header("X-Ops-UserId"), None);
    settings.custom_headers = vec![("bad name".to_owned(), "x".to_owned())];
    assert_eq!(Client::new(settings).unwrap_err().code(), ErrorCode::InvalidConfig);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let server =
        Server::start(|_, _| Reply::Http(200, "Connection: close\r\n".to_owned(), b"[]".to_vec())).await;
    let client = Client::new(Settings { retries: 0, ..settings(server.url("http")) }).unwrap();
    for _ in 0..20 {
        client.jobs().await.unwrap();
    }
    assert_eq!(server.received().len(), 20);
}

#[tokio::test]
async fn reading_is_repeated_and_starting_is_not() {
    let server = Server::start(|number, _| match number {
        0 => Reply::json(503, "{}"),
        1 => Reply::Close,
        _ => Reply::json(200, "[]"),
    })
    .await;
    client(server.url("http")).jobs().await.unwrap();
    assert_eq!(server.received().len(), 3);

    for reply in ["503", "close"] {
        let server = Server::start(move |_, _| match reply {
            "503" => Reply::json(503, "{}"),
            _ => Reply::Close,
        })
        .await;
        let error = client(server.url("http")).start_job(&job()).await.unwrap_err();
        assert!(matches!(error.code(), ErrorCode::Server | ErrorCode::Connection), "{error}");
        assert_eq!(server.received().len(), 1, "a job may have been started: {reply}");
    }
}

#[tokio::test]
async fn refusals_name_who_and_what() {
    let server = Server::start(|_, _| {
        Reply::json(401, r#"{"error":["Invalid signature for user or client 'alice'"]}"#)
    })
    .await;
    let error = client(server.url("http")).jobs().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unauthorized);
    assert_eq!(
        error.message(),
        format!(
            "Failed to authenticate to {} as alice with key /home/alice/alice.pem: Invalid signature for user or client 'alice'",
            server.url("http")
        )
    );
    assert_eq!(server.received().len(), 1, "not repeated");
}

#[tokio::test]
async fn nobody_there() {
    // A port that was free a moment ago.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for scheme in ["http", "https"] {
        let error =
            client(format!("{scheme}://127.0.0.1:{port}/organizations/acme")).jobs().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Connection);
        assert_eq!(
            error.message(),
            format!(
                "cannot connect to 127.0.0.1:{port}: connection refused; is chef_server_url right and the server running?"
            )
        );
    }
    let nowhere = Settings { retries: 0, ..settings("http://host.invalid/organizations/acme".to_owned()) };
    let error = Client::new(nowhere).unwrap().jobs().await.unwrap_err();
    assert_eq!(error.message(), "cannot find the address of host host.invalid; check chef_server_url");
}

#[tokio::test]
async fn silence_has_an_end() {
    let server = Server::start(|_, _| Reply::Silence).await;
    let settings =
        Settings { timeout: Duration::from_millis(50), retries: 1, ..settings(server.url("http")) };
    let error = Client::new(settings).unwrap().jobs().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn redirects_are_signed_for_their_path_and_only_at_home() {
    let foreign = Server::start(|_, _| Reply::json(200, "[]")).await;
    let elsewhere = format!("http://127.0.0.1:{}/elsewhere", foreign.port);
    let server = Server::start(move |number, _| match number {
        0 => Reply::redirect(302, "/moved/pushy/jobs?a=b"),
        1 => Reply::redirect(307, &elsewhere),
        _ => Reply::json(200, "[]"),
    })
    .await;
    let own = settings(server.url("http"));
    let public = PublicKey::from_pem(own.key.as_ref().unwrap().public_pem().unwrap()).unwrap();
    let client = Client::new(own).unwrap();
    client.jobs().await.unwrap();
    let received = server.received();
    assert_eq!(received[1].target, "/moved/pushy/jobs?a=b");
    assert_eq!(signer(&received[1], &public).unwrap(), "alice");
    let stranger = &foreign.received()[0];
    assert!(
        stranger.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("x-ops-")),
        "{stranger:?}"
    );

    let circle = Server::start(|_, _| Reply::redirect(301, "/again")).await;
    let error = Client::new(settings(circle.url("http"))).unwrap().jobs().await.unwrap_err();
    assert!(error.message().contains("redirects in circles"), "{error}");
    assert_eq!(circle.received().len(), 11);

    let strict = Server::start(|_, _| Reply::json(401, "{}")).await;
    let (port, to) = (strict.port, format!("http://127.0.0.1:{}/x", strict.port));
    let moved = Server::start(move |_, _| Reply::redirect(301, &to)).await;
    let error = Client::new(settings(moved.url("http"))).unwrap().jobs().await.unwrap_err();
    assert!(error.message().contains(&format!("redirects to 127.0.0.1:{port}, where")), "{error}");

    let post = Server::start(|_, _| Reply::redirect(302, "/x")).await;
    let error = Client::new(settings(post.url("http"))).unwrap().start_job(&job()).await.unwrap_err();
    assert_eq!(
        error.message(),
        format!(
            "127.0.0.1:{} redirects to /x, where requests are not signed; set chef_server_url to the server itself",
            post.port
        )
    );
    assert_eq!(post.received().len(), 1);
}

#[tokio::test]
async fn a_1x_server_gets_what_it_knows() {
    let server = Server::start(|_, request| {
        if String::from_utf8_lossy(&request.body).contains("capture_output") {
            Reply::json(400, r#"{"error":"invalid key supplied"}"#)
        } else {
            Reply::json(201, &format!(r#"{{"uri":"http://x/{ID}"}}"#))
        }
    })
    .await;
    let client = client(server.url("http"));
    assert!(client.start_job(&job()).await.unwrap().v1);
    let with_user =
        JobRequest { options: JobOptions { user: Some("www".to_owned()), ..JobOptions::default() }, ..job() };
    let error = client.start_job(&with_user).await.unwrap_err();
    assert_eq!(error.message(), "Can't use a 2.0 feature (as_user) with a 1.0 server");
    assert_eq!(server.received().len(), 3, "nothing was started without the option");

    let other = Server::start(|_, _| Reply::json(400, r#"{"error":"invalid command supplied"}"#)).await;
    let error = Client::new(settings(other.url("http"))).unwrap().start_job(&job()).await.unwrap_err();
    assert_eq!(error.message(), "The data in your request was invalid: invalid command supplied");
    assert_eq!(other.received().len(), 1, "D-70");
}

#[tokio::test]
async fn searches_are_paged() {
    let server = Server::start(|number, _| {
        let row = |n: usize| format!(r#"{{"name":"n{n}"}}"#);
        let rows = match number {
            0 => (0..1000).map(row).collect::<Vec<_>>().join(","),
            _ => row(1000),
        };
        Reply::json(200, &format!(r#"{{"total":1001,"rows":[{rows}]}}"#))
    })
    .await;
    let names = client(server.url("http")).search_nodes("role:web").await.unwrap();
    assert_eq!((names.len(), names[0].as_str(), names[1000].as_str()), (1001, "n0", "n1000"));
    assert!(server.received()[1].target.ends_with("/search/node?q=role%3Aweb&start=1000&rows=1000"));
}

#[tokio::test]
async fn output_is_bytes() {
    let server = Server::start(|_, _| Reply::Http(200, String::new(), vec![0, 255, 10])).await;
    let node = NodeName::new("web 01").unwrap();
    let output = client(server.url("http")).output(&id(), &node, Channel::Stderr).await.unwrap();
    assert_eq!(output, [0, 255, 10]);
    let received = &server.received()[0];
    assert_eq!(received.target, format!("/organizations/acme/pushy/jobs/{ID}/output/web%2001/stderr"));
    assert_eq!(received.header("Accept"), Some("application/octet-stream"));
}

async fn told(client: &Client, options: WatchOptions) -> Vec<Progress> {
    let mut wait = client.wait(id(), options);
    let mut told = Vec::new();
    loop {
        let progress = tokio::time::timeout(Duration::from_secs(20), wait.next()).await.expect("an end");
        let over = matches!(progress, Progress::Finished(_) | Progress::GivenUp(_));
        told.push(progress);
        if over {
            return told;
        }
    }
}

#[tokio::test]
async fn a_wait_outlives_a_flaky_server() {
    let server = Server::start(|number, _| match number {
        0 => Reply::Close,
        1 => Reply::json(502, "<html>"),
        2 => Reply::json(200, &job_json("running")),
        3 => Reply::Close,
        _ => Reply::json(200, &job_json("complete")),
    })
    .await;
    let options = WatchOptions { poll_interval: Millis(10), feed: false, ..WatchOptions::default() };
    let told = told(&client(server.url("http")), options).await;
    let lines: Vec<_> =
        told.iter().filter_map(|p| if let Progress::Line(l) = p { Some(l.as_str()) } else { None }).collect();
    assert_eq!(lines, ["Running (0/1 in progress) ...", "Complete."]);
    let notices = told.iter().filter(|p| matches!(p, Progress::Notice(_))).count();
    assert!((1..=2).contains(&notices), "once for a row of failures: {told:?}");
    assert!(matches!(told.last(), Some(Progress::Finished(_))));

    let gone = Server::start(|_, _| Reply::json(404, "{}")).await;
    let told = self::told(&client(gone.url("http")), options).await;
    assert!(matches!(&told[..], [Progress::GivenUp(e)] if e.code() == ErrorCode::NotFound), "{told:?}");
}

#[tokio::test]
async fn certificates_are_checked() {
    let (cert, key) = certificate(&["chef.test"], &["127.0.0.1"]);
    let server = Server::start_with(Some(server_tls(&cert, &key)), |_, _| Reply::json(200, "[]")).await;
    let url = server.url("https");
    let error = client(url.clone()).jobs().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Connection);
    assert!(
        error
            .message()
            .starts_with(&format!("the certificate of 127.0.0.1:{} is not trusted (self", server.port)),
        "{error}"
    );
    assert!(error.message().ends_with("name its CA as ssl_ca_file"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chef.crt");
    std::fs::write(&file, cert.to_pem().unwrap()).unwrap();
    let mut trusting = settings(url.clone());
    trusting.tls.trusted_certs_dir = Some(dir.path().to_owned());
    let public = PublicKey::from_pem(trusting.key.as_ref().unwrap().public_pem().unwrap()).unwrap();
    Client::new(trusting.clone()).unwrap().jobs().await.unwrap();
    assert_eq!(signer(&server.received()[0], &public).unwrap(), "alice");

    let mut by_file = settings(url.clone());
    by_file.tls.ca_file = Some(file.clone());
    Client::new(by_file.clone()).unwrap().jobs().await.unwrap();
    by_file.tls.ca_file = Some(dir.path().join("absent.pem"));
    let error = Client::new(by_file).unwrap().jobs().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfig);
    assert_eq!(
        error.message(),
        format!("ssl_ca_file {} does not exist", dir.path().join("absent.pem").display())
    );

    let mut careless = settings(url);
    careless.tls.no_verify = true;
    Client::new(careless).unwrap().jobs().await.unwrap();

    // The right certificate under a name it does not have.
    trusting.server_url = format!("https://localhost:{}/organizations/acme", server.port);
    let error = Client::new(trusting.clone()).unwrap().jobs().await.unwrap_err();
    assert!(error.message().contains("not trusted (hostname mismatch)"), "{error}");

    std::fs::write(dir.path().join("broken.pem"), "not a certificate").unwrap();
    let error = Client::new(trusting).unwrap().jobs().await.unwrap_err();
    assert!(
        error.message().contains("trusted_certs_dir: cannot use ") && error.message().contains("broken.pem"),
        "{error}"
    );
}

#[tokio::test]
async fn the_wrong_scheme_is_named() {
    // A web server that gets a TLS greeting answers as to any bad request.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/organizations/acme", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.read_u8().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let error = client(url).jobs().await.unwrap_err();
    assert!(error.message().ends_with("does it speak plain http://?"), "{error}");

    let (cert, key) = certificate(&[], &["127.0.0.1"]);
    let tls = Server::start_with(Some(server_tls(&cert, &key)), |_, _| Reply::json(200, "[]")).await;
    let settings = Settings { retries: 0, ..settings(tls.url("http")) };
    let error = Client::new(settings).unwrap().jobs().await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::Protocol | ErrorCode::Connection), "{error}");
}

#[tokio::test]
async fn proxies_are_used_as_configured() {
    // The proxy is a server that is asked for the whole URL.
    let proxy = Server::start(|_, _| Reply::json(200, "[]")).await;
    let mut settings = settings("http://chef.invalid/organizations/acme".to_owned());
    settings.proxy.http = Some(format!("http://bob:pw@127.0.0.1:{}", proxy.port));
    let public = PublicKey::from_pem(settings.key.as_ref().unwrap().public_pem().unwrap()).unwrap();
    Client::new(settings).unwrap().jobs().await.unwrap();
    let mut received = proxy.received().remove(0);
    assert_eq!(received.target, "http://chef.invalid:80/organizations/acme/pushy/jobs");
    assert_eq!(received.header("Proxy-Authorization"), Some("Basic Ym9iOnB3"));
    assert_eq!(received.header("Host"), Some("chef.invalid:80"));
    received.target = "/organizations/acme/pushy/jobs".to_owned();
    assert_eq!(signer(&received, &public).unwrap(), "alice");
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let (cert, key) = certificate(&["chef.invalid"], &[]);
    let server = Server::start_with(Some(server_tls(&cert, &key)), |_, _| Reply::json(200, "[]")).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let port = server.port;
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"CONNECT chef.invalid:8443 HTTP/1.1\r\nHost: chef.invalid:8443\r\n"));
        near.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chef.pem"), cert.to_pem().unwrap()).unwrap();
    let mut settings = settings("https://chef.invalid:8443/organizations/acme".to_owned());
    settings.tls.trusted_certs_dir = Some(dir.path().to_owned());
    settings.proxy.https = Some(proxy.to_string());
    Client::new(settings.clone()).unwrap().jobs().await.unwrap();
    assert_eq!(server.received().len(), 1);

    let refusing = Server::start(|_, _| Reply::json(407, "")).await;
    settings.proxy.https = Some(format!("127.0.0.1:{}", refusing.port));
    let error = Client::new(settings).unwrap().jobs().await.unwrap_err();
    assert!(
        error.message().contains("refused to connect to chef.invalid:8443 with HTTP status 407"),
        "{error}"
    );
}

#[test]
fn bad_settings_are_refused_at_once() {
    for (url, want) in [
        ("chef.example.com", "chef_server_url must begin with https:// or http://, in lower case"),
        ("https://", "chef_server_url "),
        ("chefzero://localhost:8889", "chef_server_url is a chefzero:// address"),
    ] {
        let error = Client::new(Settings::new(url, "alice")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
        assert!(error.message().starts_with(want), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn any_server_url_is_taken_or_refused(rest: String, scheme in proptest::sample::select(vec!["", "http://", "https://u:p@"])) {
        if let Err(error) = Client::new(Settings::new(format!("{scheme}{rest}"), "alice")) {
            proptest::prop_assert_eq!(error.code(), ErrorCode::InvalidConfig);
        }
    }
}

/// A server on a thread of its own, for clients that block.
fn server_thread(handler: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let server = Server::start(handler).await;
            sender.send(server.url("http")).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}

#[test]
fn blocking_calls_can_be_cancelled_and_sliced() {
    let url = server_thread(|_, request| match request.target.ends_with("node_states") {
        true => Reply::Silence,
        false => Reply::json(200, &job_json("running")),
    });
    let client = blocking::Client::new(settings(url)).unwrap();
    let cancel = CancelToken::new();

    let mut operation = client.begin(|client| async move { client.node_states().await }).unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        assert!(operation.run_for(Duration::from_millis(10), &cancel).is_none());
    }
    assert!((30..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    drop(operation);

    let mut wait = client.wait(id(), WatchOptions::default()).unwrap();
    assert_eq!(wait.next_within(Duration::from_millis(50), &cancel), None);

    let other = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        other.cancel();
    });
    let start = Instant::now();
    assert_eq!(client.node_states(&cancel).unwrap_err().code(), ErrorCode::Interrupted);
    assert!(start.elapsed() < Duration::from_secs(3));
    thread.join().unwrap();
    match wait.next_within(Duration::from_secs(5), &cancel) {
        Some(Progress::GivenUp(error)) => assert_eq!(error.code(), ErrorCode::Interrupted),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.job(id(), &CancelToken::new()).unwrap().id().as_str(), ID, "the client lives on");
}

#[test]
fn blocking_clients_serve_several_threads() {
    let url = server_thread(|_, _| Reply::json(200, &job_json("complete")));
    let client = blocking::Client::new(settings(url)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let cancel = CancelToken::new();
                for _ in 0..5 {
                    client.job(id(), &cancel).unwrap();
                }
            });
        }
    });
}
