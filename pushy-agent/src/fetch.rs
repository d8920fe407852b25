//! Asks the server for the node's configuration: a GET signed as the node (1.3 step 3); and tells it what the node is.

use std::future::Future;
use std::time::Duration;

use pushy_core::api::{GetConfig, PublishNode};
use pushy_core::client::{Client, Settings};
use pushy_core::curve_key::CurveKey;
use pushy_core::ids::NodeName;
use pushy_core::node::Input;
use pushy_core::node_document::NodeDocument;
use pushy_core::{Error, ErrorCode};

use crate::about;
use crate::config::Config;

/// On each silence of the server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One client, kept: TLS settings are read once.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: Client,
    node: NodeName,
    server_url: String,
}

impl Fetcher {
    /// Checks the settings; connects nowhere.
    pub(crate) fn new(config: &Config) -> pushy_core::Result<Fetcher> {
        let mut settings = Settings::new(&config.chef_server_url, &config.client_name)
            .with_key(config.client_key.clone(), config.client_key_path.display().to_string());
        settings.auth_version = config.auth_version;
        settings.tls = config.tls.clone();
        settings.proxy = config.proxy.clone();
        settings.connect_timeout = TIMEOUT;
        settings.timeout = TIMEOUT;
        // The machine has its own back-off.
        settings.retries = 0;
        settings.user_agent = concat!("push-jobs-client/", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(Fetcher {
            client: Client::new(settings)?,
            node: config.node_name.clone(),
            server_url: config.chef_server_url.clone(),
        })
    }

    /// The document for this CURVE key, or one line about what went wrong.
    pub(crate) fn fetch(
        &self,
        key: CurveKey,
    ) -> impl Future<Output = Result<Vec<u8>, String>> + Send + use<> {
        let (client, node) = (self.client.clone(), self.node.clone());
        async move {
            let ccpk = key.to_z85();
            client
                .call(&GetConfig { node: &node, ccpk: &ccpk })
                .await
                .map(|document| document.to_string().into_bytes())
                .map_err(|error| error.message().to_owned())
        }
    }

    /// Tells the server what this node is; answers what came of it.
    pub(crate) fn publish(&self, mut document: NodeDocument) -> impl Future<Output = Input> + Send + use<> {
        let (client, node, url) = (self.client.clone(), self.node.clone(), self.server_url.clone());
        async move {
            // The name service may keep this waiting.
            let address = tokio::task::spawn_blocking(move || about::address(&url)).await;
            document.ipaddress = address.ok().flatten().map(|ip| ip.to_string());
            match client.call(&PublishNode { node: &node, document: &document }).await {
                Ok(()) => Input::Published,
                Err(error) => {
                    Input::PublishFailed { retry: may_pass(&error), why: error.message().to_owned() }
                }
            }
        }
    }
}

/// Whether the same request may do later: nobody answered, or the server has trouble of its own.
fn may_pass(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::Connection | ErrorCode::Timeout | ErrorCode::Server | ErrorCode::ClockSkew
    )
}
