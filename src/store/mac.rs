//! The optional proof that an entry was issued by Assetgate: with a key
//! configured, an entry without a valid MAC is a miss, whoever may write the
//! Action Cache.
//!
//! Not for: what is authenticated (`encoding.rs` lists the fields).
//! Called by: `encoding.rs`; `config` reads the file.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

/// As long as what SHA-256 gives; a shorter key would be the weaker part.
const SHORTEST: usize = 32;

/// Keys, the first of which signs while all verify, so that a key can be
/// replaced without losing what the old one signed. Shown nowhere.
#[derive(Clone)]
pub struct MacKeys(Arc<[SecretSlice<u8>]>);

/// Why a text holds no keys. Never holds any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacKeyError {
    /// Nothing but blank lines.
    #[error("it holds no key; write one a line, such as 64 random hexadecimal digits")]
    Empty,
    /// A key that can be guessed.
    #[error("the key in line {0} is shorter than {SHORTEST} characters")]
    Short(usize),
}

impl MacKeys {
    /// One key a line; blank lines do not count.
    ///
    /// # Errors
    /// When there is none, or one is too short.
    pub fn parse(text: &str) -> Result<Self, MacKeyError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            match line.trim() {
                "" => {}
                key if key.len() < SHORTEST => return Err(MacKeyError::Short(index + 1)),
                key => keys.push(SecretSlice::from(key.as_bytes().to_vec())),
            }
        }
        if keys.is_empty() {
            return Err(MacKeyError::Empty);
        }
        Ok(Self(keys.into()))
    }

    /// The MAC of these fields.
    pub(super) fn sign(&self, fields: &[&[u8]]) -> Vec<u8> {
        let signed = self.0.first().and_then(|key| over(key, fields));
        // There is a first key, and HMAC takes keys of any length.
        signed.map_or_else(Vec::new, |mac| mac.finalize().into_bytes().to_vec())
    }

    /// Whether some key made `mac` of these fields.
    pub(super) fn verify(&self, fields: &[&[u8]], mac: &[u8]) -> bool {
        let made_by = |key| over(key, fields).is_some_and(|m| m.verify_slice(mac).is_ok());
        self.0.iter().any(made_by)
    }
}

fn over(key: &SecretSlice<u8>, fields: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
    for field in fields {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        mac.update(&length.to_be_bytes());
        mac.update(field);
    }
    Some(mac)
}

impl fmt::Debug for MacKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacKeys({} withheld)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let old = MacKeys::parse(OLD).unwrap();
        let both = MacKeys::parse(&format!("{NEW}\n\n {OLD} \n")).unwrap();
        let fields: [&[u8]; 2] = [b"a", b"bc"];
        assert!(both.verify(&fields, &old.sign(&fields)));
        assert!(!old.verify(&fields, &both.sign(&fields)));
        assert!(!old.verify(&[b"ab", b"c"], &old.sign(&fields)));
        assert!(!old.verify(&fields, b""));
        assert!(!format!("{both:?}").contains(NEW));
    }

    #[test]
    fn what_is_no_key_is_told_without_repeating_it() {
        assert_eq!(MacKeys::parse(" \n").unwrap_err(), MacKeyError::Empty);
        let error = MacKeys::parse(&format!("{OLD}\nhunter2")).unwrap_err();
        assert_eq!(error, MacKeyError::Short(2));
        assert!(!error.to_string().contains("hunter2"));
    }
}
