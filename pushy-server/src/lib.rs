//! The Push Jobs server: a driver around [`pushy_core::server::Server`].
//!
//! [`run`] is the whole server; the program `pushy-server` adds arguments and a log, tests start it on free ports.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum_server::tls_openssl::{OpenSSLAcceptor, OpenSSLConfig};
use hyper_util::rt::TokioTimer;
use pushy_core::server::Server;
use pushy_core::{Error, ErrorCode, Result};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::watch;

mod accept;
pub mod admin;
pub mod api;
pub mod broker;
pub mod cli;
mod clock;
pub mod config;
pub mod directory;
pub mod doctor;
pub mod driver;
pub mod feeds;
mod files;
mod handover;
mod init;
pub mod keys;
pub mod nodes;
pub mod ops;
mod outputs;
pub mod principals;
mod rest_limit;
pub mod retention;
pub mod store;
mod tls;
mod upkeep;

use accept::PatientAcceptor;
use broker::{Broker, BrokerConfig};
use config::Config;
use driver::{Driver, Event, Handle};
use keys::Keys;
use ops::Ops;
use ops::reload::Reload;
use principals::{Hooks, Principals};
use rest_limit::Limit;
use store::Store;

pub use store::DATABASE;
/// The name of the file that says where a running server listens.
pub const RUN_FILE: &str = "run.json";

/// A client that sends nothing for so long loses its REST connection.
const IDLE_REST: Duration = Duration::from_secs(60);
/// REST requests in flight get so long at a stop.
const GRACE: Duration = Duration::from_millis(1500);

/// The three ports, bound.
#[derive(Debug)]
pub struct Listeners {
    /// The REST API.
    pub api: TcpListener,
    /// The server's heartbeats.
    pub heartbeat: TcpListener,
    /// The nodes' command channel.
    pub command: TcpListener,
    /// Metrics, if they are wanted.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds the ports of the configuration.
    ///
    /// # Errors
    /// When one is taken or not this host's; names the setting.
    pub fn bind(config: &Config) -> Result<Listeners> {
        let bind = |setting: &str, address: SocketAddr| {
            broker::listen(address).map_err(|e| {
                let hint = match e.kind() {
                    std::io::ErrorKind::AddrInUse => "; another program listens there",
                    std::io::ErrorKind::AddrNotAvailable => "; this host does not have that address",
                    _ => "",
                };
                Error::new(ErrorCode::Io, format!("{setting} {address}: {e}{hint}"))
            })
        };
        Ok(Listeners {
            api: bind("api_listen", config.api_listen)?,
            heartbeat: bind("heartbeat_listen", config.heartbeat_listen)?,
            command: bind("command_listen", config.command_listen)?,
            metrics: config.operation.metrics_listen.map(|at| bind("metrics_listen", at)).transpose()?,
        })
    }
}

fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|e| Error::new(ErrorCode::Io, format!("listener: {e}")))
}

/// Runs the server of `config.dir` until `shutdown` is ready. `ready` is told once requests are answered, with the
/// document of [`RUN_FILE`].
///
/// # Errors
/// When keys, database or certificate cannot be used, or another server runs in the directory.
pub async fn run(
    config: Config,
    listeners: Listeners,
    ready: impl FnOnce(&serde_json::Value),
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (handle, events) = Handle::new();
    let answers = handle.clone();
    let on_saved = Box::new(move |saved| answers.post(Event::Saved(saved)));
    let _lock = files::DirLock::take(&config.dir)?;
    let store = config.database.open(store::Options::default(), on_saved)?;
    let result = run_with(config, listeners, Arc::clone(&store), (handle, events), ready, shutdown).await;
    store.close();
    result
}

/// As [`run`], with a store of the caller's, whose answers must be posted to the given handle.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    listeners: Listeners,
    store: Arc<dyn Store>,
    (handle, events): (Handle, tokio::sync::mpsc::UnboundedReceiver<Event>),
    ready: impl FnOnce(&serde_json::Value),
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let keys = load_keys(&config.dir, &*store)?;
    let directory = Arc::new(RwLock::new(store.directory()?));
    let tls = config.tls.as_ref().map(|(cert, key)| tls::config(cert, key)).transpose()?;
    let ops = Ops::new(&config.operation)?;
    let reload = Arc::new(Reload::new(&config, Arc::clone(&ops), tls.clone()));
    let metrics = listeners.metrics.as_ref().map(address).transpose()?;
    let ports = (address(&listeners.api)?, address(&listeners.heartbeat)?, address(&listeners.command)?);

    let machine = config.machine(ports.1.port(), ports.2.port());
    let about = json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "api": ports.0.to_string(),
        "heartbeat": ports.1.to_string(),
        "command": ports.2.to_string(),
        "metrics": metrics.map(|at| at.to_string()),
        "api_url": config.api_url(ports.0.port()),
        "heartbeat_addr": machine.heartbeat_addr,
        "command_addr": machine.command_addr,
        "incarnation_id": keys.incarnation().as_str(),
    });
    let mut broker_config = BrokerConfig::new(Arc::new(keys.curve_secret()), machine.max_body_size);
    broker_config.max_per_address = config.max_connections_per_address.map(|n| n as usize);
    let asked = config.max_rest_connections.map(|n| n as usize);
    let (most_rest, most_nodes) =
        rest_limit::shares(broker::descriptor_limit(), config.max_nodes as usize, asked);
    broker_config.max_connections = most_nodes;
    check_descriptors(&config, most_nodes);
    let server = Server::new(
        machine,
        keys.for_machine(config::host_name()),
        store.restore()?,
        Box::new(rand_core::OsRng),
        clock::now(),
    )?;
    let (broker, from_nodes) = Broker::start(broker_config, listeners.command, listeners.heartbeat)
        .map_err(|e| Error::new(ErrorCode::Io, format!("broker: {e}")))?;

    let kept = Arc::clone(&store);
    let (stop, stopped) = watch::channel(false);
    let feeds = Arc::new(feeds::Hub::new(
        config.feeds(),
        Arc::clone(&store),
        store.feeds()?,
        keys.generation(),
        clock::wall(),
    ));
    let driver =
        Driver::new(server, broker, Arc::clone(&store), Arc::clone(&feeds), &handle, Arc::clone(&ops));
    let mut driver = tokio::spawn(driver.run(events, from_nodes, until(stopped)));
    let ends = handle.clone();
    let heard = Arc::clone(&ops);
    let hooks = Hooks {
        on_gone: Box::new(move |node| {
            ends.post(Event::EndBindings(node, "the Chef server does not know it any more".into()));
        }),
        on_heard: Box::new(move |answered| match answered {
            true => heard.health.chef.good(),
            false => heard.health.chef.bad(),
        }),
    };
    let principals = Principals::start(config.chef.as_ref(), Arc::clone(&directory), &*store, hooks).await?;
    let admin = Arc::new(admin::Admin {
        directory,
        store: Arc::clone(&store),
        driver: Some(handle.clone()),
        api_url: Some(config.api_url(ports.0.port())),
        about: about.clone(),
        chef: config.chef.clone(),
        ops: Arc::clone(&ops),
        drain_timeout: config.operation.drain_timeout,
        reload: Some(Arc::clone(&reload)),
    });
    let socket = config.dir.join(admin::SOCKET);
    let admin_task = tokio::spawn(admin.serve(admin_listener(&socket)?));
    let api = Arc::new(api::Api {
        principals,
        only_org: config.chef.as_ref().and_then(|chef| chef.organization.clone()),
        store,
        driver: handle,
        feeds: Arc::clone(&feeds),
        streams: outputs::Streams::new(config.max_output_streams as usize),
        node_states: api::NodeStates::default(),
        ops: Arc::clone(&ops),
        scheme: if tls.is_some() { "https" } else { "http" },
        authority: format!("{}:{}", config::bracketed(&config.host()), ports.0.port()),
        validate_client_node_name: config.validate_client_node_name,
        incarnation: keys.incarnation().to_string(),
    });
    let source = ops::http::Source {
        ops: Arc::clone(&ops),
        driver: api.driver.clone(),
        feeds: Arc::clone(&feeds),
        database: match &config.database {
            store::Place::Sqlite(path) => Some(path.clone()),
            store::Place::Postgres(_) => None,
        },
    };
    let metrics_task =
        listeners.metrics.map(|listener| tokio::spawn(ops::http::serve(listener, source.into())));
    let reload_task = tokio::spawn(reload.watch(config.operation.tls_check_interval));
    let rest = axum_server::Handle::new();
    let patience = config.send_timeout.into();
    let acceptor = PatientAcceptor { patience, limit: Limit::new(most_rest) };
    let rest_task = tokio::spawn(serve_rest(listeners.api, tls, rest.clone(), acceptor, api));
    let reaper = {
        let feeds = Arc::clone(&feeds);
        tokio::spawn(async move { feeds.reap().await })
    };
    let retention = tokio::spawn(retention::run(Arc::clone(&kept), config.clone()));
    let run_file = config.dir.join(RUN_FILE);
    files::write(&run_file, &format!("{about:#}\n"), false)?;
    tracing::info!(api = %ports.0, heartbeat = %ports.1, command = %ports.2, "ready");
    ready(&about);

    let result = tokio::select! {
        () = shutdown => Ok(()),
        () = ops.health.drained.notified() => Ok(()),
        _ = &mut driver => Err(Error::new(ErrorCode::Internal, "the driver has ended; the log says why")),
    };
    tracing::info!("stopping");
    reload_task.abort();
    if let Some(task) = metrics_task {
        task.abort();
    }
    // Left-overs are harmless: the next start replaces both files.
    let _ = std::fs::remove_file(&run_file);
    admin_task.abort();
    retention.abort();
    let _ = std::fs::remove_file(&socket);
    // Listeners resume when a server runs again; whoever still holds on at the end is cut.
    feeds.close();
    reaper.abort();
    rest.graceful_shutdown(Some(GRACE));
    // Requests in flight still need the driver, so it goes last.
    if let Ok(Ok(Err(e))) = tokio::time::timeout(GRACE * 2, rest_task).await {
        tracing::warn!("REST listener: {e}");
    }
    stop.send_replace(true);
    if result.is_ok() && driver.await.is_err() {
        return Err(Error::new(ErrorCode::Internal, "the driver ended in a panic"));
    }
    result
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Keys and database are noted as started together, the database first (decision 5).
fn load_keys(dir: &Path, store: &dyn Store) -> Result<Keys> {
    let mut keys = Keys::load(dir)?;
    let identity = store.identity()?;
    if keys.go_with(&identity) {
        tracing::warn!(
            "the database is not the one of the last start: nodes will fetch their configuration again"
        );
    }
    store.set_generation(keys.generation())?;
    keys.save(dir)?;
    Ok(keys)
}

/// A node takes two descriptors (decision 48).
fn check_descriptors(config: &Config, connections: usize) {
    let wanted = 2 * config.max_nodes as usize;
    if connections < wanted {
        tracing::warn!(
            "the limit of open files allows {connections} connections of nodes, max_nodes = {} needs {wanted}; \
             raise it (systemd: LimitNOFILE) or lower max_nodes",
            config.max_nodes
        );
    }
}

fn admin_listener(path: &Path) -> Result<UnixListener> {
    let bind = || {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|e| files::io(path, &e))
}

async fn serve_rest(
    listener: TcpListener,
    tls: Option<OpenSSLConfig>,
    handle: axum_server::Handle<SocketAddr>,
    acceptor: PatientAcceptor,
    api: Arc<api::Api>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let service = api::router(api).into_make_service_with_connect_info::<SocketAddr>();
    let mut server = axum_server::from_tcp(listener)?.handle(handle);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(Some(IDLE_REST));
    // A new acceptor forgets `http1_only`: it comes last. Without it HTTP/2 is taken from anybody who begins with it.
    match tls {
        Some(tls) => {
            let acceptor = OpenSSLAcceptor::new(tls).acceptor(acceptor);
            server.acceptor(acceptor).http1_only().serve(service).await
        }
        None => server.acceptor(acceptor).http1_only().serve(service).await,
    }
}
