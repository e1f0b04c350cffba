//! Reading an entry back: whatever does not fit in every respect is not used.
//!
//! Entries are input: anybody who may write the Action Cache may have written
//! them. Called by: `action_cache.rs`.

use std::time::SystemTime;

use prost::Message as _;

use super::{ASSET, ENTRY, EncodedKey, Format, Outputs, UNPACKER_VERSION, VERSION};
use super::{kind, pins_path, signed_fields, space};
use crate::asset::{
    Algorithm, AssetKey, AssetKind, AssetReference, Checksum, KeySpace, Qualifiers, Source,
    Validators,
};
use crate::digest::{Digest, DigestFunction};
use crate::proto::assetgate::v1::{AssetEntry, asset_entry as wire};
use crate::proto::{self, rev2};

/// No entry we write comes near it.
pub(in crate::store) const MAX_PAYLOAD: usize = 1 << 20;

/// Most memory that a payload may take once it is decoded: one that is all
/// digests takes half of it.
const MAX_DECODED: u64 = 4 << 20;

/// Most qualifiers of an entry, and bytes of them: as many as a request may
/// have. Answers repeat them.
const MAX_QUALIFIERS: usize = 32;
const MAX_QUALIFIER_BYTES: usize = 16 << 10;

/// Decodes the entry found under a key, whose payload is `payload`. The error
/// says what does not fit; whatever it is, the entry is not used.
pub(in crate::store) fn decode_entry(
    format: &Format,
    key: &AssetKey,
    encoded: &EncodedKey,
    entry: &rev2::ActionResult,
    payload: &[u8],
) -> Result<(AssetReference, Outputs), &'static str> {
    if payload.len() > MAX_PAYLOAD {
        return Err("payload too large");
    }
    let mut payload = read_payload(payload).ok_or("payload undecodable")?;
    check_identity(&format.namespace, key, encoded, &payload)?;
    let mac = std::mem::take(&mut payload.mac);
    let unsigned = format.mac.as_ref().map(|_| payload.encode_to_vec());
    let detached = read_detached(key.scope.function, &mut payload)?;
    let mut reference = read_reference(key, payload)?;
    check_space(key, &reference)?;
    let outputs = read_outputs(key.scope.function, &reference, detached, entry)?;
    if let (Some(keys), Some(unsigned)) = (&format.mac, unsigned) {
        let verify = |fields: &[&[u8]]| keys.verify(fields, &mac);
        if !signed_fields(key, encoded, &outputs, &unsigned, verify) {
            return Err("mac");
        }
        reference.signed_at = reference.signed_at.or(Some(reference.content_time));
    } else {
        // Anybody may have written it.
        reference.signed_at = None;
    }
    Ok((reference, outputs))
}

/// The message of a payload, unless it takes more than one of ours may.
pub(super) fn read_payload(payload: &[u8]) -> Option<AssetEntry> {
    proto::decode(payload, MAX_DECODED).ok()
}

/// The digests of a detached entry.
fn read_detached(
    function: DigestFunction,
    payload: &mut AssetEntry,
) -> Result<Option<Vec<Digest>>, &'static str> {
    let pins = std::mem::take(&mut payload.pins);
    if !payload.detached && !pins.is_empty() {
        return Err("detached");
    }
    let pins = pins.iter().map(|pin| read_digest(function, Some(pin)));
    let pins = pins.collect::<Result<_, _>>()?;
    Ok(payload.detached.then_some(pins))
}

fn check_identity(
    namespace: &str,
    key: &AssetKey,
    encoded: &EncodedKey,
    payload: &AssetEntry,
) -> Result<(), &'static str> {
    let checks = [
        (payload.version == VERSION, "version"),
        (payload.namespace == namespace, "namespace"),
        (payload.space == space(key) as i32, "space"),
        (payload.kind == kind(key.kind) as i32, "kind"),
        (
            payload.key_material_hash == encoded.material_hash[..],
            "key",
        ),
        (
            payload.digest_function == key.scope.function.to_wire(),
            "digest function",
        ),
        (
            payload.unpacker_version == UNPACKER_VERSION,
            "unpacker version",
        ),
    ];
    match checks.into_iter().find(|(good, _)| !good) {
        Some((_, what)) => Err(what),
        None => Ok(()),
    }
}

fn read_reference(key: &AssetKey, payload: AssetEntry) -> Result<AssetReference, &'static str> {
    let source = match wire::Source::try_from(payload.source) {
        Ok(wire::Source::Push) => Source::Push,
        Ok(wire::Source::Fetch) => Source::Fetch,
        _ => return Err("source"),
    };
    let pairs = payload.qualifiers.into_iter().map(|q| (q.name, q.value));
    let pairs: Vec<(String, String)> = pairs.collect();
    let stored = pairs.len();
    let bytes: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if stored > MAX_QUALIFIERS || bytes > MAX_QUALIFIER_BYTES {
        return Err("too many qualifiers");
    }
    let qualifiers = Qualifiers::new(pairs).map_err(|_| "qualifiers")?;
    if qualifiers.len() != stored || qualifiers.had_secret() {
        return Err("secret qualifiers");
    }
    let verified = payload.verified.iter().map(|v| {
        let algorithm = Algorithm::from_name(&v.algorithm).ok_or("verified hash")?;
        Checksum::new(algorithm, &v.hash).ok_or("verified hash")
    });
    let text = |s: String| (!s.is_empty()).then_some(s);
    Ok(AssetReference {
        kind: key.kind,
        digest: read_digest(key.scope.function, payload.digest.as_ref())?,
        uri: payload.uri,
        qualifiers,
        content_time: read_time(payload.content_time.ok_or("time")?)?,
        expire_at: payload.expire_at.map(read_time).transpose()?,
        source,
        validators: Validators {
            etag: text(payload.etag),
            last_modified: text(payload.last_modified),
        },
        verified: verified.collect::<Result<_, _>>()?,
        signed_at: payload.signed_at.map(read_time).transpose()?,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    })
}

/// A time within the years that a `Timestamp` may name.
pub(in crate::store) fn read_time(
    stamp: prost_types::Timestamp,
) -> Result<SystemTime, &'static str> {
    const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    if !YEARS.contains(&stamp.seconds) || !(0..1_000_000_000).contains(&stamp.nanos) {
        return Err("time");
    }
    SystemTime::try_from(stamp).map_err(|_| "time")
}

/// What the key itself says of the content.
fn check_space(key: &AssetKey, reference: &AssetReference) -> Result<(), &'static str> {
    match &key.space {
        KeySpace::Exact { qualifiers, .. }
        | KeySpace::Fetched { qualifiers, .. }
        | KeySpace::Migrated { qualifiers, .. } => {
            if !same(qualifiers, &reference.qualifiers) {
                return Err("qualifiers");
            }
        }
        KeySpace::Subset { qualifiers, .. } => {
            let all = &reference.qualifiers;
            if !qualifiers.is_subset(all) || qualifiers.len() == all.len() {
                return Err("qualifiers");
            }
        }
        KeySpace::Checksum {
            checksum,
            qualifiers,
        } => {
            if !reference.verified.contains(checksum) {
                return Err("checksum");
            }
            let comparable = key.kind == AssetKind::Blob
                && checksum.algorithm().function() == key.scope.function;
            if comparable && !reference.digest.has_hash(checksum.raw()) {
                return Err("checksum");
            }
            let beside = reference.qualifiers.only(&KeySpace::BESIDE_CHECKSUM);
            if !same(qualifiers, &beside) {
                return Err("qualifiers");
            }
        }
    }
    Ok(())
}

/// Equal in content: whether a secret was taken out does not count.
fn same(a: &Qualifiers, b: &Qualifiers) -> bool {
    a.iter().eq(b.iter())
}

fn read_outputs(
    function: DigestFunction,
    reference: &AssetReference,
    detached: Option<Vec<Digest>>,
    entry: &rev2::ActionResult,
) -> Result<Outputs, &'static str> {
    let files = || entry.output_files.iter().filter(|file| file.path != ENTRY);
    let none = files().next().is_none() && entry.output_directories.is_empty();
    let mut outputs = Outputs {
        withdrawn: none && detached.is_none(),
        detached,
        ..Outputs::default()
    };
    if none {
        let holds = outputs.detached.is_some() || reference.expire_at.is_some();
        return if holds { Ok(outputs) } else { Err("outputs") };
    }
    if outputs.detached.is_some() {
        return Err("outputs");
    }
    let mut asset = false;
    for file in files() {
        let digest = read_digest(function, file.digest.as_ref())?;
        if asset || file.path != ASSET || digest != reference.digest {
            return Err("outputs");
        }
        asset = true;
    }
    for directory in &entry.output_directories {
        let tree = read_digest(function, directory.tree_digest.as_ref())?;
        let root = &directory.root_directory_digest;
        if directory.path == ASSET && outputs.tree.is_none() {
            // Some caches lose the root digest; none may change it.
            if root
                .as_ref()
                .is_some_and(|r| *r != reference.digest.to_wire())
            {
                return Err("root directory");
            }
            outputs.tree = Some(tree);
        } else if directory.path == pins_path(outputs.pins.len()) {
            outputs.pins.push(tree);
        } else {
            return Err("outputs");
        }
    }
    let fits = match reference.kind {
        AssetKind::Blob => asset && outputs.tree.is_none(),
        AssetKind::Directory => !asset,
    };
    if fits { Ok(outputs) } else { Err("outputs") }
}

pub(in crate::store) fn read_digest(
    function: DigestFunction,
    wire: Option<&rev2::Digest>,
) -> Result<Digest, &'static str> {
    Digest::of_content(function, wire).map_err(|_| "digest")
}
