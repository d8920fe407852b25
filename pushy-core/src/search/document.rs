//! A node as the search sees it: keys with the texts that can be found under them.

use std::borrow::Cow;

use serde_json::Value;

use super::flatten;
use super::pattern::fold_text;

/// Where a piece of text lies.
type Span = (u32, u32);

/// One text under one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    key: Span,
    value: Span,
}

/// A flattened node: every value under its own name and under its whole path, joined with `_` (Chef's expander).
#[derive(Debug, Clone)]
pub struct Document {
    /// Keys and values, one after the other.
    text: Box<str>,
    /// The same without case; same offsets.
    folded: Box<str>,
    /// Of the keys, sorted: a look-up touches these few bytes and then one entry, however many there are.
    hashes: Box<[u32]>,
    /// In the order of the hashes; those of one key in the order they were written.
    entries: Box<[Entry]>,
}

impl Document {
    /// Flattens what [`super::merged`] makes of a node. `id` is the node's name, found under `X_CHEF_id_CHEF_X`.
    ///
    /// Under the names of [`super::RESERVED`] only the node's own members are found, never what it nests deeper.
    pub fn new(merged: &Value, id: &str) -> Document {
        let mut text = String::new();
        let mut entries = Vec::new();
        flatten::each(merged, &mut |key, value| {
            let mut add = |piece: &str| {
                let start = u32::try_from(text.len()).ok()?;
                text.push_str(piece);
                Some((start, u32::try_from(text.len()).ok()?))
            };
            // A node beyond 4 GB is cut; nobody has one.
            if let (Some(key), Some(value)) = (add(key), add(value)) {
                entries.push(Entry { key, value });
            }
        });
        let start = text.len();
        text.push_str(flatten::ID);
        let middle = text.len();
        text.push_str(id);
        if let (Ok(start), Ok(middle), Ok(end)) =
            (u32::try_from(start), u32::try_from(middle), u32::try_from(text.len()))
        {
            entries.push(Entry { key: (start, middle), value: (middle, end) });
        }
        let folded = fold_text(&text).into_boxed_str();
        let key = |entry: &Entry| Document::piece(&text, entry.key);
        entries.sort_by_cached_key(|entry| hash(key(entry)));
        let hashes = entries.iter().map(|entry| hash(key(entry))).collect();
        Document { text: text.into_boxed_str(), folded, hashes, entries: entries.into_boxed_slice() }
    }

    fn piece(text: &str, span: Span) -> &str {
        // Spans were made from this text's own lengths.
        text.get(span.0 as usize..span.1 as usize).unwrap_or_default()
    }

    pub(super) fn key(&self, entry: &Entry) -> &str {
        Document::piece(&self.text, entry.key)
    }

    pub(super) fn folded_key(&self, entry: &Entry) -> &str {
        Document::piece(&self.folded, entry.key)
    }

    pub(super) fn value(&self, entry: &Entry) -> &str {
        Document::piece(&self.text, entry.value)
    }

    pub(super) fn folded_value(&self, entry: &Entry) -> &str {
        Document::piece(&self.folded, entry.value)
    }

    /// All keys and values in one text.
    pub(super) fn folded(&self) -> &str {
        &self.folded
    }

    /// Everything.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is kept under exactly this key.
    pub(super) fn under(&self, key: &str) -> Cow<'_, [Entry]> {
        let wanted = hash(key);
        let start = self.hashes.partition_point(|hash| *hash < wanted);
        let count = self.hashes[start..].iter().take_while(|hash| **hash == wanted).count();
        let entries = &self.entries[start..start + count];
        if entries.iter().all(|entry| self.key(entry) == key) {
            return Cow::Borrowed(entries);
        }
        Cow::Owned(entries.iter().filter(|entry| self.key(entry) == key).copied().collect())
    }

    /// The texts under a key, in the order of the document.
    pub fn values(&self, key: &str) -> Vec<&str> {
        self.under(key).iter().map(|entry| self.value(entry)).collect()
    }
}

/// FNV-1a: short, and the same on every machine. Keys that share one are told apart afterwards.
fn hash(key: &str) -> u32 {
    key.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
