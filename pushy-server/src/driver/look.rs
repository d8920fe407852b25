//! Questions to the driver.

use pushy_core::server::Server;

use crate::broker::Broker;

/// A question that is answered on the driver's task; should be short.
pub struct Look(pub(super) Box<Glance>);

type Glance = dyn FnOnce(&Server, &Broker) + Send;

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}
