//! The persistent format: a key as an Action, a reference as its ActionResult.
//!
//! Pure, and a public contract: golden files fix every byte, and a change is a
//! new version. Not for: what is uploaded when (`action_cache.rs`), nor the
//! Trees an entry names (`tree.rs`).
//! Called by: `action_cache.rs`.

mod decode;

use bytes::Bytes;
use prost::Message as _;
use sha2::Digest as _;

pub(super) use decode::decode_entry;

use crate::asset::{AssetKey, AssetKind, AssetReference, KeySpace, Source};
use crate::digest::{Digest, DigestFunction};
use crate::proto::assetgate::v1::{AssetEntry, asset_entry as wire};
use crate::proto::rev2;

const VERSION: u32 = 1;
const TAG: &[u8] = b"asset-ref";
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

/// A message and its digest.
pub(super) type Blob = (Digest, Bytes);

/// A key as the messages it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EncodedKey {
    pub(super) command: Blob,
    pub(super) action: Blob,
    pub(super) material_hash: [u8; 32],
}

/// The Action of a key; `None` if Assetgate cannot compute the key's digest
/// function.
pub(super) fn encode_key(namespace: &str, key: &AssetKey) -> Option<EncodedKey> {
    let function = key.scope.function;
    let material_hash: [u8; 32] = sha2::Sha256::digest(material(namespace, key)).into();
    let command = blob(
        function,
        &rev2::Command {
            arguments: COMMAND.map(str::to_owned).to_vec(),
            ..Default::default()
        },
    )?;
    let property = rev2::platform::Property {
        name: PROPERTY.0.to_owned(),
        value: PROPERTY.1.to_owned(),
    };
    let action = rev2::Action {
        command_digest: Some(command.0.to_wire()),
        input_root_digest: Some(Digest::of(function, b"")?.to_wire()),
        salt: Bytes::copy_from_slice(&material_hash),
        platform: Some(rev2::Platform {
            properties: vec![property],
        }),
        ..Default::default()
    };
    Some(EncodedKey {
        action: blob(function, &action)?,
        command,
        material_hash,
    })
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
    let (space, qualifiers) = match &key.space {
        KeySpace::Exact { qualifiers, .. } => ("E", qualifiers),
        KeySpace::Checksum { qualifiers, .. } => ("X", qualifiers),
    };
    field(TAG);
    field(VERSION.to_string().as_bytes());
    field(namespace.as_bytes());
    field(space.as_bytes());
    field(key.kind.name().as_bytes());
    field(key.scope.instance.as_str().as_bytes());
    field(key.scope.function.name().as_bytes());
    field(UNPACKER_VERSION.to_string().as_bytes());
    match &key.space {
        KeySpace::Exact { uri, .. } => field(&uri.key_bytes()),
        KeySpace::Checksum { checksum, .. } => {
            field(checksum.algorithm().name().as_bytes());
            field(checksum.raw());
        }
    }
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
}

/// The entry of a reference under a key.
pub(super) fn encode_entry(
    namespace: &str,
    key: &AssetKey,
    encoded: &EncodedKey,
    reference: &AssetReference,
    outputs: &Outputs,
) -> rev2::ActionResult {
    let payload = payload(namespace, key, encoded, reference);
    let payload = prost_types::Any {
        type_url: TYPE_URL.to_owned(),
        value: payload.encode_to_vec(),
    };
    let mut entry = rev2::ActionResult {
        execution_metadata: Some(rev2::ExecutedActionMetadata {
            worker: WORKER.to_owned(),
            worker_completed_timestamp: Some(reference.content_time.into()),
            auxiliary_metadata: vec![payload],
            ..Default::default()
        }),
        ..Default::default()
    };
    if outputs.withdrawn {
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
) -> AssetEntry {
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
        unpacker_version: UNPACKER_VERSION,
        ..Default::default()
    }
}

fn space(key: &AssetKey) -> wire::Space {
    match key.space {
        KeySpace::Exact { .. } => wire::Space::Exact,
        KeySpace::Checksum { .. } => wire::Space::Checksum,
    }
}

fn kind(kind: AssetKind) -> wire::Kind {
    match kind {
        AssetKind::Blob => wire::Kind::Blob,
        AssetKind::Directory => wire::Kind::Directory,
    }
}

/// The payload of an entry: found by its type, as caches may add their own.
fn find_payload(entry: &rev2::ActionResult) -> Option<&[u8]> {
    let metadata = entry.execution_metadata.as_ref()?;
    let ours = metadata
        .auxiliary_metadata
        .iter()
        .find(|any| any.type_url == TYPE_URL)?;
    Some(&ours.value)
}

/// Whether two entries have the same payload; `None` if `answer` has none.
/// The rest is not compared: caches complete and reorder it.
pub(super) fn same_payload(sent: &rev2::ActionResult, answer: &rev2::ActionResult) -> Option<bool> {
    let answer = find_payload(answer)?;
    let sent = find_payload(sent)?;
    let decoded = |bytes| AssetEntry::decode(bytes).ok();
    Some(sent == answer || decoded(sent) == decoded(answer))
}

#[cfg(test)]
mod tests;
