//! The service's own credential: a file of metadata lines, carried by our own
//! calls in place of the caller's metadata.
//!
//! Not for: forwarded calls, which never carry it; who may borrow it
//! (`config::checks`, `resolver::permission`).
//! Called by: `config` (validation), `server`, `context.rs`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::metadata::MetadataMap;

use super::quoted::secrets_of;
use crate::net::{Reloading, SecretFileError, header_lines, read_secret};

/// Servers take between 8 and 64 KiB of headers.
const MAX_BYTES: u64 = 8 << 10;

/// Earlier values that are still taken out of what a cache quotes: calls that
/// began before the file changed may yet fail.
const REMEMBERED: usize = 64;

/// Metadata that gRPC or HTTP/2 sets, or that describes a call.
const RESERVED: [&str; 14] = [
    "te",
    "host",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "content-encoding",
];

/// Why a file is no credential.
pub type CredentialError = SecretFileError;

/// A credential that follows its file.
pub type ServiceCredential = Reloading<Credential>;

impl Reloading<Credential> {
    /// Reads the file, and again when it changes.
    ///
    /// # Errors
    /// When it is missing or holds something else.
    pub fn from_file(path: PathBuf) -> Result<Arc<Self>, CredentialError> {
        let earlier = Mutex::new(VecDeque::new());
        Self::new("credential files", vec![path.clone()], move || {
            let mut credential = Credential::read(&path)?;
            let mut earlier = earlier.lock();
            let known = std::mem::take(&mut credential.secrets);
            earlier.extend(known.iter().cloned());
            while earlier.len() > REMEMBERED.max(known.len()) {
                earlier.pop_front();
            }
            credential.secrets = earlier.iter().cloned().collect();
            Ok(credential)
        })
    }
}

/// Metadata of our own calls. Shown nowhere.
pub struct Credential {
    metadata: MetadataMap,
    /// The values, and those they replaced.
    secrets: Vec<SecretString>,
}

impl Credential {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, CredentialError> {
        Self::parse(&read_secret(path, MAX_BYTES)?)
    }

    /// Reads lines `name: value`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(text: &SecretString) -> Result<Self, CredentialError> {
        let metadata = MetadataMap::from_headers(header_lines(text, "metadata", name)?);
        let secrets = secrets_of(&metadata).into_iter().map(SecretString::from);
        Ok(Self {
            secrets: secrets.collect(),
            metadata,
        })
    }

    pub(super) fn metadata(&self) -> &MetadataMap {
        &self.metadata
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(|secret| secret.expose_secret())
    }
}

/// A name that may stand in a file.
fn name(text: &str) -> Result<HeaderName, String> {
    let name = text.to_ascii_lowercase();
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let header = HeaderName::from_bytes(name.as_bytes());
    let header = header.ok().filter(|_| name.bytes().all(legal));
    let header = header.ok_or(
        "begins with what is no name of metadata: letters, digits, `_`, `.` and `-`, \
         directly before the `:`",
    )?;
    if name.ends_with("-bin") {
        return Err(
            "has a name that ends in `-bin`: binary metadata cannot be written here, \
                    and what describes a call is set by Assetgate"
                .to_owned(),
        );
    }
    if name.starts_with("grpc-") {
        return Err("has a name that begins with `grpc-`: those are gRPC's own".to_owned());
    }
    match RESERVED.iter().find(|reserved| **reserved == name) {
        Some(reserved) => Err(format!("sets `{reserved}`, which belongs to the transport")),
        None => Ok(header),
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} entries withheld)", self.metadata.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Credential, CredentialError> {
        Credential::parse(&SecretString::from(text.to_owned()))
    }

    #[test]
    fn lines_comments_and_several_names() {
        let text = "# for the cache\r\n\r\nAuthorization: Bearer a:b c\r\n  x-api-key:k3y \n";
        let credential = parse(text).unwrap();
        let metadata = credential.metadata();
        assert_eq!(metadata.len(), 2);
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer a:b c");
        assert_eq!(metadata.get("x-api-key").unwrap(), "k3y");
        assert!(metadata.get("x-api-key").unwrap().is_sensitive());
        assert!(!format!("{credential:?} {metadata:?}").contains("k3y"));
    }

    #[test]
    fn bad_lines_are_told_by_number_and_never_quoted() {
        let bad = |text: &str| {
            let said = parse(text).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
            said
        };
        for (text, said) in [
            ("hunter2", "line 1 is not of the form"),
            ("# c\n\nBearer hunter2", "line 3 is not of the form"),
            ("Bearer hunter2: x", "line 1 begins with what is no name"),
            (": hunter2", "line 1 begins with what is no name"),
            ("authorization : hunter2", "no name"),
            (
                "x-token-bin: hunter2",
                "line 1 has a name that ends in `-bin`",
            ),
            (
                "build.bazel.remote.execution.v2.requestmetadata-bin: hunter2",
                "what describes a call is set by Assetgate",
            ),
            ("grpc-timeout: hunter2", "`grpc-`"),
            ("TE: hunter2", "sets `te`"),
            ("user-agent: hunter2", "sets `user-agent`"),
            ("authorization:  ", "line 1 has no value"),
            ("authorization: hunter2\u{e9}", "visible ASCII"),
            ("authorization: hun\tter2 hunter2", "visible ASCII"),
            ("a: hunter2\nA: hunter2", "line 2 has the name of line 1"),
        ] {
            assert!(bad(text).contains(said), "{text:?}: {}", bad(text));
        }
        assert_eq!(
            bad("x hunter2\na: b\nte: hunter2").matches("line ").count(),
            2,
            "everything at once"
        );
        assert_eq!(
            bad("# nothing\n"),
            CredentialError::Empty("metadata").to_string()
        );
    }

    #[test]
    fn files_that_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credential");
        let read = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            Credential::read(&file).unwrap_err()
        };
        assert_eq!(read(b"a: \xff"), CredentialError::NotText);
        assert_eq!(
            read(&vec![b'a'; 9000]),
            CredentialError::TooLarge(MAX_BYTES)
        );
        for none in [dir.path().join("none"), dir.path().to_owned()] {
            let error = Credential::read(&none).unwrap_err();
            assert!(matches!(error, CredentialError::Unreadable(_)), "{error}");
        }
    }

    #[test]
    fn a_changed_file_is_used_a_bad_one_is_not_and_old_secrets_stay_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credential");
        std::fs::write(&file, "authorization: Bearer the-first-one").unwrap();
        let credential = ServiceCredential::from_file(file.clone()).unwrap();
        let value = || {
            let metadata = credential.current().metadata().clone();
            metadata
                .get("authorization")
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        std::fs::write(&file, "nonsense").unwrap();
        assert!(!credential.reload_if_changed());
        assert_eq!(value(), "Bearer the-first-one");
        std::fs::write(&file, "authorization: Bearer the-second-token").unwrap();
        assert!(credential.reload_if_changed());
        assert_eq!(value(), "Bearer the-second-token");
        let current = credential.current();
        let secrets: Vec<&str> = current.secrets().collect();
        assert!(secrets.contains(&"the-first-one") && secrets.contains(&"the-second-token"));
    }
}
