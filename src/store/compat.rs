//! References that bb-remote-asset left in the same cache: the key it would
//! have used, and its entry as a reference. Read only, and pure.
//!
//! Its layout for one URI without a generated command. Whatever it keeps under
//! the Action of a download command (`resource_type` of a git repository or of
//! a byte stream) and under several URIs at once is not looked for.
//! Not for: our own format (`encoding.rs`), nor whether content is present.
//! Called by: `migrate.rs`.

use prost::Message as _;

use super::encoding::{read_digest, read_time};
use crate::asset::{AssetKind, AssetReference, Qualifiers, RESOURCE_TYPE, Source, Uri, Validators};
use crate::digest::{Digest, DigestFunction, Scope};
use crate::proto::{asset, rev2};

/// The one output of its Actions.
const OUTPUT: &str = "out";
/// The one file of its input root.
const INPUT: &str = "AssetReference";
/// Assets of these types have the Action of a command that downloads them.
const GENERATED: [&str; 2] = ["application/x-git", "application/octet-stream"];

/// Its message of what a reference is found by; in the input root only the
/// qualifiers are set, as the URIs are the command's arguments.
#[derive(Clone, PartialEq, prost::Message)]
struct Labels {
    #[prost(message, repeated, tag = "2")]
    qualifiers: Vec<asset::Qualifier>,
}

/// The Action digest under which it keeps this URI with these qualifiers, the
/// same for blobs and directories; `platform` is what its
/// `action_cache_platform` says. `None` if there can be no such entry, or if
/// the key would have to be made of a secret.
///
/// Of qualifiers it leaves out `http_header_url:*` and `bazel.auth_headers`,
/// and keeps `http_header:*` and `auth.*`. [`Qualifiers`] hold none of the
/// four, so what it keeps with one of the latter two is never found here.
#[expect(deprecated, reason = "it sets the platform of the Command as well")]
pub(super) fn bb_key(
    scope: &Scope,
    uri: &Uri,
    qualifiers: &Qualifiers,
    platform: &[(String, String)],
) -> Option<Digest> {
    let generated = qualifiers
        .get(RESOURCE_TYPE)
        .is_some_and(|t| GENERATED.contains(&t));
    if generated || has_secret(uri, qualifiers) {
        return None;
    }
    let function = scope.function;
    // Sorted by name, as there: names are unique here, so values do not count.
    let labels = Labels {
        qualifiers: qualifiers.iter().map(to_wire).collect(),
    };
    let input_root = rev2::Directory {
        files: vec![rev2::FileNode {
            name: INPUT.to_owned(),
            digest: Some(digest(function, &labels)?),
            ..Default::default()
        }],
        ..Default::default()
    };
    let platform = to_platform(platform);
    let command = rev2::Command {
        // Text there: a URI of other bytes cannot have been pushed.
        arguments: vec![uri.as_str()?.to_owned()],
        platform: platform.clone(),
        output_paths: vec![OUTPUT.to_owned()],
        output_directory_format: rev2::command::OutputDirectoryFormat::TreeAndDirectory as i32,
        ..Default::default()
    };
    let action = rev2::Action {
        command_digest: Some(digest(function, &command)?),
        input_root_digest: Some(digest(function, &input_root)?),
        platform,
        ..Default::default()
    };
    Digest::of(function, &action.encode_to_vec())
}

/// An entry found under [`bb_key`], as a reference of the kind asked for, and
/// the Tree of a directory. The error says why it is not used.
///
/// It says neither when it expires nor whether its content was pushed or
/// fetched: it counts as a claim somebody made, of which nothing is verified.
pub(super) fn bb_reference(
    kind: AssetKind,
    scope: &Scope,
    uri: &Uri,
    qualifiers: &Qualifiers,
    entry: &rev2::ActionResult,
) -> Result<(AssetReference, Option<Digest>), &'static str> {
    if has_secret(uri, qualifiers) {
        return Err("secret");
    }
    let (digest, tree) = read_output(kind, scope.function, entry)?;
    let metadata = entry.execution_metadata.as_ref().ok_or("time")?;
    let reference = AssetReference {
        kind,
        digest,
        uri: uri.redacted(),
        qualifiers: qualifiers.clone(),
        content_time: read_time(metadata.queued_timestamp.ok_or("time")?)?,
        expire_at: None,
        source: Source::Push,
        validators: Validators::default(),
        verified: Vec::new(),
        signed_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    };
    Ok((reference, tree))
}

/// The content of an entry that has one output and is otherwise as empty as
/// the ones it writes: nothing else is to be taken for an asset.
#[expect(deprecated, reason = "on the wire these fields are as good as any")]
fn read_output(
    kind: AssetKind,
    function: DigestFunction,
    entry: &rev2::ActionResult,
) -> Result<(Digest, Option<Digest>), &'static str> {
    let links = entry.output_symlinks.is_empty()
        && entry.output_file_symlinks.is_empty()
        && entry.output_directory_symlinks.is_empty();
    if entry.exit_code != 0 || !links {
        return Err("outputs");
    }
    match (&entry.output_files[..], &entry.output_directories[..]) {
        ([file], []) if file.path == OUTPUT => match kind {
            AssetKind::Blob => Ok((read_digest(function, file.digest.as_ref())?, None)),
            AssetKind::Directory => Err("kind"),
        },
        ([], [directory]) if directory.path == OUTPUT => {
            if kind != AssetKind::Directory {
                return Err("kind");
            }
            // Its older versions wrote a Tree alone, and do not read that either.
            let root = directory.root_directory_digest.as_ref();
            let root = read_digest(function, root)?;
            let tree = directory.tree_digest.as_ref();
            let tree = tree.map(|tree| read_digest(function, Some(tree)));
            Ok((root, tree.transpose()?))
        }
        _ => Err("outputs"),
    }
}

/// Secrets are taken out of our keys; its keys are made of what a request says.
fn has_secret(uri: &Uri, qualifiers: &Qualifiers) -> bool {
    uri.has_secret() || qualifiers.had_secret()
}

fn to_wire(qualifier: &crate::asset::Qualifier) -> asset::Qualifier {
    asset::Qualifier {
        name: qualifier.name.clone(),
        value: qualifier.value.clone(),
    }
}

/// In the order given: it takes its configuration's as it is.
fn to_platform(properties: &[(String, String)]) -> Option<rev2::Platform> {
    let properties = properties.iter().map(|(name, value)| {
        let (name, value) = (name.clone(), value.clone());
        rev2::platform::Property { name, value }
    });
    let properties: Vec<_> = properties.collect();
    (!properties.is_empty()).then_some(rev2::Platform { properties })
}

fn digest(function: DigestFunction, message: &impl prost::Message) -> Option<rev2::Digest> {
    Some(Digest::of(function, &message.encode_to_vec())?.to_wire())
}

#[cfg(test)]
mod tests;
