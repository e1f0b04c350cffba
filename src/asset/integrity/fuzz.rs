//! The `checksum.sri` parser under fuzzing: what it accepts, it verifies.

#![allow(clippy::unwrap_used, reason = "a panic is how a finding is told")]

use super::{Algorithm, Checksum, Integrity, MAX_HASHES};
use crate::digest::Digest;

/// Content that is hashed against what was parsed.
const CONTENT: &[u8] = b"abc";

/// Values of one and of several hashes, in every form that is accepted.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let own = Algorithm::ALL.map(|a| of_content(a).to_string());
    let mut seeds: Vec<String> = own.to_vec();
    seeds.push(own.join(" "));
    seeds.push(format!("{}\t\n{}", own[2], own[4].replace('=', "")));
    seeds.push(format!("sha999-AAAA {}?opt", own[3]));
    seeds.push(own[2].replace('+', "-").replace('/', "_"));
    seeds.push("sha256-".to_owned());
    seeds.push("SHA1-AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned());
    seeds.into_iter().map(String::into_bytes).collect()
}

/// One value.
pub fn run(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else {
        return;
    };
    let parsed = match Integrity::parse(value) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(error.to_string().len() < 16_384),
    };
    let checksums = parsed.checksums();
    assert!((1..=MAX_HASHES).contains(&checksums.len()));
    for (index, checksum) in checksums.iter().enumerate() {
        let whole = Checksum::new(checksum.algorithm(), checksum.raw());
        assert_eq!(whole.as_ref(), Some(checksum), "a hash of another length");
        assert!(!checksums[..index].contains(checksum), "one hash twice");
        // No hash comes from nowhere: its algorithm stands in the value.
        let name = format!("{}-", checksum.algorithm().name());
        assert!(value.to_ascii_lowercase().contains(&name));
    }
    assert_eq!(Integrity::parse(&parsed.to_string()).as_ref(), Ok(&parsed));

    let matches = checksums.iter().any(|c| *c == of_content(c.algorithm()));
    let mut hasher = parsed.hasher();
    hasher.update(CONTENT);
    match hasher.finish() {
        Ok(verified) => {
            assert!(matches, "content passed that no hash names");
            assert!(verified.iter().any(|c| checksums.contains(c)));
        }
        Err(computed) => {
            assert!(!matches, "content failed that a hash names");
            assert!(!computed.is_empty(), "nothing was computed");
        }
    }
    one_more_hash_satisfies(value);
}

/// Any one match satisfies, whatever stands before it.
fn one_more_hash_satisfies(value: &str) {
    let own = of_content(Algorithm::Blake3);
    match Integrity::parse(&format!("{value} {own}")) {
        Ok(parsed) => {
            let mut hasher = parsed.hasher();
            hasher.update(CONTENT);
            assert!(hasher.finish().unwrap().contains(&own));
        }
        Err(_) => assert_eq!(value.split_ascii_whitespace().count(), MAX_HASHES),
    }
}

fn of_content(algorithm: Algorithm) -> Checksum {
    let digest = Digest::of(algorithm.function(), CONTENT).unwrap();
    Checksum::new(algorithm, &digest.raw()).unwrap()
}
