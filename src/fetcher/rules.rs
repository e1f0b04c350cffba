//! Small rules about requests and response heads.
//!
//! Called by: `download`, `mirrors`, `fetch`.

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::FetchRequest;
use crate::asset::{SecretValue, Uri, Validators};

/// Longest `ETag` or `Last-Modified` that is kept.
const MAX_VALIDATOR: usize = 1024;

/// The client's headers for one mirror.
pub(super) fn headers(request: &FetchRequest, index: usize) -> Vec<(HeaderName, SecretValue)> {
    let uri = request.uris.get(index).and_then(Uri::as_str);
    request.headers.for_uri(index, uri.unwrap_or(""))
}

/// Whether `resource_type` names a file, which is all that is fetched here:
/// a media type (qualifiers.md), but none of a repository.
pub(super) fn is_file_type(value: &str) -> bool {
    let repository = ["x-git", "x-hg", "x-mercurial", "x-svn", "x-subversion"];
    let essence = value.split(';').next().unwrap_or(value).trim();
    let token = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    essence.split_once('/').is_some_and(|(kind, name)| {
        let is_repository = repository.iter().any(|r| name.eq_ignore_ascii_case(r));
        token(kind) && token(name) && !is_repository
    })
}

/// Whether a status comes with content. Part of a resource is content only to
/// a client that asked for a part; a checksum then speaks of that part.
pub(super) fn usable(status: StatusCode, headers: &[(HeaderName, SecretValue)]) -> bool {
    let range = || headers.iter().any(|(name, _)| name == header::RANGE);
    status == StatusCode::OK || (status == StatusCode::PARTIAL_CONTENT && range())
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

pub(super) fn validators(headers: &HeaderMap) -> Validators {
    let text = |name| {
        let value: &str = headers.get(name)?.to_str().ok()?;
        (value.len() <= MAX_VALIDATOR).then(|| value.to_owned())
    };
    Validators {
        etag: text(header::ETAG),
        last_modified: text(header::LAST_MODIFIED),
    }
}
