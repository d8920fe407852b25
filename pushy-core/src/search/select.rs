//! From matches to an answer: order, total, page.

use std::cmp::Reverse;

use super::{Document, Query};

/// In which order an answer comes: `FIELD`, `FIELD asc` or `FIELD desc`. Nodes with equal values keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    field: String,
    descending: bool,
}

impl Sort {
    /// Reads the query parameter `sort`; `None` when it names no field. Case of the direction does not count.
    pub fn parse(text: &str) -> Option<Sort> {
        let mut words = text.split_whitespace();
        let field = words.next()?.to_owned();
        let descending = words.next().is_some_and(|word| word.eq_ignore_ascii_case("desc"));
        Some(Sort { field, descending })
    }
}

/// One page of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// How many matched in all.
    pub total: usize,
    /// Those of this page.
    pub rows: Vec<T>,
}

/// The nodes that match, sorted (as they come, without `sort`), from the `start`th on, `rows` at most.
pub fn select<'a, T>(
    nodes: impl Iterator<Item = (T, &'a Document)>,
    query: &Query,
    sort: Option<&Sort>,
    start: usize,
    rows: usize,
) -> Page<T> {
    let mut found = query.find(nodes);
    if let Some(sort) = sort {
        if sort.descending {
            found.sort_by_cached_key(|(_, document)| Reverse(document.values(&sort.field)));
        } else {
            found.sort_by_cached_key(|(_, document)| document.values(&sort.field));
        }
    }
    let total = found.len();
    let rows = found.into_iter().skip(start).take(rows).map(|(node, _)| node).collect();
    Page { total, rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pages_and_orders() {
        let names = ["c", "a", "b"];
        let documents: Vec<Document> = names
            .iter()
            .zip([2, 3, 2])
            .map(|(name, n)| Document::new(&json!({ "name": name, "n": n }), name))
            .collect();
        let query = Query::parse("*:*").expect("valid");
        let check = |sort: &str, start: usize, rows: usize, expected: &[&str]| {
            let nodes = names.iter().copied().zip(&documents);
            let page = select(nodes, &query, Sort::parse(sort).as_ref(), start, rows);
            assert_eq!((page.total, page.rows.as_slice()), (3, expected), "{sort} {start} {rows}");
        };
        check("", 0, 10, &["c", "a", "b"]);
        check("name", 0, 10, &["a", "b", "c"]);
        check("name DESC", 0, 10, &["c", "b", "a"]);
        check("X_CHEF_id_CHEF_X asc", 1, 1, &["b"]);
        check("n asc", 0, 10, &["c", "b", "a"]);
        check("n desc", 0, 10, &["a", "c", "b"]);
        check("nothing", 2, 5, &["b"]);
        check("", 3, 5, &[]);
        check("", usize::MAX, usize::MAX, &[]);
        check("", 0, 0, &[]);
    }
}
