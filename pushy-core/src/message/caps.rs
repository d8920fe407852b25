//! Which extensions a peer takes: member `caps` of heartbeats and configurations (decision 20).

use std::fmt;

/// A set of extensions: member `caps`, an array of strings. Every member and message that an original does not know goes
/// only to a peer that has announced it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Caps(u16);

impl Caps {
    /// None: a peer that announces an empty list.
    pub const NONE: Caps = Caps(0);
    /// `results`: results are acknowledged with `result_ack` and repeated until then (decision 2).
    pub const RESULTS: Caps = Caps(1);
    /// `nodes`: the server takes what nodes say of themselves (decision 44). Only in configurations.
    pub const NODES: Caps = Caps(1 << 1);
    /// `reasons`: refusals, failures and aborts carry member `reason` to a server that says so.
    pub const REASONS: Caps = Caps(1 << 2);
    /// `cancel`: the node takes `cancel`, which names its job. Only in heartbeats.
    pub const CANCEL: Caps = Caps(1 << 3);
    /// `timeout`: the node takes member `run_timeout` of `commit` and ends the process itself. Only in heartbeats.
    pub const TIMEOUT: Caps = Caps(1 << 4);
    /// `output`: captured output is spooled on the node and fetched in pieces.
    pub const OUTPUT: Caps = Caps(1 << 5);
    /// `params`: the node takes member `parameters` of `commit`. Only in heartbeats.
    pub const PARAMS: Caps = Caps(1 << 6);

    /// Every extension with its name, in the order in which they are announced.
    pub const NAMES: &'static [(&'static str, Caps)] = &[
        ("results", Caps::RESULTS),
        ("nodes", Caps::NODES),
        ("reasons", Caps::REASONS),
        ("cancel", Caps::CANCEL),
        ("timeout", Caps::TIMEOUT),
        ("output", Caps::OUTPUT),
        ("params", Caps::PARAMS),
    ];

    /// What our agent announces in every heartbeat.
    pub const OF_NODE: Caps = Caps::RESULTS
        .with(Caps::REASONS)
        .with(Caps::CANCEL)
        .with(Caps::TIMEOUT)
        .with(Caps::OUTPUT)
        .with(Caps::PARAMS);

    /// What our server announces in every configuration, `nodes` only where it is switched on.
    pub const OF_SERVER: Caps = Caps::RESULTS.with(Caps::REASONS).with(Caps::OUTPUT);

    /// Whether all of `others` are in the set.
    pub const fn has(self, others: Caps) -> bool {
        self.0 & others.0 == others.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, others: Caps) -> Caps {
        Caps(self.0 | others.0)
    }

    /// The set without `others`.
    #[must_use]
    pub const fn without(self, others: Caps) -> Caps {
        Caps(self.0 & !others.0)
    }

    /// The names of the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Caps::NAMES.iter().filter(move |(_, cap)| self.has(*cap)).map(|(name, _)| *name)
    }

    /// The set with these names; names of other versions are left out.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Caps {
        names.into_iter().fold(Caps::NONE, |caps, name| caps.with(Caps::named(name)))
    }

    pub(super) fn named(name: &str) -> Caps {
        Caps::NAMES.iter().find(|(known, _)| *known == name).map_or(Caps::NONE, |(_, cap)| *cap)
    }

    /// The JSON array.
    pub(crate) fn to_json(self) -> Vec<u8> {
        let mut text = Vec::with_capacity(64);
        for name in self.names() {
            text.extend_from_slice(if text.is_empty() { b"[\"" } else { b",\"" });
            text.extend_from_slice(name.as_bytes());
            text.push(b'"');
        }
        text.extend_from_slice(if text.is_empty() { b"[]" } else { b"]" });
        text
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |caps: Caps, text: &str| {
            assert_eq!(String::from_utf8(caps.to_json()).as_deref(), Ok(text));
            assert_eq!(Caps::from_names(caps.names()), caps, "{text}");
        };
        check(Caps::NONE, "[]");
        check(Caps::RESULTS, r#"["results"]"#);
        check(Caps::CANCEL.with(Caps::RESULTS), r#"["results","cancel"]"#);
        check(
            Caps::NAMES.iter().fold(Caps::NONE, |all, (_, cap)| all.with(*cap)),
            r#"["results","nodes","reasons","cancel","timeout","output","params"]"#,
        );
        let bits: u32 = Caps::NAMES.iter().map(|(_, cap)| cap.0.count_ones()).sum();
        assert_eq!(bits as usize, Caps::NAMES.len(), "one bit each");
        assert_eq!(Caps::from_names(["x", "cancel", ""]), Caps::CANCEL);
        assert!(!Caps::CANCEL.has(Caps::CANCEL.with(Caps::TIMEOUT)));
        assert_eq!(Caps::OF_NODE.without(Caps::RESULTS).with(Caps::RESULTS), Caps::OF_NODE);
    }
}
