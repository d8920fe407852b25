//! The extra members that `detail=1` asks for (decision 20): what is known of a node beside its state.

use pushy_core::server::NodeDetail;
use pushy_core::time::Wall;
use serde_json::{Map, Value, json};

use super::node_states::availability;

/// One node, as an object. Members are there whether they have a value or not.
pub(crate) fn node(detail: &NodeDetail) -> Value {
    let date = |at: Option<Wall>| at.map(Wall::iso8601);
    let warnings: Vec<Value> = detail
        .warnings
        .iter()
        .map(|warning| json!({ "kind": warning.kind(), "text": warning.to_string() }))
        .collect();
    let jobs: Vec<&str> = detail.jobs.iter().map(|job| job.as_str()).collect();
    let available = detail.state.available;
    let mut node = Map::new();
    let mut set = |name: &str, value: Value| drop(node.insert(name.to_owned(), value));
    set("node_name", json!(detail.name.as_str()));
    set("status", json!(if detail.state.online { "online" } else { "offline" }));
    set("availability", json!(availability(detail.state)));
    set("available_since", json!(date(detail.since).filter(|_| available)));
    set("unavailable_since", json!(date(detail.since).filter(|_| !available)));
    set("reason", json!(detail.reason));
    set("last_seen", json!(date(detail.last_seen)));
    set("address", json!(detail.address));
    set("client_version", json!(detail.client));
    set("incarnation_id", json!(detail.incarnation.as_ref().map(|id| id.as_str())));
    // Four bytes are enough to compare with a log line.
    set("key", json!(detail.key.map(|key| format!("{key:?}"))));
    set("clock_offset", json!(detail.clock_offset));
    set("jobs", json!(jobs));
    set("warnings", json!(warnings));
    Value::Object(node)
}
