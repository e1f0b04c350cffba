//! Files with secrets: reading one within bounds, lines `name: value` in it,
//! and what is said of one that cannot be used, which never quotes it: what
//! stands on the wrong side of a colon is as likely as not the secret.
//!
//! Not for: which names may stand there, and reading again (`reload`).
//! Called by: `upstream::credential`, `fetcher`, `net::tls`, whoever reads
//! the keys of references.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

const EXAMPLE: &str = "authorization: Bearer TOKEN";

/// Why a file is of no use. Holds nothing of what stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// Others decide what stands in it.
    #[error("{0}")]
    NotOurs(String),
    /// It holds more than so many bytes.
    #[error("the file is larger than {} KiB", .0 >> 10)]
    TooLarge(u64),
    /// It is no text.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// No line says anything of this kind.
    #[error("the file holds no {0}; write lines such as `{EXAMPLE}`")]
    Empty(&'static str),
    /// Lines that cannot be used, counted from 1.
    #[error("{}", lines(.0))]
    Lines(Vec<(usize, String)>),
}

fn lines(bad: &[(usize, String)]) -> String {
    let said = bad.iter().map(|(n, why)| format!("line {n} {why}"));
    said.collect::<Vec<_>>().join("; ")
}

/// The text of a file. What others of this machine may have written is no
/// secret of ours. That they may read it is logged: mounted secrets often are
/// like that, so it is no error.
///
/// # Errors
/// If it cannot be read, belongs to another user or may be written by others,
/// is larger than `max` bytes, or is no text.
pub fn read_secret(path: &Path, max: u64) -> Result<SecretString, SecretFileError> {
    use SecretFileError::{NotText, TooLarge, Unreadable};
    let unreadable = |error: std::io::Error| Unreadable(error.to_string());
    // What was opened is looked at, wherever links led: mounted secrets are
    // links, and a name may lead elsewhere a moment later.
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    ours(
        metadata.uid(),
        metadata.mode(),
        rustix::process::geteuid().as_raw(),
    )?;
    let mut bytes = Vec::new();
    let mut some = file.take(max + 1);
    some.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max {
        return Err(TooLarge(max));
    }
    if is_readable_by_others(metadata.mode()) {
        let mode = format!("{:o}", metadata.mode() & 0o777);
        tracing::warn!(
            file = %path.display(),
            mode,
            "a file with credentials may be read by other users; chmod 600 keeps it to this one"
        );
    }
    let text = String::from_utf8(bytes).map_err(|_| NotText)?;
    Ok(SecretString::from(text))
}

fn is_readable_by_others(mode: u32) -> bool {
    mode & 0o044 != 0
}

/// The mode of a secret file that other users may read, in octal.
#[must_use]
pub fn exposed_mode(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.mode();
    is_readable_by_others(mode).then(|| format!("{:o}", mode & 0o777))
}

/// Whether nobody but root and the user of this process decides what stands in
/// a file.
fn ours(owner: u32, mode: u32, user: u32) -> Result<(), SecretFileError> {
    if owner != user && owner != 0 {
        return Err(SecretFileError::NotOurs(format!(
            "the file belongs to user {owner}, neither to root nor to user {user}, who runs this: chown it"
        )));
    }
    if mode & 0o022 != 0 {
        return Err(SecretFileError::NotOurs(format!(
            "others than its owner may write the file (mode {:o}): chmod 600 it",
            mode & 0o777
        )));
    }
    Ok(())
}

/// Lines `name: value` about `what`; `#` begins a comment. `name` says which
/// names may stand there. Values are marked sensitive: not to be logged, nor
/// kept in HPACK's table.
///
/// # Errors
/// Everything that is wrong with them.
pub fn header_lines(
    text: &SecretString,
    what: &'static str,
    name: impl Fn(&str) -> Result<HeaderName, String>,
) -> Result<HeaderMap, SecretFileError> {
    let (mut headers, mut seen, mut bad) = (HeaderMap::new(), HashMap::new(), Vec::new());
    for (index, line) in text.expose_secret().lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match header(line, &name) {
            Err(why) => bad.push((number, why)),
            Ok((name, value)) => match seen.insert(name.clone(), number) {
                Some(first) => bad.push((number, format!("has the name of line {first}"))),
                None => drop(headers.insert(name, value)),
            },
        }
    }
    match () {
        () if !bad.is_empty() => Err(SecretFileError::Lines(bad)),
        () if headers.is_empty() => Err(SecretFileError::Empty(what)),
        () => Ok(headers),
    }
}

/// One line, without saying what stood there.
fn header(
    line: &str,
    allowed: impl Fn(&str) -> Result<HeaderName, String>,
) -> Result<(HeaderName, HeaderValue), String> {
    let form = || format!("is not of the form `name: value`, as in `{EXAMPLE}`");
    let (name, value) = line.split_once(':').ok_or_else(form)?;
    let name = allowed(name)?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret").unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file.path(), mode).unwrap();
        file
    }

    #[test]
    fn what_others_may_write_is_no_secret_of_ours() {
        for mode in [0o620, 0o602, 0o666] {
            let error = read_secret(file(mode).path(), 100).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        for mode in [0o400, 0o600, 0o640, 0o644] {
            read_secret(file(mode).path(), 100).unwrap();
        }
    }

    #[test]
    fn a_file_belongs_to_root_or_to_who_runs_this() {
        let (user, other) = (4711, 4712);
        ours(user, 0o600, user).unwrap();
        ours(0, 0o440, user).unwrap();
        for (owner, user) in [(other, user), (user, 0)] {
            let error = ours(owner, 0o600, user).unwrap_err().to_string();
            assert!(error.contains("chown"), "{error}");
        }
    }
}
