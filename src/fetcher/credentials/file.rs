//! Files with secrets: reading one within bounds, and what is said of one that
//! cannot be used, which never quotes it.
//!
//! Called by: `header_file`, `netrc`.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::SecretString;

/// Why a file is of no use. Holds nothing of what stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFileError {
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// It holds too much.
    #[error("the file is larger than {} KiB", .0 >> 10)]
    TooLarge(u64),
    /// It is no text.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// No line says anything.
    #[error("the file holds no header; write lines such as `Authorization: Bearer TOKEN`")]
    Empty,
    /// Lines that cannot be used, counted from 1.
    #[error("{}", lines(.0))]
    Lines(Vec<(usize, String)>),
}

fn lines(bad: &[(usize, String)]) -> String {
    let said = bad.iter().map(|(n, why)| format!("line {n} {why}"));
    said.collect::<Vec<_>>().join("; ")
}

/// The text of a file. That others of this machine may read it is logged:
/// mounted secrets often are like that, so it is no error.
pub(super) fn read(path: &Path, max: u64) -> Result<SecretString, CredentialFileError> {
    use CredentialFileError::{NotText, TooLarge, Unreadable};
    let unreadable = |error: std::io::Error| Unreadable(error.to_string());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let mut bytes = Vec::new();
    let mut some = file.take(max + 1);
    some.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max {
        return Err(TooLarge(max));
    }
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(
            file = %path.display(),
            mode,
            "a file with credentials is accessible to other users; chmod 600 keeps it to this one"
        );
    }
    let text = String::from_utf8(bytes).map_err(|_| NotText)?;
    Ok(SecretString::from(text))
}
