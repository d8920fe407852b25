//! What a node says about itself for the search of a server without Chef Infra Server, and the Chef node made of it
//! (decision 44).
//!
//! A node may claim its roles, environment and tags; what the administrator has fixed wins over the claim, so that a
//! node cannot draw to itself the jobs of a role it does not have.

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorCode, Result};
use crate::json::Object;
use crate::time::Wall;

/// The longest document, in bytes (decision 44).
pub const MAX_DOCUMENT: usize = 262_144;
/// How deep arrays and hashes of a document may nest.
pub const MAX_DEPTH: usize = 10;
/// The environment of a node that names none, as in Chef.
pub const DEFAULT_ENVIRONMENT: &str = "_default";

/// The longest name of an environment, role or tag, in characters.
const MAX_NAME: usize = 255;

/// What a node publishes with `PUT pushy/nodes/NAME`. No keys, no values of `env`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeDocument {
    /// Full host name.
    pub fqdn: Option<String>,
    /// The address that the node reaches the server from.
    pub ipaddress: Option<String>,
    /// `debian`, `rhel`: Ohai's word for the distribution.
    pub platform: Option<String>,
    /// Its version, `12`.
    pub platform_version: Option<String>,
    /// The claimed environment.
    pub environment: Option<String>,
    /// The claimed roles.
    pub roles: Vec<String>,
    /// The claimed tags.
    pub tags: Vec<String>,
    /// `push_jobs.whitelist`: commands → command lines or hashes ([`crate::whitelist::published`]).
    pub whitelist: Map<String, Value>,
}

/// What the administrator has fixed of a node; `None` leaves it to the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed {
    /// The environment.
    pub environment: Option<String>,
    /// The roles.
    pub roles: Option<Vec<String>>,
    /// The tags.
    pub tags: Option<Vec<String>>,
}

/// Checks the name of an environment or role by Chef's rule. Chef's tools fail over a whole answer that holds a node with
/// any other: a node could take the search from everybody.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`], naming `what`.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(ok) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("{what} must be 1 to {MAX_NAME} letters, digits, '_' and '-'"),
        ));
    }
    Ok(())
}

/// Checks a tag.
///
/// # Errors
/// As [`check_name`].
pub fn check_tag(what: &str, tag: &str) -> Result<()> {
    let ok = |c: char| !c.is_control() && !c.is_whitespace() && c != ',';
    if tag.is_empty() || tag.chars().count() > MAX_NAME || !tag.chars().all(ok) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("{what} must be 1 to {MAX_NAME} characters without white space and commas"),
        ));
    }
    Ok(())
}

impl NodeDocument {
    /// The JSON text, as published.
    pub fn to_json(&self, name: &str) -> String {
        let mut object = Object::with_capacity(512);
        object.member("name", name);
        let texts = [
            ("fqdn", &self.fqdn),
            ("ipaddress", &self.ipaddress),
            ("platform", &self.platform),
            ("platform_version", &self.platform_version),
            ("chef_environment", &self.environment),
        ];
        for (member, text) in texts {
            if let Some(text) = text {
                object.member(member, text);
            }
        }
        object
            .member("roles", &self.roles)
            .member("tags", &self.tags)
            .member("push_jobs", &json!({ "whitelist": self.whitelist }))
            .end_text()
    }

    /// Reads what a node published. Members that are not known are left out, so that later nodes can say more.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`] beyond [`MAX_DOCUMENT`]; [`ErrorCode::Malformed`] naming the member otherwise: another
    /// node's name, a member of the wrong kind, nested too deep.
    pub fn from_json(text: &[u8], name: &str) -> Result<NodeDocument> {
        if text.len() > MAX_DOCUMENT {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("a node's document has at most {MAX_DOCUMENT} bytes"),
            ));
        }
        let Ok(document @ Value::Object(_)) = serde_json::from_slice::<Value>(text) else {
            return Err(malformed("a node's document is a JSON object"));
        };
        if too_deep(&document, MAX_DEPTH) {
            return Err(malformed(format!("a node's document has at most {MAX_DEPTH} levels")));
        }
        let text = |member: &str| match document.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(malformed(format!("member `{member}` of a node's document must be a string"))),
        };
        let names = |member: &str, check: fn(&str, &str) -> Result<()>| {
            let wrong =
                || malformed(format!("member `{member}` of a node's document must be a list of names"));
            match document.get(member) {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(Value::Array(elements)) => elements
                    .iter()
                    .map(|element| {
                        let name = element.as_str().ok_or_else(wrong)?;
                        check(member, name).map_err(|e| malformed(e.message()))?;
                        Ok(name.to_owned())
                    })
                    .collect(),
                Some(_) => Err(wrong()),
            }
        };
        if text("name")?.is_some_and(|said| said != name) {
            return Err(malformed("member `name` of a node's document must be the node's own"));
        }
        let environment = text("chef_environment")?;
        if let Some(environment) = &environment {
            check_name("chef_environment", environment).map_err(|e| malformed(e.message()))?;
        }
        let whitelist = match document.get("push_jobs").map(|push_jobs| push_jobs.get("whitelist")) {
            None | Some(None | Some(Value::Null)) => Map::new(),
            Some(Some(Value::Object(entries))) => entries.clone(),
            Some(Some(_)) => {
                return Err(malformed("member `push_jobs.whitelist` of a node's document must be a hash"));
            }
        };
        Ok(NodeDocument {
            fqdn: text("fqdn")?,
            ipaddress: text("ipaddress")?,
            platform: text("platform")?,
            platform_version: text("platform_version")?,
            environment,
            roles: names("roles", check_name)?,
            tags: names("tags", check_tag)?,
            whitelist,
        })
    }

    /// The node as Chef's tools read it. `published` becomes `ohai_time`, which says when it was last heard of.
    pub fn chef_node(&self, name: &str, fixed: &Fixed, published: Option<Wall>) -> Value {
        let mut automatic = Map::new();
        let mut put = |member: &str, text: Option<&str>| {
            if let Some(text) = text {
                automatic.insert(member.to_owned(), Value::from(text));
            }
        };
        put("fqdn", self.fqdn.as_deref());
        put("hostname", self.fqdn.as_deref().and_then(|fqdn| fqdn.split('.').next()));
        put("ipaddress", self.ipaddress.as_deref());
        put("platform", self.platform.as_deref());
        put("platform_version", self.platform_version.as_deref());
        if let Some(Wall(micros)) = published {
            automatic.insert("ohai_time".into(), Value::from(micros as f64 / 1e6));
        }
        let roles = fixed.roles.as_ref().unwrap_or(&self.roles);
        automatic.insert("roles".into(), json!(roles));
        automatic.insert("recipes".into(), json!([]));
        if !self.whitelist.is_empty() {
            automatic.insert("push_jobs".into(), json!({ "whitelist": self.whitelist }));
        }
        let environment = fixed.environment.as_deref().or(self.environment.as_deref());
        let run_list: Vec<String> = roles.iter().map(|role| format!("role[{role}]")).collect();
        json!({
            "name": name,
            "chef_environment": environment.unwrap_or(DEFAULT_ENVIRONMENT),
            "json_class": "Chef::Node",
            "automatic": automatic,
            "normal": { "tags": fixed.tags.as_ref().unwrap_or(&self.tags) },
            "chef_type": "node",
            "default": {},
            "override": {},
            "run_list": run_list,
        })
    }
}

impl Fixed {
    /// Whether nothing is fixed.
    pub fn is_empty(&self) -> bool {
        *self == Fixed::default()
    }

    /// The JSON text that [`Fixed::from_json`] reads.
    pub fn to_json(&self) -> String {
        let mut object = Object::with_capacity(128);
        if let Some(environment) = &self.environment {
            object.member("environment", environment);
        }
        for (member, names) in [("roles", &self.roles), ("tags", &self.tags)] {
            if let Some(names) = names {
                object.member(member, names);
            }
        }
        object.end_text()
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`] when it is not [`Fixed::to_json`]'s.
    pub fn from_json(text: &str) -> Result<Fixed> {
        let bad = || malformed("what is fixed of a node cannot be read");
        let document: Map<String, Value> = serde_json::from_str(text).map_err(|_| bad())?;
        let names = |member: &str| match document.get(member) {
            None => Ok(None),
            Some(Value::Array(elements)) => {
                let names: Option<Vec<String>> =
                    elements.iter().map(|element| element.as_str().map(str::to_owned)).collect();
                names.map(Some).ok_or_else(bad)
            }
            Some(_) => Err(bad()),
        };
        let environment = match document.get("environment") {
            None => None,
            Some(value) => Some(value.as_str().ok_or_else(bad)?.to_owned()),
        };
        Ok(Fixed { environment, roles: names("roles")?, tags: names("tags")? })
    }
}

fn malformed(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::Malformed, text)
}

/// Whether there are more than `levels` arrays and hashes within one another.
fn too_deep(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(elements) => levels == 0 || elements.iter().any(|value| too_deep(value, levels - 1)),
        Value::Object(members) => levels == 0 || members.values().any(|value| too_deep(value, levels - 1)),
        _ => false,
    }
}
