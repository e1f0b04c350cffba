//! A file of `Name: value` lines: headers for the origins it is meant for.
//!
//! Called by: `credentials`.

use std::path::Path;

use http::{HeaderMap, HeaderName};
use secrecy::SecretString;

use crate::asset::is_forbidden_header;
use crate::net::{SecretFileError, header_lines, read_secret};

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

/// Headers from a file. Shown nowhere.
pub struct HeaderFile(HeaderMap);

impl HeaderFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, SecretFileError> {
        Self::parse(&read_secret(path, MAX_BYTES)?)
    }

    pub(super) fn parse(text: &SecretString) -> Result<Self, SecretFileError> {
        header_lines(text, "header", name).map(Self)
    }

    pub(super) fn headers(&self) -> HeaderMap {
        self.0.clone()
    }
}

/// A name that may stand in a file.
fn name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        "begins with what is no name of a header, directly before the `:`".to_owned()
    })?;
    if is_forbidden_header(name.as_str()) || RESERVED.contains(&name.as_str()) {
        return Err(format!("sets `{name}`, which Assetgate sets itself"));
    }
    Ok(name)
}

impl std::fmt::Debug for HeaderFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeaderFile({} headers withheld)", self.0.len())
    }
}
