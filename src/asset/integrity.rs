//! `checksum.sri`: the qualifier's grammar and its verification.
//!
//! W3C Subresource Integrity values, a list in which any one match satisfies
//! (qualifiers.md of the Remote Asset API). The algorithms are independent of
//! the digest function.
//! Not for: which bytes are verified (`fetcher` says: the served ones).

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

use crate::digest::{DigestFunction, Hasher};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

/// Hashes in one value; more is an error.
const MAX_HASHES: usize = 32;

/// A hash algorithm of Subresource Integrity, or one that clients use there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `md5`
    Md5,
    /// `sha1`
    Sha1,
    /// `sha256`
    Sha256,
    /// `sha384`
    Sha384,
    /// `sha512`
    Sha512,
    /// `blake3`
    Blake3,
}

impl Algorithm {
    const ALL: [Self; 6] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Blake3,
    ];

    /// The algorithm's token, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    /// The algorithm with this token.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|a| a.name().eq_ignore_ascii_case(name))
    }

    /// The digest function that computes the same hash.
    #[must_use]
    pub fn function(self) -> DigestFunction {
        match self {
            Self::Md5 => DigestFunction::Md5,
            Self::Sha1 => DigestFunction::Sha1,
            Self::Sha256 => DigestFunction::Sha256,
            Self::Sha384 => DigestFunction::Sha384,
            Self::Sha512 => DigestFunction::Sha512,
            Self::Blake3 => DigestFunction::Blake3,
        }
    }

    /// Whether others can make content that has a hash of it.
    #[must_use]
    pub fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1)
    }

    fn raw_length(self) -> usize {
        self.function().hex_length() / 2
    }
}

/// One hash of a known algorithm.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Checksum {
    algorithm: Algorithm,
    raw: Box<[u8]>,
}

impl Checksum {
    /// A checksum from raw bytes; `None` if the length is wrong.
    #[must_use]
    pub fn new(algorithm: Algorithm, raw: &[u8]) -> Option<Self> {
        (raw.len() == algorithm.raw_length()).then(|| Self {
            algorithm,
            raw: raw.into(),
        })
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw hash.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}",
            self.algorithm.name(),
            STANDARD.encode(&self.raw)
        )
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a `checksum.sri` value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntegrityError {
    /// No hash in it.
    #[error("checksum.sri holds no hash")]
    Empty,
    /// More hashes than the limit.
    #[error("checksum.sri holds more than {MAX_HASHES} hashes")]
    TooMany,
    /// A token is not of the form `algorithm-base64`.
    #[error("checksum.sri: {0:?} is not of the form algorithm-base64")]
    Form(String),
    /// The hash of a known algorithm is not Base64 of the right length.
    #[error("checksum.sri: the {0} hash is not {1} bytes in Base64")]
    Hash(&'static str, usize),
    /// No known algorithm in it.
    #[error(
        "checksum.sri names only unknown algorithms ({0}); known are md5, sha1, sha256, sha384, sha512, blake3"
    )]
    UnknownOnly(String),
}

/// A parsed `checksum.sri`: one or more hashes, any of which satisfies. Those
/// of weak algorithms are not among them where a stronger one is named: a list
/// would otherwise be as weak as its weakest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integrity(Vec<Checksum>);

impl Integrity {
    /// Parses a qualifier value. Unknown algorithms beside a known one are
    /// passed over; anything malformed is an error, so that a typing mistake
    /// never switches verification off.
    pub fn parse(value: &str) -> Result<Self, IntegrityError> {
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        for (count, token) in value.split_ascii_whitespace().enumerate() {
            if count == MAX_HASHES {
                return Err(IntegrityError::TooMany);
            }
            match parse_token(token)? {
                Ok(checksum) if !known.contains(&checksum) => known.push(checksum),
                Ok(_) => {}
                Err(name) => unknown.push(name),
            }
        }
        let is_strong = |checksum: &Checksum| !checksum.algorithm.is_weak();
        if known.iter().any(is_strong) {
            known.retain(is_strong);
        }
        match (known.is_empty(), unknown.is_empty()) {
            (false, _) => Ok(Self(known)),
            (true, true) => Err(IntegrityError::Empty),
            (true, false) => Err(IntegrityError::UnknownOnly(unknown.join(", "))),
        }
    }

    /// The hashes that count, in the order of the value.
    #[must_use]
    pub fn checksums(&self) -> &[Checksum] {
        &self.0
    }

    /// The algorithms of these, each once.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut all: Vec<Algorithm> = self.0.iter().map(Checksum::algorithm).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether one of these hashes, which are of some content, satisfies.
    #[must_use]
    pub fn holds_any(&self, of_content: &[Checksum]) -> bool {
        of_content.iter().any(|checksum| self.0.contains(checksum))
    }

    /// A hasher for every algorithm named.
    #[must_use]
    pub fn hasher(&self) -> IntegrityHasher {
        let mut hashers: Vec<(Algorithm, Hasher)> = Vec::new();
        for Checksum { algorithm, .. } in &self.0 {
            if hashers.iter().all(|(a, _)| a != algorithm) {
                hashers.extend(Hasher::new(algorithm.function()).map(|h| (*algorithm, h)));
            }
        }
        IntegrityHasher {
            wanted: self.0.clone(),
            hashers,
        }
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, checksum) in self.0.iter().enumerate() {
            write!(f, "{}{checksum}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// Outer error: malformed. Inner error: the name of an unknown algorithm.
fn parse_token(token: &str) -> Result<Result<Checksum, String>, IntegrityError> {
    let shown = || token.chars().take(80).collect::<String>();
    let (name, rest) = token
        .split_once('-')
        .ok_or_else(|| IntegrityError::Form(shown()))?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(IntegrityError::Form(shown()));
    }
    let Some(algorithm) = Algorithm::from_name(name) else {
        return Ok(Err(name.chars().take(80).collect()));
    };
    let encoded = rest.split('?').next().unwrap_or(rest);
    let wrong = || IntegrityError::Hash(algorithm.name(), algorithm.raw_length());
    let raw = STANDARD
        .decode(encoded)
        .or_else(|_| URL_SAFE.decode(encoded))
        .map_err(|_| wrong())?;
    Checksum::new(algorithm, &raw).map(Ok).ok_or_else(wrong)
}

/// Computes every hash an [`Integrity`] asks for, as bytes pass.
#[derive(Debug, Clone)]
pub struct IntegrityHasher {
    wanted: Vec<Checksum>,
    hashers: Vec<(Algorithm, Hasher)>,
}

impl IntegrityHasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for (_, hasher) in &mut self.hashers {
            hasher.update(bytes);
        }
    }

    /// The hashes that match (verified), or, if none does, all that were
    /// computed.
    pub fn finish(self) -> Result<Vec<Checksum>, Vec<Checksum>> {
        let computed: Vec<Checksum> = self
            .hashers
            .into_iter()
            .filter_map(|(algorithm, hasher)| Checksum::new(algorithm, &hasher.finish_raw()))
            .collect();
        if computed.iter().any(|c| self.wanted.contains(c)) {
            Ok(computed)
        } else {
            Err(computed)
        }
    }
}

#[cfg(test)]
mod tests;
