//! The reader of bb-remote-asset's entries.

use prost::Message as _;

use super::{
    Choices, F, KINDS, digest, exact, format, is_sound, merged, qualifiers, scope, sha256,
};
use super::{timestamp, written};
use crate::asset::{AssetKind, Source, Uri};
use crate::proto::rev2;
use crate::store::compat::{bb_key, bb_reference};
use crate::store::encoding::Outputs;

/// Entries of both kinds, whole and changed.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = KINDS
        .iter()
        .map(|kind| [&[0], &good(*kind).encode_to_vec()[..]].concat())
        .collect();
    for kind in 1..3 {
        for change in 0..6 {
            seeds.push(vec![kind, change, 1, 1, 1, 1]);
        }
    }
    seeds
}

/// One entry, as it is or changed, read as both kinds.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let entry = match choices.below(3) {
        0 => rev2::ActionResult::decode(choices.0).ok(),
        n => changed(good(KINDS[n - 1]), &mut choices),
    };
    let Some(entry) = entry else { return };
    let uri = Uri::new("https://h.example/a?b=1");
    let mut kinds = 0;
    for kind in KINDS {
        let read = bb_reference(kind, &scope(), &uri, &qualifiers(), &entry);
        let Ok((reference, tree)) = read else {
            continue;
        };
        kinds += 1;
        assert_eq!(
            (reference.source, reference.expire_at),
            (Source::Push, None)
        );
        assert!(reference.verified.is_empty());
        assert!(kind == AssetKind::Directory || tree.is_none());
        // A directory without a Tree has outputs in our entries only with pins.
        let outputs = Outputs {
            pins: tree
                .is_none()
                .then(|| sha256(b"pins"))
                .into_iter()
                .collect(),
            tree,
            ..Outputs::default()
        };
        is_sound(&format(false), &exact(kind), &reference, &outputs);
        // Our own entries are none of theirs.
        let ours = written(&format(false), &exact(kind), &reference, &outputs);
        assert!(bb_reference(kind, &scope(), &uri, &qualifiers(), &ours).is_err());
    }
    assert!(kinds < 2, "an entry is of one kind");
    key(data);
}

fn good(kind: AssetKind) -> rev2::ActionResult {
    let mut entry = rev2::ActionResult {
        execution_metadata: Some(rev2::ExecutedActionMetadata {
            queued_timestamp: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 5,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    match kind {
        AssetKind::Blob => entry.output_files.push(rev2::OutputFile {
            path: "out".to_owned(),
            digest: Some(sha256(b"asset").to_wire()),
            ..Default::default()
        }),
        AssetKind::Directory => entry.output_directories.push(rev2::OutputDirectory {
            path: "out".to_owned(),
            tree_digest: Some(sha256(b"tree").to_wire()),
            root_directory_digest: Some(sha256(b"asset").to_wire()),
            ..Default::default()
        }),
    }
    entry
}

fn changed(mut entry: rev2::ActionResult, choices: &mut Choices<'_>) -> Option<rev2::ActionResult> {
    match choices.below(6) {
        0 => {}
        1 => return merged(&entry, choices.0),
        2 => {
            let metadata = entry.execution_metadata.as_mut()?;
            metadata.queued_timestamp = Some(timestamp(choices));
        }
        3 => entry
            .output_files
            .iter_mut()
            .for_each(|file| file.digest = digest(choices)),
        4 => entry.output_directories.iter_mut().for_each(|directory| {
            directory.tree_digest = digest(choices);
            directory.root_directory_digest = digest(choices);
        }),
        _ => entry
            .output_files
            .extend(good(AssetKind::Blob).output_files),
    }
    Some(entry)
}

/// Any URI has a key that is the same each time, or none.
fn key(data: &[u8]) {
    let uri = Uri::new(data.to_vec());
    let key = || bb_key(&scope(), &uri, &qualifiers(), &[]);
    assert_eq!(key(), key());
    let may = !uri.has_secret() && uri.as_str().is_some();
    assert_eq!(key().is_some(), may);
    assert!(key().is_none_or(|k| k.hash().len() == F.hex_length()));
}
