//! Asset references as they lie in an Action Cache.

use assetgate::proto::assetgate::v1::AssetEntry;
use assetgate::proto::rev2::ActionResult;
use prost::Message as _;

const TYPE: &str = "assetgate.v1.AssetEntry";

/// What Assetgate put beside the outputs of an entry.
pub fn payload(entry: &ActionResult) -> Option<AssetEntry> {
    let metadata = entry.execution_metadata.as_ref()?;
    let mut all = metadata.auxiliary_metadata.iter();
    let found = all.find(|any| any.type_url.ends_with(TYPE))?;
    AssetEntry::decode(&*found.value).ok()
}

/// Changes the bytes of what Assetgate put beside the outputs.
pub fn edit_payload(entry: &mut ActionResult, edit: impl FnOnce(&mut Vec<u8>)) {
    let metadata = entry.execution_metadata.as_mut().unwrap();
    let mut all = metadata.auxiliary_metadata.iter_mut();
    let found = all.find(|any| any.type_url.ends_with(TYPE)).unwrap();
    edit(&mut found.value);
}

/// Whether an entry is an asset reference, rather than the trace of a probe.
pub fn is_reference(entry: &ActionResult) -> bool {
    payload(entry).is_some_and(|p| !p.uri.is_empty() || !p.verified.is_empty())
}
