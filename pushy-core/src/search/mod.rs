//! Searching nodes: the query language that people type into knife, over documents flattened as Chef flattens them.
//!
//! [`Query::parse`] reads a query, [`Document::new`] flattens a node, [`Query::matches`] compares, [`select()`] sorts and
//! cuts a page. Nothing here fails on any input but the parser, which says where. A pure value; a query over 10,000
//! documents takes a few milliseconds.
//!
//! # The language
//! `FIELD:VALUE` with a word, `"a phrase"`, `[a TO b]`, `{a TO b}` or `(a group)`; `AND`, `OR`, `NOT` and `&&`, `||`,
//! `!`; `*` and `?` in words and fields; `\` before a character that is to stand for itself. A word is compared
//! without case and must stand between characters that words do not have: `web` is found in `web, db` but not in
//! `web01`. Without a field the field is `text`.
//!
//! Sets are those of chef-zero (decision 34), which is what people test with. Where it fails or answers what
//! nobody can mean, this module does what Chef Infra Server does; `tests/search/differences.json` lists such cases with the reason.

mod document;
mod flatten;
mod parse;
mod pattern;
mod select;

pub use document::Document;
pub use flatten::{RESERVED, merged};
pub use parse::{BadQuery, MAX_DEPTH, MAX_QUERY, MAX_TERMS, Query};
pub use select::{Page, Sort, select};
