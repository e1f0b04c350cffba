//! A file of `Name: value` lines: headers for the origins it is meant for.
//!
//! Called by: `credentials`.

use std::collections::HashMap;
use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use super::file::{self, CredentialFileError};
use crate::asset::is_forbidden_header;

/// Servers take between 8 and 64 KiB of headers.
const MAX_BYTES: u64 = 8 << 10;

/// Headers that would change what is answered rather than to whom.
const RESERVED: [&str; 8] = [
    "accept-encoding",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "user-agent",
];

const FORM: &str = "is not of the form `Name: value`, as in `Authorization: Bearer TOKEN`";

/// Headers from a file. Shown nowhere.
pub struct HeaderFile(HeaderMap);

impl HeaderFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, CredentialFileError> {
        Self::parse(&file::read(path, MAX_BYTES)?)
    }

    pub(super) fn parse(text: &SecretString) -> Result<Self, CredentialFileError> {
        let (mut headers, mut seen, mut bad) = (HeaderMap::new(), HashMap::new(), Vec::new());
        for (index, line) in text.expose_secret().lines().enumerate() {
            let (number, line) = (index + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match header(line) {
                Err(why) => bad.push((number, why)),
                Ok((name, value)) => match seen.insert(name.clone(), number) {
                    Some(first) => bad.push((number, format!("has the name of line {first}"))),
                    None => drop(headers.insert(name, value)),
                },
            }
        }
        match () {
            () if !bad.is_empty() => Err(CredentialFileError::Lines(bad)),
            () if headers.is_empty() => Err(CredentialFileError::Empty),
            () => Ok(Self(headers)),
        }
    }

    pub(super) fn headers(&self) -> HeaderMap {
        self.0.clone()
    }
}

/// One line, without saying what stood there.
fn header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line.split_once(':').ok_or(FORM)?;
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        "begins with what is no name of a header, directly before the `:`".to_owned()
    })?;
    if is_forbidden_header(name.as_str()) || RESERVED.contains(&name.as_str()) {
        return Err(format!("sets `{name}`, which Assetgate sets itself"));
    }
    let value = value.trim();
    if value.is_empty() {
        return Err("has no value after the `:`".to_owned());
    }
    let visible = value.bytes().all(|b| matches!(b, b' '..=b'~'));
    match visible.then(|| HeaderValue::from_str(value)) {
        Some(Ok(mut value)) => {
            value.set_sensitive(true);
            Ok((name, value))
        }
        _ => Err("has a value with other characters than visible ASCII and spaces".to_owned()),
    }
}

impl std::fmt::Debug for HeaderFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeaderFile({} headers withheld)", self.0.len())
    }
}
