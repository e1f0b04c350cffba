//! On whose behalf an upstream call is made: the caller's own metadata, so
//! that Assetgate never has more rights upstream than its caller (promise P5).
//!
//! Called by: `api` (building), the typed clients (attaching).

use std::hash::{Hash as _, Hasher};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use tonic::metadata::{KeyAndValueRef, MetadataMap, MetadataValue};

use crate::proto::rev2;

const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Shorter values are no secrets, and parts of any text.
const SHORTEST_SECRET: usize = 6;

/// RequestMetadata of our own calls. Without `correlated_invocations_id`:
/// Buildfarm reads flags from that field.
static OWN_METADATA: LazyLock<(HeaderName, HeaderValue)> = LazyLock::new(|| {
    let own = rev2::RequestMetadata {
        tool_details: Some(rev2::ToolDetails {
            tool_name: "assetgate".to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
        action_id: "assetgate".to_owned(),
        ..Default::default()
    };
    let mut metadata = MetadataMap::new();
    let value = MetadataValue::from_bytes(&own.encode_to_vec());
    metadata.insert_bin(REQUEST_METADATA, value);
    let header = metadata.into_headers().into_iter().next();
    // There is one: the line above.
    let (name, value) = header.unwrap_or((None, HeaderValue::from_static("")));
    let name = name.unwrap_or(HeaderName::from_static(REQUEST_METADATA));
    (name, value)
});

/// The caller's metadata as passed on in our own upstream calls. Holds
/// credentials: shown nowhere.
#[derive(Clone, Default)]
pub struct CallContext {
    metadata: MetadataMap,
}

impl CallContext {
    /// What is passed on of a caller's metadata: all but what describes the
    /// caller's own call (RequestMetadata, `te`, `grpc-*`, user agent, content
    /// type and length).
    #[must_use]
    pub fn from_caller(caller: &MetadataMap) -> Self {
        let mut metadata = MetadataMap::new();
        for entry in caller.iter() {
            match entry {
                KeyAndValueRef::Ascii(key, value) if is_passed_on(key.as_str()) => {
                    metadata.append(key.clone(), value.clone());
                }
                KeyAndValueRef::Binary(key, value) if is_passed_on(key.as_str()) => {
                    metadata.append_bin(key.clone(), value.clone());
                }
                _ => {}
            }
        }
        Self { metadata }
    }

    /// `text` without the values of the caller's metadata: a cache that
    /// refuses a credential may well quote it.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.secrets();
        let gone = |text: String, secret: &&str| text.replace(*secret, "…");
        secrets.iter().fold(text.to_owned(), gone)
    }

    /// Whether a value of the caller's metadata stands in `bytes`.
    #[must_use]
    pub fn is_quoted_in(&self, bytes: &[u8]) -> bool {
        let quoted = |s: &&str| bytes.windows(s.len()).any(|w| w == s.as_bytes());
        self.secrets().iter().any(quoted)
    }

    /// Feeds in everything by which the cache may tell one caller from another:
    /// all that is passed on, credentials included, but for what traces a
    /// single call. For keyed hashes that stay in memory, and nothing else.
    pub fn feed(&self, hasher: &mut impl Hasher) {
        let mut entries: Vec<(&str, &[u8])> = Vec::new();
        for entry in self.metadata.iter() {
            entries.push(match entry {
                KeyAndValueRef::Ascii(key, value) => (key.as_str(), value.as_bytes()),
                KeyAndValueRef::Binary(key, value) => (key.as_str(), value.as_encoded_bytes()),
            });
        }
        entries.retain(|(key, _)| !is_of_one_call(key));
        // Stable: repeated values keep their order, which may matter.
        entries.sort_by_key(|(key, _)| *key);
        entries.hash(hasher);
    }

    /// The values, and what follows a scheme in them; the longest first.
    fn secrets(&self) -> Vec<&str> {
        let mut secrets = Vec::new();
        for entry in self.metadata.iter() {
            if let KeyAndValueRef::Ascii(_, value) = entry
                && let Ok(value) = value.to_str()
            {
                secrets.extend([Some(value), value.split_whitespace().last()]);
            }
        }
        let mut secrets: Vec<&str> = secrets.into_iter().flatten().collect();
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    /// The metadata as headers of an upstream request, with whose call it is.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = self.metadata.clone().into_headers();
        headers.insert(&OWN_METADATA.0, OWN_METADATA.1.clone());
        headers
    }

    /// Attaches the metadata to an upstream request, and says whose call it is.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers());
        request
    }
}

impl std::fmt::Debug for CallContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallContext({} entries withheld)", self.metadata.len())
    }
}

fn is_passed_on(key: &str) -> bool {
    !(key == REQUEST_METADATA
        || key.starts_with("grpc-")
        || matches!(key, "te" | "user-agent" | "content-type" | "content-length"))
}

/// Whether an entry names one call, for tracing: another in every call of the
/// same caller, often added by a proxy on the way, and no credential.
fn is_of_one_call(key: &str) -> bool {
    key.starts_with("x-b3-")
        || matches!(
            key,
            "traceparent"
                | "tracestate"
                | "b3"
                | "x-request-id"
                | "x-cloud-trace-context"
                | "x-amzn-trace-id"
                | "uber-trace-id"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_pass_and_the_callers_own_call_does_not() {
        let mut caller = MetadataMap::new();
        for (key, value) in [
            ("authorization", "Bearer x"),
            ("x-buildbuddy-api-key", "k"),
            ("grpc-timeout", "1S"),
            ("user-agent", "bazel"),
            ("te", "trailers"),
        ] {
            caller.insert(key, value.parse().unwrap());
        }
        caller.insert_bin(
            REQUEST_METADATA,
            tonic::metadata::MetadataValue::from_bytes(b"the caller's"),
        );
        caller.insert_bin(
            "other-bin",
            tonic::metadata::MetadataValue::from_bytes(b"y"),
        );
        let context = CallContext::from_caller(&caller);
        let mut kept: Vec<_> = context
            .request(())
            .metadata()
            .clone()
            .into_headers()
            .keys()
            .cloned()
            .collect();
        kept.sort_by_key(ToString::to_string);
        assert_eq!(
            kept,
            [
                "authorization",
                REQUEST_METADATA,
                "other-bin",
                "x-buildbuddy-api-key"
            ]
        );
        assert!(!format!("{context:?}").contains("Bearer"));
    }

    #[test]
    fn callers_are_told_apart_and_calls_of_one_are_not() {
        let fed = |entries: &[(&'static str, &str)]| {
            let mut caller = MetadataMap::new();
            for (key, value) in entries {
                caller.append(*key, value.parse().unwrap());
            }
            let mut hasher = std::hash::DefaultHasher::new();
            CallContext::from_caller(&caller).feed(&mut hasher);
            hasher.finish()
        };
        let one = fed(&[("authorization", "Bearer a"), ("x-user", "u")]);
        assert_eq!(one, fed(&[("x-user", "u"), ("authorization", "Bearer a")]));
        for of_a_call in ["x-request-id", "traceparent", "grpc-timeout", "x-b3-spanid"] {
            let call = [
                (of_a_call, "1"),
                ("authorization", "Bearer a"),
                ("x-user", "u"),
            ];
            assert_eq!(one, fed(&call), "{of_a_call}");
        }
        for other in [
            &[("authorization", "Bearer b"), ("x-user", "u")][..],
            &[("authorization", "Bearer a"), ("x-user", "v")],
            &[("authorization", "Bearer a")],
            &[
                ("authorization", "Bearer a"),
                ("x-user", "u"),
                ("x-user", "u"),
            ],
            &[
                ("authorization", "Bearer a"),
                ("x-forwarded-client-cert", "u"),
            ],
        ] {
            assert_ne!(one, fed(other), "{other:?}");
        }
    }

    #[test]
    fn what_a_cache_quotes_of_credentials_is_taken_out() {
        let mut caller = MetadataMap::new();
        caller.insert("authorization", "Bearer s3cr3t-token".parse().unwrap());
        caller.insert("x-api-key", "key-of-mine".parse().unwrap());
        caller.insert("x-flag", "1".parse().unwrap());
        let context = CallContext::from_caller(&caller);
        let text = "bad Bearer s3cr3t-token, s3cr3t-token and key-of-mine after 1 try";
        assert_eq!(context.redact(text), "bad …, … and … after 1 try");
        assert!(context.is_quoted_in(text.as_bytes()));
        assert!(!context.is_quoted_in(b"after 1 try"));
        assert!(!context.is_quoted_in(b""));
    }

    #[test]
    fn our_own_calls_say_that_they_are_ours() {
        let request = CallContext::default().request(());
        let value = request.metadata().get_bin(REQUEST_METADATA).unwrap();
        let bytes = value.to_bytes().unwrap();
        let own = rev2::RequestMetadata::decode(bytes).unwrap();
        assert_eq!(own.tool_details.unwrap().tool_name, "assetgate");
        assert_eq!(own.correlated_invocations_id, "");
    }
}
