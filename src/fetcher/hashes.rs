//! All hashes of one body in one pass: the digest, and every algorithm of its
//! `checksum.sri` that the digest does not already compute.
//!
//! Called by: `receive`.

use super::Failure;
use super::failed::Failed;
use crate::asset::{Algorithm, Checksum, Integrity};
use crate::digest::{Digest, DigestFunction, Hasher};

/// Hashers of one body.
#[derive(Debug, Clone)]
pub(super) struct Hashes {
    digest: Hasher,
    others: Vec<(Algorithm, Hasher)>,
    integrity: Option<Integrity>,
}

impl Hashes {
    /// Hashers for a request, or `None` if `function` cannot be computed.
    pub(super) fn new(function: DigestFunction, integrity: Option<&Integrity>) -> Option<Self> {
        let mut others: Vec<(Algorithm, Hasher)> = Vec::new();
        for checksum in integrity.map_or(&[][..], Integrity::checksums) {
            let algorithm = checksum.algorithm();
            let known = others.iter().any(|(a, _)| *a == algorithm);
            if algorithm.function() != function && !known {
                others.push((algorithm, Hasher::new(algorithm.function())?));
            }
        }
        Some(Self {
            digest: Hasher::new(function)?,
            others,
            integrity: integrity.cloned(),
        })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        for (_, hasher) in &mut self.others {
            hasher.update(bytes);
        }
    }

    /// The digest, and the hashes that were computed because the request named
    /// them: a failure if none of them is one it wants.
    pub(super) fn finish(self) -> Result<(Digest, Vec<Checksum>), Failed> {
        let function = self.digest.function();
        let digest = self.digest.finish();
        let Some(integrity) = self.integrity else {
            return Ok((digest, Vec::new()));
        };
        let wanted = integrity.checksums();
        let by_digest = wanted.iter().map(Checksum::algorithm);
        let by_digest = by_digest.filter(|algorithm| algorithm.function() == function);
        let by_digest = by_digest.take(1).map(|a| Checksum::new(a, &digest.raw()));
        let others = self.others.into_iter();
        let others = others.map(|(a, hasher)| Checksum::new(a, &hasher.finish_raw()));
        let computed: Vec<Checksum> = by_digest.chain(others).flatten().collect();
        if computed.iter().any(|checksum| wanted.contains(checksum)) {
            return Ok((digest, computed));
        }
        Err(mismatch(wanted, &computed))
    }
}

/// The failure of bytes that have none of the wanted checksums.
pub(super) fn mismatch(wanted: &[Checksum], computed: &[Checksum]) -> Failed {
    let (wanted, got) = (listed(wanted), listed(computed));
    let text = format!("checksum mismatch: expected {wanted}, got {got}");
    Failed::new(Failure::Mismatch, text)
}

fn listed(checksums: &[Checksum]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = checksums
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    match checksums.len().saturating_sub(SHOWN) {
        0 => shown.join(" "),
        more => format!("{} or {more} others", shown.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256_ABC: &str = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    const SHA1_ABC: &str = "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
    const SHA512_ABC: &str = "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
    const SHA256_NIL: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn finish(function: DigestFunction, sri: &str) -> Result<(Digest, Vec<Checksum>), Failed> {
        let integrity = Integrity::parse(sri).unwrap();
        let mut hashes = Hashes::new(function, Some(&integrity)).unwrap();
        hashes.update(b"a");
        hashes.update(b"bc");
        hashes.finish()
    }

    #[test]
    fn digest_function_and_checksum_are_independent_and_any_match_counts() {
        for function in [DigestFunction::Sha256, DigestFunction::Blake3] {
            for (sri, verified) in [
                (SHA256_ABC.to_owned(), 1),
                (SHA1_ABC.to_owned(), 1),
                (format!("{SHA256_NIL} {SHA256_ABC}"), 1),
                (format!("{SHA256_NIL}\t{SHA512_ABC}\n"), 2),
            ] {
                let (digest, checksums) = finish(function, &sri).unwrap();
                assert_eq!(Some(digest), Digest::of(function, b"abc"));
                assert_eq!(checksums.len(), verified, "{sri}");
                assert!(
                    checksums
                        .iter()
                        .all(|c| [SHA256_ABC, SHA1_ABC, SHA512_ABC].contains(&&*c.to_string()))
                );
            }
        }
        // A weak one does not count beside a stronger one.
        let weak = format!("{SHA1_ABC} {SHA256_NIL}");
        assert!(finish(DigestFunction::Sha1, &weak).is_err());
        let failed = finish(DigestFunction::Sha256, SHA256_NIL).unwrap_err();
        assert_eq!(failed.failure, Failure::Mismatch);
        assert_eq!(
            failed.text,
            format!("checksum mismatch: expected {SHA256_NIL}, got {SHA256_ABC}")
        );
        let many: Vec<String> = (0..9)
            .map(|i| format!("md5-AAAAAAAAAAAAAAAAAAAA{i}A=="))
            .collect();
        let failed = finish(DigestFunction::Sha256, &many.join(" ")).unwrap_err();
        assert!(
            failed.text.contains(" or 5 others, got md5-"),
            "{}",
            failed.text
        );
    }
}
