//! Tests of the search.

mod cost;
mod parse;
mod sets;
