//! Who calls, as far as the call says: RequestMetadata of REv2.
//!
//! Not for: rights. Nothing here is verified.

use tonic::metadata::MetadataMap;

use crate::proto;
use crate::proto::rev2::RequestMetadata;

const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Most memory that one may take; a head is smaller.
const MAX_DECODED: u64 = 1 << 20;

/// Longest value kept, for logs.
const KEPT: usize = 128;

/// The client's own description of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// Name of its tool.
    pub(super) tool: String,
    /// Version of its tool, as sent.
    pub(super) version: String,
    /// Its invocation.
    pub(super) invocation_id: String,
}

impl Caller {
    /// The caller of a request; empty where it does not say.
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        let bytes = metadata
            .get_bin(REQUEST_METADATA)
            .and_then(|value| value.to_bytes().ok());
        let message =
            bytes.and_then(|bytes| proto::decode::<RequestMetadata>(bytes, MAX_DECODED).ok());
        let message = message.unwrap_or_default();
        let tool = message.tool_details.unwrap_or_default();
        Self {
            tool: kept(&tool.tool_name),
            version: kept(&tool.tool_version),
            invocation_id: kept(&message.tool_invocation_id),
        }
    }

    /// Name and version as one word for logs.
    pub(super) fn label(&self) -> String {
        if self.version.is_empty() {
            self.tool.clone()
        } else {
            format!("{}/{}", self.tool, self.version)
        }
    }

    /// Whether it is a Bazel that ignores a failure inside an OK answer: one
    /// before 8.2, or one that does not say (4.2.3 does not).
    pub(super) fn is_bazel_before_8_2(&self) -> bool {
        self.tool.eq_ignore_ascii_case("bazel")
            && leading_version(&self.version).is_none_or(|version| version < (8, 2))
    }
}

/// Major and minor of `8.2.0rc1`, `9.0.0-pre.20250101.1` and the like.
fn leading_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit());
    let minor = minor[..digits.unwrap_or(minor.len())].parse().ok()?;
    Some((major, minor))
}

fn kept(text: &str) -> String {
    let clean = text.chars().filter(|c| !c.is_control());
    clean.take(KEPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bazel(version: &str) -> bool {
        Caller {
            tool: "bazel".into(),
            version: version.into(),
            invocation_id: String::new(),
        }
        .is_bazel_before_8_2()
    }

    #[test]
    fn versions() {
        for old in ["", "4.2.3", "8.1.1", "no_version", "8", "7.5.0rc1", "x.y"] {
            assert!(bazel(old), "{old}");
        }
        for new in [
            "8.2.0",
            "8.2.0rc1",
            "8.10.1",
            "9.0.0-pre.20250101.1",
            "10.0",
        ] {
            assert!(!bazel(new), "{new}");
        }
        assert!(!Caller::default().is_bazel_before_8_2());
    }

    #[test]
    fn garbage_is_nobody() {
        let mut metadata = MetadataMap::new();
        let value = tonic::metadata::MetadataValue::from_bytes(b"\xff\xff");
        metadata.insert_bin(REQUEST_METADATA, value);
        assert_eq!(Caller::of(&metadata), Caller::default());
    }
}
