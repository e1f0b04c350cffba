//! The decoder of our own entries.

use prost::Message as _;

use super::{Choices, Format, KINDS, digest, format, is_sound, keys, merged, outputs, read};
use super::{reference, timestamp, written};
use crate::asset::{AssetKey, KeySpace};
use crate::proto::assetgate::v1::{AssetEntry, asset_entry as wire};
use crate::proto::rev2;

/// Most changes to one entry.
const CHANGES: usize = 8;

/// Every key with its own entry, whole and changed.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (index, key) in (0..).zip(keys()) {
        for signed in [false, true] {
            let entry = written(
                &format(signed),
                &key,
                &reference(key.kind),
                &outputs(key.kind),
            );
            let mode = 2 * u8::from(signed);
            seeds.push([&[index, mode], &entry.encode_to_vec()[..]].concat());
        }
        for change in 0..13 {
            seeds.push(vec![index, 1, 3, change, 1, 1, b'x', 3, 2, 0, 1, 2, 3]);
        }
    }
    seeds
}

/// One entry under one key: as it is, or a good one with changes.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let keys = keys();
    let key = &keys[choices.below(keys.len())];
    let mode = choices.byte();
    let signed = mode & 2 != 0;
    let format = format(signed);
    let entry = match mode & 1 {
        0 => rev2::ActionResult::decode(choices.0).ok(),
        _ => changed(&format, key, &mut choices),
    };
    let Some(entry) = entry else { return };
    let Ok((found, outputs_found)) = read(&format, key, &entry) else {
        return;
    };
    is_sound(&format, key, &found, &outputs_found);
    if signed {
        // Nobody but we can sign, and this is all that was ever signed.
        let mut own = (reference(key.kind), outputs(key.kind));
        own.0.signed_at = Some(own.0.content_time);
        assert_eq!((&found, &outputs_found), (&own.0, &own.1));
    }
    match &key.space {
        KeySpace::Subset { qualifiers, .. } => assert!(qualifiers.is_subset(&found.qualifiers)),
        KeySpace::Checksum { checksum, .. } => assert!(found.verified.contains(checksum)),
        KeySpace::Exact { qualifiers, .. }
        | KeySpace::Fetched { qualifiers, .. }
        | KeySpace::Migrated { qualifiers, .. } => {
            assert!(qualifiers.iter().eq(found.qualifiers.iter()));
        }
    }
    // It holds under this key and under no other.
    for other in keys.iter().filter(|other| *other != key) {
        assert!(read(&format, other, &entry).is_err(), "{other:?}");
    }
}

fn changed(
    format: &Format,
    key: &AssetKey,
    choices: &mut Choices<'_>,
) -> Option<rev2::ActionResult> {
    let mut entry = written(format, key, &reference(key.kind), &outputs(key.kind));
    let mut left = CHANGES;
    while left > 0 && !choices.is_empty() {
        left -= 1;
        match choices.below(4) {
            0 => change_outputs(&mut entry, choices),
            1 => {
                let more = choices.bytes();
                entry = merged(&entry, more)?;
            }
            2 => change_bytes(&mut entry, choices),
            _ => change_payload(&mut entry, choices)?,
        }
    }
    Some(entry)
}

fn change_outputs(entry: &mut rev2::ActionResult, choices: &mut Choices<'_>) {
    let paths = ["asset", "pins", "pins-1", "pins-2", "out", ""];
    let path = paths[choices.below(paths.len())].to_owned();
    match choices.below(7) {
        0 => entry.output_files.clear(),
        1 => entry.output_directories.clear(),
        2 => entry.output_files.push(rev2::OutputFile {
            path,
            digest: digest(choices),
            ..Default::default()
        }),
        3 => entry.output_directories.push(rev2::OutputDirectory {
            path,
            tree_digest: digest(choices),
            root_directory_digest: digest(choices),
            ..Default::default()
        }),
        4 => entry.output_directories.reverse(),
        5 => drop(entry.output_directories.pop()),
        _ => entry.execution_metadata = None,
    }
}

/// Where the payload stands, if it still does.
fn payload(entry: &mut rev2::ActionResult) -> Option<&mut Vec<u8>> {
    let metadata = entry.execution_metadata.as_mut()?;
    Some(&mut metadata.auxiliary_metadata.first_mut()?.value)
}

fn change_bytes(entry: &mut rev2::ActionResult, choices: &mut Choices<'_>) {
    let Some(bytes) = payload(entry) else { return };
    let at = (usize::from(choices.byte()) << 8 | usize::from(choices.byte())) % (bytes.len() + 1);
    match choices.below(3) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(choices.bytes()),
        _ => {
            let value = choices.byte();
            bytes.iter_mut().skip(at).take(1).for_each(|b| *b = value);
        }
    }
}

fn change_payload(entry: &mut rev2::ActionResult, choices: &mut Choices<'_>) -> Option<()> {
    let bytes = payload(entry)?;
    let mut message = AssetEntry::decode(&**bytes).ok()?;
    match choices.below(14) {
        0 => message.version = u32::from(choices.byte()),
        1 => message.kind = KINDS.len() as i32 + i32::from(choices.byte()),
        2 => message.digest = digest(choices),
        3 => message.content_time = Some(timestamp(choices)),
        4 => message.expire_at = Some(timestamp(choices)),
        5 => message.source = i32::from(choices.byte()),
        6 => message.qualifiers.push(wire::Qualifier {
            name: choices.text(),
            value: choices.text(),
        }),
        7 => message.verified.push(wire::VerifiedHash {
            algorithm: choices.text(),
            hash: choices.bytes().to_vec().into(),
        }),
        8 => message.uri = choices.text(),
        9 => message.expire_at = None,
        10 => message.etag = choices.text(),
        11 => message.detached = !message.detached,
        12 => message.pins.extend(digest(choices)),
        _ => message.qualifiers.reverse(),
    }
    *bytes = message.encode_to_vec();
    Some(())
}
