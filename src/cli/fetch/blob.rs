//! The content itself: read by ByteStream, hashed, and put where it is wanted.
//!
//! A file appears under its name only when all of it is there and is what the
//! digest says.
//! Called by: `cli::fetch`.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::bar::Bar;
use super::failure::Failure;
use super::request::{Prepared, place};
use crate::digest::{Digest, DigestFunction, Hasher};
use crate::proto::bytestream::ReadRequest;
use crate::proto::bytestream::byte_stream_client::ByteStreamClient;
use crate::upstream::Upstream;

/// How long nothing may come.
const STALL: Duration = Duration::from_secs(120);

/// Largest message; servers send pieces far below.
const MAX_MESSAGE: usize = 64 << 20;

/// Where content goes.
pub(super) enum Target {
    /// It is only hashed.
    Nowhere,
    /// Standard output.
    Output,
    /// A file, under another name until it is whole.
    File(Box<NamedTempFile>, PathBuf),
}

impl Target {
    /// What `--out` says.
    pub(super) fn of(out: Option<&Path>) -> Result<Self, Failure> {
        let path = match out {
            None => return Ok(Self::Nowhere),
            Some(path) if path == Path::new("-") => return Ok(Self::Output),
            Some(path) => path,
        };
        let (directory, shown) = place(path);
        let file = tempfile::Builder::new()
            .prefix(".assetgate-fetch-")
            // As any new file, less what the umask says.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory);
        let file = file.map_err(|error| unwritable(&shown, &error))?;
        Ok(Self::File(Box::new(file), path.to_owned()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Output => io::stdout()
                .lock()
                .write_all(bytes)
                .map_err(|error| unwritable("standard output", &error)),
            Self::File(file, path) => {
                let written = file.write_all(bytes);
                written.map_err(|error| unwritable(&place(path).1, &error))
            }
        }
    }

    /// All of it was written, and it is right.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Output => {
                let flushed = io::stdout().lock().flush();
                flushed.map_err(|error| unwritable("standard output", &error))
            }
            Self::File(file, path) => {
                let shown = place(&path).1;
                let synced = file.as_file().sync_all();
                synced.map_err(|error| unwritable(&shown, &error))?;
                let named = file.persist(&path);
                named.map_err(|error| unwritable(&shown, &error.error))?;
                Ok(())
            }
        }
    }
}

fn unwritable(what: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write {what}: {error}"))
}

/// Content that a server has.
pub(super) struct Blob<'a> {
    pub(super) server: Upstream,
    pub(super) prepared: &'a Prepared,
    pub(super) digest: Digest,
}

impl Blob<'_> {
    /// Reads it into `target`, verified, and says its SHA-256.
    pub(super) async fn read(&self, target: &mut Target, bar: &Bar) -> Result<Vec<u8>, Failure> {
        let function = self.prepared.scope.function;
        let unknown = || Failure::failed(format!("{} cannot be computed", function.name()));
        let mut own = Hasher::new(function).ok_or_else(unknown)?;
        let mut sha256 = match function {
            DigestFunction::Sha256 => None,
            _ => Hasher::new(DigestFunction::Sha256),
        };
        if !self.digest.is_empty() {
            self.stream(bar, |bytes| {
                own.update(bytes);
                if let Some(sha256) = &mut sha256 {
                    sha256.update(bytes);
                }
                if own.size() > self.digest.size() {
                    return Err(self.other());
                }
                target.write(bytes)
            })
            .await?;
        }
        let raw = own.clone().finish_raw();
        if own.finish() != self.digest {
            return Err(self.other());
        }
        Ok(sha256.map_or(raw, Hasher::finish_raw))
    }

    async fn stream(
        &self,
        bar: &Bar,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let scope = &self.prepared.scope;
        let blob = self.digest.resource_name(scope.function);
        let request = self.prepared.context.request(ReadRequest {
            resource_name: format!("{}blobs/{blob}", scope.instance.prefix()),
            read_offset: 0,
            read_limit: 0,
        });
        let mut client = ByteStreamClient::new(self.server.clone());
        client = client.max_decoding_message_size(MAX_MESSAGE);
        let total = self.digest.size();
        let mut read = 0;
        bar.read(read, total);
        let mut answer = moving(client.read(request)).await?.into_inner();
        while let Some(piece) = moving(answer.message()).await? {
            read += piece.data.len() as u64;
            take(&piece.data)?;
            bar.read(read, total);
        }
        Ok(())
    }

    fn other(&self) -> Failure {
        Failure::failed(format!(
            "the cache serves other content for {}; nothing is kept of it",
            self.digest
        ))
    }
}

/// Waits for what a read does next.
async fn moving<T>(next: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(STALL, next).await {
        Ok(Ok(next)) => Ok(next),
        Ok(Err(status)) => {
            let failure = Failure::of(&status);
            let text = format!("reading the content: {}", failure.text);
            Err(Failure { text, ..failure })
        }
        Err(_) => Err(Failure::failed(format!(
            "reading the content: nothing came for {} s",
            STALL.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tgz");
        let names = || {
            let all = std::fs::read_dir(dir.path()).unwrap();
            all.map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
        };
        std::fs::write(&path, "before").unwrap();
        let mut target = Target::of(Some(&path)).unwrap();
        target.write(b"half").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        drop(target);
        assert_eq!(names(), ["a.tgz"]);
        let mut target = Target::of(Some(&path)).unwrap();
        target.write(b"whole").unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(), ["a.tgz"]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o600, 0o600);
        assert_eq!(mode & 0o111, 0, "{mode:o}");

        let nowhere = dir.path().join("no/a");
        let Err(failure) = Target::of(Some(&nowhere)) else {
            panic!("there is no such directory")
        };
        assert!(failure.text.contains("no/a"), "{}", failure.text);
    }
}
