//! Tidegate's own keys: how they are made, and the file that holds their hashes.
//!
//! A key is 256 random bits, so its SHA-256 cannot be turned back into it: the file tells nobody a key, and there is nothing
//! to slow down by a costlier hash.

mod date;
mod file;

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;
pub use date::{Date, DateError, now};
pub use file::{KeysError, change, read};

/// How Tidegate's own keys begin. What begins so is never sent upstream.
pub const OWN_PREFIX: &str = "tg-";

/// The random bytes of a key.
const RANDOM_BYTES: usize = 32;

/// The most keys in one file.
const KEYS_MAX: usize = 100_000;

/// The characters of Base64 for URLs.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

/// One key, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What it is called: the first digits of its hash.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// Its hash.
    pub digest: KeyDigest,
    /// When it was made.
    pub created: Date,
    /// From when on it is refused.
    pub expires: Option<Date>,
}

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

impl KeyDigest {
    /// Hashes a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Returns whether both are the same, in a time that does not tell how much of them is.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Returns its first eight bytes, by which tables find it.
    pub(crate) fn head(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(head)
    }

    /// Returns what the key is called.
    fn id(&self) -> String {
        self.hexadecimal().chars().take(10).collect()
    }

    fn hexadecimal(&self) -> String {
        use fmt::Write;
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl fmt::Debug for KeyDigest {
    /// Shows nothing of it: the configuration may hold keys that somebody made up, and those can be guessed by their hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest")
    }
}

impl Key {
    /// Makes a key for a tenant. The text is returned beside it and kept nowhere.
    ///
    /// # Errors
    ///
    /// Returns an error if the system gives no random bytes.
    pub fn generate(
        tenant: &str,
        created: Date,
        expires: Option<Date>,
    ) -> Result<(Secret, Self), NoRandomness> {
        let mut random = zeroize::Zeroizing::new([0; RANDOM_BYTES]);
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(random.as_mut())
            .map_err(|_| NoRandomness)?;
        let text = Secret::new(format!("{OWN_PREFIX}{}", base64(random.as_ref())));
        let digest = KeyDigest::of(text.expose().as_bytes());
        let key = Self {
            id: digest.id(),
            tenant: tenant.to_owned(),
            digest,
            created,
            expires,
        };
        Ok((text, key))
    }
}

/// Writes bytes in Base64 for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..=chunk.len() {
            let digit = (group >> (18 - 6 * at)) & 0x3f;
            text.push(char::from(BASE64[digit as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, expect) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expect, "{bytes}");
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "-__-");
    }

    #[test]
    fn keys_are_random_and_known_by_their_hash() {
        let created = Date::from_unix(1_764_288_000);
        let (text, key) = Key::generate("search-team", created, None).unwrap();
        let (other, _) = Key::generate("search-team", created, None).unwrap();
        assert_eq!(text.expose().len(), 3 + 43);
        assert!(text.expose().starts_with(OWN_PREFIX));
        assert_ne!(text.expose(), other.expose());
        assert!(key.digest.matches(&KeyDigest::of(text.expose().as_bytes())));
        assert!(!key.digest.matches(&KeyDigest::of(other.expose().as_bytes())));
        let shown = format!("{key:?} {text:?}");
        assert!(
            !shown.contains(text.expose()) && !shown.contains(&key.digest.hexadecimal()),
            "{shown}"
        );
    }

    #[test]
    fn hashes_are_read_and_written() {
        // SHA-256 of "abc" (FIPS 180-2).
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest = KeyDigest::parse(text).unwrap();
        assert_eq!(digest, KeyDigest::of(b"abc"));
        assert_eq!(digest, KeyDigest::parse(&text.to_uppercase()).unwrap());
        assert_eq!(
            (digest.hexadecimal().as_str(), digest.id().as_str()),
            (text, "ba7816bf8f")
        );
        assert_eq!(digest.head(), 0xba78_16bf_8f01_cfea);
        for bad in [
            "",
            "ba",
            &text[1..],
            &format!("{}g", &text[1..]),
            &format!("{text}00"),
        ] {
            assert_eq!(KeyDigest::parse(bad), None, "{bad}");
        }
    }
}
