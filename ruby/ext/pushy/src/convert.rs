//! Ruby values ↔ core values.

use magnus::r_hash::ForEach;
use magnus::value::ReprValue as _;
use magnus::{Float, Integer, IntoValue, RArray, RHash, RString, Ruby, TryConvert as _, Value};
use pushy_core::{Error, ErrorCode};
use serde_json::Value as Json;

use crate::error;

/// A JSON document as hashes, arrays, strings, numbers, `true`, `false` and `nil`; members in their order.
pub(crate) fn document(ruby: &Ruby, json: &Json) -> Result<Value, magnus::Error> {
    Ok(match json {
        Json::Null => ruby.qnil().into_value_with(ruby),
        Json::Bool(value) => value.into_value_with(ruby),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => value.into_value_with(ruby),
            (None, Some(value)) => value.into_value_with(ruby),
            (None, None) => number.as_f64().into_value_with(ruby),
        },
        Json::String(text) => ruby.str_new(text).into_value_with(ruby),
        Json::Array(items) => {
            let array = ruby.ary_new_capa(items.len());
            for item in items {
                array.push(document(ruby, item)?)?;
            }
            array.into_value_with(ruby)
        }
        Json::Object(members) => {
            let hash = ruby.hash_new();
            for (name, value) in members {
                hash.aset(ruby.str_new(name), document(ruby, value)?)?;
            }
            hash.into_value_with(ruby)
        }
    })
}

/// A document as [`document`] makes them, or with symbols for names.
pub(crate) fn json(value: Value) -> Result<Json, magnus::Error> {
    if value.is_nil() {
        return Ok(Json::Null);
    }
    if let Some(array) = RArray::from_value(value) {
        return array.into_iter().map(json).collect::<Result<_, _>>().map(Json::Array);
    }
    if let Some(hash) = RHash::from_value(value) {
        let mut members = serde_json::Map::new();
        hash.foreach(|name: Value, value: Value| {
            members.insert(name.to_string(), json(value)?);
            Ok(ForEach::Continue)
        })?;
        return Ok(Json::Object(members));
    }
    if let Some(number) = Integer::from_value(value) {
        return Ok(number.to_i64().map_or_else(|_| Json::String(value.to_string()), Json::from));
    }
    if let Some(number) = Float::from_value(value) {
        return Ok(Json::from(number.to_f64()));
    }
    if value.is_kind_of(Ruby::get_with(value).class_true_class()) {
        return Ok(Json::Bool(true));
    }
    if value.is_kind_of(Ruby::get_with(value).class_false_class()) {
        return Ok(Json::Bool(false));
    }
    Ok(Json::String(String::try_convert(value).unwrap_or_else(|_| value.to_string())))
}

/// The bytes of a string, copied: nothing of Ruby's is touched while the lock is released.
pub(crate) fn bytes(text: RString) -> Vec<u8> {
    // Copied at once, while Ruby cannot change or free the string.
    text.to_bytes().into()
}

/// Pairs of strings from a hash, in its order.
pub(crate) fn pairs(hash: RHash) -> Result<Vec<(String, String)>, magnus::Error> {
    let mut pairs = Vec::with_capacity(hash.len());
    hash.foreach(|name: String, value: String| {
        pairs.push((name, value));
        Ok(magnus::r_hash::ForEach::Continue)
    })?;
    Ok(pairs)
}

/// Pairs of strings from an array of two-element arrays.
pub(crate) fn pair_list(array: RArray) -> Result<Vec<(String, String)>, magnus::Error> {
    let mut pairs = Vec::with_capacity(array.len());
    for pair in array {
        pairs.push(<(String, String) as magnus::TryConvert>::try_convert(pair)?);
    }
    Ok(pairs)
}

/// Seconds as milliseconds.
pub(crate) fn millis(ruby: &Ruby, what: &str, seconds: f64) -> Result<u64, magnus::Error> {
    if seconds.is_finite() && (0.0..=31_536_000.0).contains(&seconds) {
        // In range: at most 3.2e10.
        return Ok((seconds * 1000.0).round() as u64);
    }
    let text = format!("{what} must be a number of seconds from 0 to 31536000, not {seconds}");
    Err(error::raise(ruby, &Error::new(ErrorCode::InvalidArgument, text)))
}
