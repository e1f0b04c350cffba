//! How much one request may hold (conformance V6). Generous: Bazel sends one
//! header qualifier per mirror and header.

/// URIs.
pub(super) const URIS: usize = 64;
/// Bytes of a URI.
pub(super) const URI_BYTES: usize = 16 << 10;
/// Identity qualifiers.
pub(super) const IDENTITY: usize = 32;
/// Bytes of all identity qualifiers together, without the secrets in them.
pub(super) const IDENTITY_BYTES: usize = 16 << 10;
/// Bytes of them as they are sent.
pub(super) const IDENTITY_BYTES_SENT: usize = 64 << 10;
/// Header and credential qualifiers.
pub(super) const HEADERS: usize = 1024;
/// Bytes of all header and credential qualifiers together.
pub(super) const HEADER_BYTES: usize = 64 << 10;
/// Mistakes of one request that are told.
pub(super) const VIOLATIONS: usize = 64;

/// A request with more parts or bytes than this is not read on a listener's
/// thread, where it would keep others waiting.
pub(super) const AT_ONCE_PARTS: usize = 1000;
/// Bytes of URIs and qualifiers.
pub(super) const AT_ONCE_BYTES: usize = 16 << 10;
