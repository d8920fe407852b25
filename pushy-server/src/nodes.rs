//! The nodes of an organization as Chef's tools read and search them, in memory (decision 44).
//!
//! Every node that was registered has an entry, with nothing but its name until its agent has published a document.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushy_core::node_document::{Fixed, NodeDocument};
use pushy_core::search::{Document, merged};
use pushy_core::time::Wall;
use serde_json::Value;

/// What an agent published, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The document as it came.
    pub text: Arc<str>,
    /// When.
    pub at: Wall,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What its agent said last; `None` before it ever did.
    pub published: Option<Published>,
    /// What the administrator has fixed; wins over what the agent says.
    pub fixed: Fixed,
    /// The JSON of `Chef::Node`.
    pub chef_node: String,
    /// All levels of attributes in one, for partial searches.
    pub merged: Value,
    /// For searching.
    pub document: Document,
}

impl Node {
    fn new(name: &str, published: Option<Published>, fixed: Fixed) -> Node {
        let said = published.as_ref().and_then(|published| {
            let document = NodeDocument::from_json(published.text.as_bytes(), name);
            // Checked before it was kept; a newer program may have kept what this one refuses.
            document.inspect_err(|e| tracing::warn!(node = ?name, "its document is left out: {e}")).ok()
        });
        let at = published.as_ref().map(|published| published.at);
        let node = said.unwrap_or_default().chef_node(name, &fixed, at);
        let merged = merged(&node);
        Node {
            name: name.to_owned(),
            published,
            fixed,
            chef_node: node.to_string(),
            document: Document::new(&merged, name),
            merged,
        }
    }
}

/// The nodes of one organization, by name.
#[derive(Debug, Default)]
pub struct Nodes(BTreeMap<String, Arc<Node>>);

impl Nodes {
    /// A node was registered, or got a new key.
    pub fn add(&mut self, name: &str) {
        if !self.0.contains_key(name) {
            self.put(Node::new(name, None, Fixed::default()));
        }
    }

    /// A node is gone.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// An agent says what its node is. Nothing happens when there is no such node.
    pub fn publish(&mut self, name: &str, published: Published) {
        if let Some(node) = self.0.get(name) {
            let node = Node::new(name, Some(published), node.fixed.clone());
            self.put(node);
        }
    }

    /// The administrator says what a node is. Nothing happens when there is no such node.
    pub fn fix(&mut self, name: &str, fixed: Fixed) {
        if let Some(node) = self.0.get(name) {
            let node = Node::new(name, node.published.clone(), fixed);
            self.put(node);
        }
    }

    fn put(&mut self, node: Node) {
        self.0.insert(node.name.clone(), Arc::new(node));
    }

    /// One node.
    pub fn get(&self, name: &str) -> Option<&Arc<Node>> {
        self.0.get(name)
    }

    /// All of them, by name; cheap enough to take before a search, which then holds nobody up.
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.0.values().map(Arc::clone).collect()
    }
}
