//! The checks that requests of all services share: instance name, digest
//! function, digests.
//!
//! Not for: resource names (`resource.rs`).
//! Called by: the services of `embedded`.

use tonic::{Response, Status};

use super::key::Key;
use super::status::invalid;
use crate::budget::{Share, Unsent};
use crate::call::ConnectionId;
use crate::digest::{Digest, DigestFunction, InstanceName};
use crate::proto::rev2;

/// The digest functions this cache computes, as it announces them.
pub(super) const ANNOUNCED: [DigestFunction; 6] = [
    DigestFunction::Sha256,
    DigestFunction::Sha1,
    DigestFunction::Md5,
    DigestFunction::Sha384,
    DigestFunction::Sha512,
    DigestFunction::Blake3,
];

/// The instance name of a request; any valid one will do.
pub(super) fn instance(name: &str) -> Result<InstanceName, Status> {
    InstanceName::new(name).map_err(|e| invalid("instance_name", e))
}

/// The digest function of a request, if unset inferred from a hash.
pub(super) fn function(wire: i32, sample: Option<&rev2::Digest>) -> Result<DigestFunction, Status> {
    let named = DigestFunction::from_wire(wire).map_err(|e| invalid("digest_function", e))?;
    let function = match (named, sample) {
        (Some(function), _) => function,
        (None, None) => DigestFunction::Sha256,
        (None, Some(digest)) => DigestFunction::infer(digest.hash.len(), &ANNOUNCED)
            .map_err(|e| invalid("digest.hash", e))?,
    };
    if !ANNOUNCED.contains(&function) {
        let reason = format!("{function} is not supported; see GetCapabilities");
        return Err(invalid("digest_function", reason));
    }
    Ok(function)
}

/// A digest of a request.
pub(super) fn digest(
    function: DigestFunction,
    field: &str,
    wire: Option<&rev2::Digest>,
) -> Result<Digest, Status> {
    Digest::from_wire(function, wire).map_err(|e| invalid(field, e))
}

/// The key of a digest of a request. Of a right one no copy is made: there may
/// be many.
pub(super) fn key(
    function: DigestFunction,
    field: &str,
    wire: &rev2::Digest,
) -> Result<Key, Status> {
    let hash = wire.hash.as_bytes();
    // Of all hexadecimal digits only large ones lack this bit.
    let small = hash.iter().fold(0x20, |bits, byte| bits & byte) != 0;
    let size = u64::try_from(wire.size_bytes).ok().filter(|_| small);
    match size.and_then(|size| Key::from_hex(function, hash, size)) {
        Some(key) => Ok(key),
        None => digest(function, field, Some(wire)).map(|d| Key::blob(function, &d)),
    }
}

/// Whether `digest` is that of no bytes: always present, never stored.
pub(super) fn is_empty_blob(function: DigestFunction, digest: &Digest) -> bool {
    digest.is_empty() && Digest::of(function, b"").is_some_and(|d| d == *digest)
}

/// The connection that a request came over; those of this process are one.
pub(super) fn connection<T>(request: &tonic::Request<T>) -> ConnectionId {
    let id = request.extensions().get().copied();
    id.unwrap_or_default()
}

/// Answers up to this take no room.
const SMALL_ANSWER: u64 = 16 << 10;

/// Room for an answer of so many bytes, which stays until it was sent. Those
/// of this process need none.
pub(super) async fn room(share: Option<&Share>, bytes: u64) -> Option<Unsent> {
    match share {
        Some(share) if bytes > SMALL_ANSWER => Some(share.answer(bytes).await),
        _ => None,
    }
}

/// An answer that holds its room.
pub(super) fn answer<T>(message: T, room: Option<Unsent>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(room) = room {
        response.extensions_mut().insert(room);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_digest_is_had_or_refused_as_the_digest_is() {
        let right = "00ff0123456789abcdef0a1b2c3d4e5f9f8e7d6c5b4a3928170605f4e3d2c1b0";
        let mut wires = vec![(right.to_owned(), 0), (right.to_owned(), -1)];
        wires.extend(["", &right[1..], "ä"].map(|hash| (hash.to_owned(), 1)));
        wires.extend((0..128u8).map(|byte| {
            let hash = format!("{}{}", char::from(byte), &right[1..]);
            (hash, 5)
        }));
        let function = DigestFunction::Sha256;
        for (hash, size_bytes) in wires {
            let wire = rev2::Digest { hash, size_bytes };
            let digest = digest(function, "field", Some(&wire));
            let expected = digest.map(|digest| Key::blob(function, &digest));
            let key = key(function, "field", &wire);
            match (key, expected) {
                (Ok(key), Ok(expected)) => assert_eq!(key, expected),
                (Err(said), Err(expected)) => assert_eq!(said.message(), expected.message()),
                (key, _) => panic!("{wire:?}: {key:?}"),
            }
        }
    }
}
