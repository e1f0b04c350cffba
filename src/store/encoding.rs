//! The persistent format: a key as an Action, a reference as its ActionResult.
//!
//! Pure, and a public contract, described in `docs/format.md`: golden files fix
//! every byte, and a change is a new version. Not for: what is uploaded when (`action_cache.rs`), nor the
//! Trees an entry names (`tree.rs`).
//! Called by: `action_cache.rs`.

mod decode;

use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message as _;
use sha2::Digest as _;

pub(super) use decode::{MAX_PAYLOAD, decode_entry, read_digest, read_time};

use super::mac::MacKeys;
use super::probe::Carrier;
use crate::asset::{AssetKey, AssetKind, AssetReference, KeySpace, Source};
use crate::digest::{Digest, DigestFunction};
use crate::proto::assetgate::v1::{AssetEntry, asset_entry as wire};
use crate::proto::rev2;

const VERSION: u32 = 1;
const TAG: &[u8] = b"asset-ref";
const MAC_TAG: &[u8] = b"assetgate-mac-1";
const COMMAND: [&str; 2] = ["assetgate-asset-reference", "v1"];
const PROPERTY: (&str, &str) = ("asset-reference", "v1");
const TYPE_URL: &str = "type.googleapis.com/assetgate.v1.AssetEntry";
const WORKER: &str = concat!("assetgate/", env!("CARGO_PKG_VERSION"));

/// What makes directories from retrieved bytes; 0 while nothing does.
const UNPACKER_VERSION: u32 = 0;

/// Output path of the asset.
const ASSET: &str = "asset";
/// Output path of the first pin tree; further ones are `pins-1`, `pins-2`, ...
const PINS: &str = "pins";

/// Output path of the payload, where the cache drops metadata.
const ENTRY: &str = "entry";

/// A message and its digest.
pub(super) type Blob = (Digest, Bytes);

/// What all entries of one operator have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Format {
    pub(super) namespace: std::sync::Arc<str>,
    /// With keys, entries are signed, and those that are not are misses.
    pub(super) mac: Option<MacKeys>,
}

/// A key as the messages it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EncodedKey {
    /// The function of the two digests.
    pub(super) function: DigestFunction,
    pub(super) command: Blob,
    pub(super) action: Blob,
    pub(super) material_hash: [u8; 32],
}

/// The Action of a key, its digest in `function`, which is that of the content
/// wherever an entry has outputs; `None` if Assetgate cannot compute it.
pub(super) fn encode_key(
    namespace: &str,
    key: &AssetKey,
    function: DigestFunction,
) -> Option<EncodedKey> {
    let material_hash: [u8; 32] = sha2::Sha256::digest(material(namespace, key)).into();
    let (command, no_input) = constant_parts(function)?;
    let property = rev2::platform::Property {
        name: PROPERTY.0.to_owned(),
        value: PROPERTY.1.to_owned(),
    };
    let action = rev2::Action {
        command_digest: Some(command.0.to_wire()),
        input_root_digest: Some(no_input.to_wire()),
        salt: Bytes::copy_from_slice(&material_hash),
        platform: Some(rev2::Platform {
            properties: vec![property],
        }),
        ..Default::default()
    };
    Some(EncodedKey {
        function,
        action: blob(function, &action)?,
        command,
        material_hash,
    })
}

/// What is the same in all keys of a digest function, encoded and hashed once:
/// the Command, and the digest of the empty input root.
fn constant_parts(function: DigestFunction) -> Option<(Blob, Digest)> {
    type Parts = OnceLock<Option<(Blob, Digest)>>;
    static PARTS: [Parts; 16] = [const { OnceLock::new() }; 16];
    let make = || {
        let command = rev2::Command {
            arguments: COMMAND.map(str::to_owned).to_vec(),
            ..Default::default()
        };
        Some((blob(function, &command)?, Digest::of(function, b"")?))
    };
    let slot = usize::try_from(function.to_wire()).unwrap_or(usize::MAX);
    match PARTS.get(slot) {
        Some(parts) => parts.get_or_init(make).clone(),
        None => make(),
    }
}

fn blob(function: DigestFunction, message: &impl prost::Message) -> Option<Blob> {
    let bytes = Bytes::from(message.encode_to_vec());
    Some((Digest::of(function, &bytes)?, bytes))
}

/// What a key is, as one unambiguous sequence of fields.
fn material(namespace: &str, key: &AssetKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut field = |bytes: &[u8]| {
        // Nothing near 4 GiB gets this far; were it to, saturation would still
        // leave the length wrong rather than ambiguous.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(bytes);
    };
    field(TAG);
    field(VERSION.to_string().as_bytes());
    field(namespace.as_bytes());
    field(key.space.letter().as_bytes());
    field(key.kind.name().as_bytes());
    field(key.scope.instance.as_str().as_bytes());
    field(key.scope.function.name().as_bytes());
    field(UNPACKER_VERSION.to_string().as_bytes());
    if let Some(uri) = key.space.uri() {
        field(&uri.key_bytes());
    }
    if let KeySpace::Checksum { checksum, .. } = &key.space {
        field(checksum.algorithm().name().as_bytes());
        field(checksum.raw());
    }
    let qualifiers = key.space.qualifiers();
    field(qualifiers.len().to_string().as_bytes());
    for qualifier in qualifiers.iter() {
        field(qualifier.name.as_bytes());
        field(qualifier.value.as_bytes());
    }
    out
}

/// What of an asset stands in an entry beside the payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outputs {
    /// The `Tree` of a directory, unless it is too large to be one.
    pub(super) tree: Option<Digest>,
    /// The pin trees.
    pub(super) pins: Vec<Digest>,
    /// No outputs at all: the entry withdraws the asset.
    pub(super) withdrawn: bool,
    /// In an entry that stands where the content does not, and so has no
    /// outputs: the digests kept with the asset, all of them.
    pub(super) detached: Option<Vec<Digest>>,
}

/// The entry of a reference under a key, and the blob it needs if it carries
/// its payload in one.
pub(super) fn encode_entry(
    format: &Format,
    key: &AssetKey,
    encoded: &EncodedKey,
    reference: &AssetReference,
    outputs: &Outputs,
    carrier: Carrier,
) -> (rev2::ActionResult, Option<Blob>) {
    let mut payload = payload(&format.namespace, key, encoded, reference, outputs);
    if format.mac.is_none() {
        payload.signed_at = None;
    }
    if let Some(keys) = &format.mac {
        let unsigned = payload.encode_to_vec();
        let signed = signed_fields(key, encoded, outputs, &unsigned, |fields| keys.sign(fields));
        payload.mac = signed.into();
    }
    let payload = Bytes::from(payload.encode_to_vec());
    let mut entry = outputs_of(reference, outputs);
    let carried = match carrier {
        Carrier::Metadata => None,
        Carrier::Blob => Digest::of(encoded.function, &payload),
    };
    let blob = carried.map(|digest| (digest, payload.clone()));
    match &blob {
        Some((digest, _)) => entry.output_files.push(rev2::OutputFile {
            path: ENTRY.to_owned(),
            digest: Some(digest.to_wire()),
            ..Default::default()
        }),
        None => {
            let any = prost_types::Any {
                type_url: TYPE_URL.to_owned(),
                value: payload.into(),
            };
            let metadata = entry.execution_metadata.get_or_insert_default();
            metadata.auxiliary_metadata.push(any);
        }
    }
    (entry, blob)
}

/// Hands the fields a MAC is over to `then`, in the order of the format.
fn signed_fields<T>(
    key: &AssetKey,
    encoded: &EncodedKey,
    outputs: &Outputs,
    unsigned: &[u8],
    then: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    let size = encoded.action.0.size().to_string();
    let tree = outputs.tree.as_ref().map_or("", Digest::hash);
    let mut fields: Vec<&[u8]> = vec![
        MAC_TAG,
        encoded.action.0.hash().as_bytes(),
        size.as_bytes(),
        key.scope.instance.as_str().as_bytes(),
        key.scope.function.name().as_bytes(),
        unsigned,
        if outputs.withdrawn { b"withdrawn" } else { b"" },
        tree.as_bytes(),
    ];
    fields.extend(outputs.pins.iter().map(|d| d.hash().as_bytes()));
    then(&fields)
}

/// The part of an entry that is not the payload.
fn outputs_of(reference: &AssetReference, outputs: &Outputs) -> rev2::ActionResult {
    let mut entry = rev2::ActionResult {
        execution_metadata: Some(rev2::ExecutedActionMetadata {
            worker: WORKER.to_owned(),
            worker_completed_timestamp: Some(reference.content_time.into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    if outputs.withdrawn || outputs.detached.is_some() {
        return entry;
    }
    match (reference.kind, &outputs.tree) {
        (AssetKind::Blob, _) => entry.output_files.push(rev2::OutputFile {
            path: ASSET.to_owned(),
            digest: Some(reference.digest.to_wire()),
            ..Default::default()
        }),
        (AssetKind::Directory, None) => {}
        (AssetKind::Directory, Some(tree)) => {
            entry.output_directories.push(rev2::OutputDirectory {
                path: ASSET.to_owned(),
                tree_digest: Some(tree.to_wire()),
                is_topologically_sorted: true,
                root_directory_digest: Some(reference.digest.to_wire()),
            });
        }
    }
    for (index, pins) in outputs.pins.iter().enumerate() {
        entry.output_directories.push(rev2::OutputDirectory {
            path: pins_path(index),
            tree_digest: Some(pins.to_wire()),
            ..Default::default()
        });
    }
    entry
}

fn pins_path(index: usize) -> String {
    match index {
        0 => PINS.to_owned(),
        n => format!("{PINS}-{n}"),
    }
}

fn payload(
    namespace: &str,
    key: &AssetKey,
    encoded: &EncodedKey,
    reference: &AssetReference,
    outputs: &Outputs,
) -> AssetEntry {
    let kept = outputs.detached.iter().flatten();
    let qualifiers = reference.qualifiers.iter().map(|q| wire::Qualifier {
        name: q.name.clone(),
        value: q.value.clone(),
    });
    let verified = reference.verified.iter().map(|c| wire::VerifiedHash {
        algorithm: c.algorithm().name().to_owned(),
        hash: Bytes::copy_from_slice(c.raw()),
    });
    AssetEntry {
        version: VERSION,
        namespace: namespace.to_owned(),
        space: space(key) as i32,
        kind: kind(reference.kind) as i32,
        digest: Some(reference.digest.to_wire()),
        digest_function: key.scope.function.to_wire(),
        key_material_hash: Bytes::copy_from_slice(&encoded.material_hash),
        uri: reference.uri.clone(),
        qualifiers: qualifiers.collect(),
        content_time: Some(reference.content_time.into()),
        expire_at: reference.expire_at.map(Into::into),
        source: match reference.source {
            Source::Push => wire::Source::Push as i32,
            Source::Fetch => wire::Source::Fetch as i32,
        },
        etag: reference.validators.etag.clone().unwrap_or_default(),
        last_modified: reference
            .validators
            .last_modified
            .clone()
            .unwrap_or_default(),
        verified: verified.collect(),
        signed_at: reference.signed_at.map(Into::into),
        unpacker_version: UNPACKER_VERSION,
        detached: outputs.detached.is_some(),
        pins: kept.map(Digest::to_wire).collect(),
        mac: Bytes::new(),
    }
}

fn space(key: &AssetKey) -> wire::Space {
    match key.space {
        KeySpace::Exact { .. } => wire::Space::Exact,
        KeySpace::Subset { .. } => wire::Space::Subset,
        KeySpace::Fetched { .. } => wire::Space::Fetched,
        KeySpace::Migrated { .. } => wire::Space::Migrated,
        KeySpace::Checksum { .. } => wire::Space::Checksum,
    }
}

fn kind(kind: AssetKind) -> wire::Kind {
    match kind {
        AssetKind::Blob => wire::Kind::Blob,
        AssetKind::Directory => wire::Kind::Directory,
    }
}

/// Where the payload of an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    Here(&'a [u8]),
    /// In the CAS, where the entry is.
    Blob(Digest),
}

/// The payload of an entry: found by its type, as caches may add their own.
pub(super) fn find_payload(
    function: DigestFunction,
    entry: &rev2::ActionResult,
) -> Option<Payload<'_>> {
    let metadata = entry.execution_metadata.iter();
    let mut all = metadata.flat_map(|m| &m.auxiliary_metadata);
    if let Some(ours) = all.find(|any| any.type_url == TYPE_URL) {
        return Some(Payload::Here(&ours.value));
    }
    let file = entry.output_files.iter().find(|file| file.path == ENTRY)?;
    let digest = Digest::of_content(function, file.digest.as_ref()).ok()?;
    (digest.size() <= MAX_PAYLOAD as u64).then_some(Payload::Blob(digest))
}

/// Whether two entries have the same payload; `None` if `answer` has none.
/// The rest is not compared: caches complete and reorder it.
pub(super) fn same_payload(
    function: DigestFunction,
    sent: &rev2::ActionResult,
    answer: &rev2::ActionResult,
) -> Option<bool> {
    let answer = find_payload(function, answer)?;
    let sent = find_payload(function, sent)?;
    Some(match (&sent, &answer) {
        (Payload::Here(sent), Payload::Here(answer)) => {
            sent == answer || decode::read_payload(sent) == decode::read_payload(answer)
        }
        _ => sent == answer,
    })
}

#[cfg(test)]
mod tests;
