//! A CURVE public key and its Z85 text (ZeroMQ RFC 32).

use std::fmt;

use crate::error::{Error, ErrorCode, Result};

/// A CURVE public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CurveKey(pub [u8; 32]);

impl fmt::Debug for CurveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CurveKey({:02x}{:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

impl CurveKey {
    /// The 40 characters of Z85 that stand for the key.
    pub fn to_z85(&self) -> String {
        z85_encode(&self.0)
    }

    /// Reads 40 characters of Z85 (2.4.2).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidKey`] for another length, a character outside the alphabet, or a group
    /// above the largest value.
    pub fn from_z85(text: &str) -> Result<CurveKey> {
        let bytes = z85_decode(text)?;
        let key = <[u8; 32]>::try_from(bytes).map_err(|_| invalid("a CURVE key has 40 characters of Z85"))?;
        Ok(CurveKey(key))
    }
}

const ALPHABET: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

const VALUES: [u8; 128] = {
    let mut values = [u8::MAX; 128];
    let mut i = 0;
    while i < ALPHABET.len() {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};

fn invalid(text: &str) -> Error {
    Error::new(ErrorCode::InvalidKey, text)
}

/// Z85 of `bytes`; a last group of fewer than 4 bytes is left out, because Z85 has no padding.
pub fn z85_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 4 * 5);
    for group in bytes.chunks_exact(4) {
        let mut value = u32::from_be_bytes([group[0], group[1], group[2], group[3]]);
        let mut out = [0u8; 5];
        for place in out.iter_mut().rev() {
            *place = ALPHABET[(value % 85) as usize];
            value /= 85;
        }
        text.extend(out.iter().map(|b| char::from(*b)));
    }
    text
}

/// The bytes that a Z85 text stands for.
///
/// # Errors
/// [`ErrorCode::InvalidKey`] when the length is no multiple of 5, for a character outside the
/// alphabet, or a group above 2³² − 1.
pub fn z85_decode(text: &str) -> Result<Vec<u8>> {
    if text.len() % 5 != 0 {
        return Err(invalid("Z85 comes in groups of 5 characters"));
    }
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4);
    for group in text.as_bytes().chunks_exact(5) {
        let mut value = 0u64;
        for c in group {
            let digit = VALUES.get(usize::from(*c)).copied().unwrap_or(u8::MAX);
            if digit == u8::MAX {
                return Err(invalid("character outside the Z85 alphabet"));
            }
            value = value * 85 + u64::from(digit);
        }
        let value = u32::try_from(value).map_err(|_| invalid("Z85 group above its largest value"))?;
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z85_both_ways() {
        // RFC 32's own example, and the one of 12.9.
        assert_eq!(z85_encode(&[0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b]), "HelloWorld");
        let mut key = [0u8; 32];
        for (i, b) in key.iter_mut().enumerate() {
            *b = 0x1f - i as u8;
        }
        let text = "a08Bx8YxOh7zW-16a$(*4?o3S3KNgC2l>tm0%eG6";
        assert_eq!(CurveKey(key).to_z85(), text);
        assert_eq!(CurveKey::from_z85(text), Ok(CurveKey(key)));
        for bad in ["", "HelloWorld", &text[1..], &text.replace('a', "~"), &"#".repeat(40), &"é".repeat(20)]
        {
            assert!(CurveKey::from_z85(bad).is_err(), "{bad}");
        }
    }
}
