//! Writing JSON objects with their members in a fixed order, without an intermediate tree.

use serde::Serialize;

/// A JSON object under construction. Members appear in the order they are added.
pub(crate) struct Object {
    text: Vec<u8>,
}

impl Object {
    /// `{`, with room for `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Object {
        let mut text = Vec::with_capacity(capacity);
        text.push(b'{');
        Object { text }
    }

    fn name(&mut self, name: &str) {
        if self.text.last() != Some(&b'{') {
            self.text.push(b',');
        }
        // Names are literals of this crate: nothing in them needs escaping.
        self.text.push(b'"');
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    /// A member whose value is anything that turns into JSON.
    pub(crate) fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> &mut Object {
        self.name(name);
        write(&mut self.text, value);
        self
    }

    /// A member whose text is ASCII of our own making and needs no escaping.
    pub(crate) fn plain(&mut self, name: &str, value: &str) -> &mut Object {
        self.name(name);
        self.text.push(b'"');
        self.text.extend_from_slice(value.as_bytes());
        self.text.push(b'"');
        self
    }

    /// A member whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &[u8]) -> &mut Object {
        self.name(name);
        self.text.extend_from_slice(json);
        self
    }

    /// A member that is an object of strings, in the order given.
    pub(crate) fn strings(&mut self, name: &str, pairs: &[(String, String)]) -> &mut Object {
        self.name(name);
        write_strings(&mut self.text, pairs);
        self
    }

    /// Everything so far with the members of `tail`, which is an object's inside without the braces.
    pub(crate) fn inside(&mut self, tail: &[u8]) -> &mut Object {
        if self.text.last() != Some(&b'{') && !tail.is_empty() {
            self.text.push(b',');
        }
        self.text.extend_from_slice(tail);
        self
    }

    /// `}`.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.push(b'}');
        text
    }

    /// What stands between the braces.
    pub(crate) fn end_inside(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.remove(0);
        text
    }

    /// As [`Object::end`], as text.
    pub(crate) fn end_text(&mut self) -> String {
        // Every piece was written from `&str` or by serde_json, which emits UTF-8.
        String::from_utf8(self.end()).unwrap_or_default()
    }
}

/// Appends `value` as JSON.
pub(crate) fn write<T: Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) {
    // Writing to a Vec cannot fail, and no type written here has a failing serializer or a key that
    // is not a string.
    let _ = serde_json::to_writer(text, value);
}

fn write_strings(text: &mut Vec<u8>, pairs: &[(String, String)]) {
    text.push(b'{');
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        write(text, name);
        text.push(b':');
        write(text, value);
    }
    text.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_in_order() {
        let env = vec![("B\"".to_owned(), "1".to_owned()), ("A".to_owned(), "ü\n".to_owned())];
        let text = Object::with_capacity(64).member("n", &1).strings("e", &env).raw("r", b"[]").end_text();
        assert_eq!(text, r#"{"n":1,"e":{"B\"":"1","A":"ü\n"},"r":[]}"#);
        assert_eq!(Object::with_capacity(0).end(), b"{}");
        let tail = Object::with_capacity(0).plain("type", "ack").end_inside();
        assert_eq!(Object::with_capacity(0).member("s", &2).inside(&tail).end(), br#"{"s":2,"type":"ack"}"#);
    }
}
