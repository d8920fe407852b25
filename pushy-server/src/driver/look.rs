//! Questions to the driver.

use pushy_core::Result;
use pushy_core::ids::{JobId, NodeName, NodeRef, OrgId};
use pushy_core::server::{NodeState, Server};

use super::Handle;
use crate::broker::Broker;

/// A question that is answered on the driver's task; should be short.
pub struct Look(pub(super) Box<Glance>);

type Glance = dyn FnOnce(&Server, &Broker) + Send;

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

impl Handle {
    /// Every node of the organization with a live state.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn node_states(&self, org: OrgId) -> Result<Vec<(NodeName, NodeState)>> {
        self.look(move |server, _| server.node_states(&org)).await
    }

    /// One node, known or not.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn node_state(&self, node: NodeRef) -> Result<NodeState> {
        self.look(move |server, _| server.node_state(&node)).await
    }

    /// How many nodes have a live state, and the ids of jobs in memory.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn counts(&self) -> Result<(usize, Vec<JobId>)> {
        self.look(|server, _| server.counts()).await
    }

    /// Connections with a complete handshake: nodes, subscribers.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn connections(&self) -> Result<(usize, usize)> {
        self.look(|_, broker| broker.connections()).await
    }
}
