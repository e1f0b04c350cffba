//! The optional proof that an entry was issued by Assetgate: with a key
//! configured, an entry without a valid MAC is a miss, whoever may write the
//! Action Cache.
//!
//! Not for: what is authenticated (`encoding.rs` lists the fields).
//! Called by: `encoding.rs`; `config` checks the file, `server` opens it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use crate::net::{Reloading, SecretFileError, read_secret};

/// As long as what SHA-256 gives; a shorter key would be the weaker part.
const SHORTEST: usize = 32;

/// Many keys; no file of them comes near it.
const MAX_BYTES: u64 = 64 << 10;

/// Keys, the first of which signs while all verify, so that a key can be
/// replaced without losing what the old one signed. Clones share the file they
/// follow. Shown nowhere.
#[derive(Clone)]
pub struct MacKeys(Source);

#[derive(Clone)]
enum Source {
    Given(Arc<Keys>),
    File(Arc<Reloading<Vec<SecretSlice<u8>>>>),
}

type Keys = [SecretSlice<u8>];

/// Why there are no keys. Never holds any of what was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacKeyError {
    /// Their file is of no use.
    #[error(transparent)]
    File(#[from] SecretFileError),
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
        Ok(Self(Source::Given(keys(text)?.into())))
    }

    /// The same from a file, which is read again when it changes.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn open(path: PathBuf) -> Result<Self, MacKeyError> {
        let read = {
            let path = path.clone();
            move || read(&path)
        };
        let file = Reloading::new("keys of references", vec![path], read)?;
        Ok(Self(Source::File(file)))
    }

    /// Looks for a changed file at intervals, for ever.
    pub async fn watch(self, every: Duration) {
        match self.0 {
            Source::File(file) => file.watch(every).await,
            Source::Given(_) => std::future::pending().await,
        }
    }

    /// The MAC of these fields.
    pub(super) fn sign(&self, fields: &[&[u8]]) -> Vec<u8> {
        let signed = self.with(|keys| over(keys.first()?, fields));
        // There is a first key, and HMAC takes keys of any length.
        signed.map_or_else(Vec::new, |mac| mac.finalize().into_bytes().to_vec())
    }

    /// Whether some key made `mac` of these fields.
    pub(super) fn verify(&self, fields: &[&[u8]], mac: &[u8]) -> bool {
        let made_by =
            |key: &SecretSlice<u8>| over(key, fields).is_some_and(|m| m.verify_slice(mac).is_ok());
        self.with(|keys| keys.iter().any(made_by))
    }

    fn with<T>(&self, then: impl FnOnce(&Keys) -> T) -> T {
        match &self.0 {
            Source::Given(keys) => then(keys),
            Source::File(file) => then(&file.current()),
        }
    }
}

fn read(path: &Path) -> Result<Vec<SecretSlice<u8>>, MacKeyError> {
    keys(read_secret(path, MAX_BYTES)?.expose_secret())
}

fn keys(text: &str) -> Result<Vec<SecretSlice<u8>>, MacKeyError> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match line.trim() {
            "" => {}
            // A comment, as in other secret files.
            comment if comment.starts_with('#') => {}
            key if key.len() < SHORTEST => return Err(MacKeyError::Short(index + 1)),
            key => keys.push(SecretSlice::from(key.as_bytes().to_vec())),
        }
    }
    if keys.is_empty() {
        return Err(MacKeyError::Empty);
    }
    Ok(keys)
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
        write!(f, "MacKeys({} withheld)", self.with(<[_]>::len))
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
        let comment = "# the key of production, made anew every month";
        assert_eq!(MacKeys::parse(comment).unwrap_err(), MacKeyError::Empty);
        let commented = MacKeys::parse(&format!("{comment}\n{OLD}")).unwrap();
        let mac = MacKeys::parse(OLD).unwrap().sign(&[b"a"]);
        assert_eq!(commented.sign(&[b"a"]), mac);
        let error = MacKeys::parse(&format!("{OLD}\nhunter2")).unwrap_err();
        assert_eq!(error, MacKeyError::Short(2));
        assert!(!error.to_string().contains("hunter2"));
    }
}
