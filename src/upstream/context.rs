//! On whose behalf an upstream call is made: the caller's own metadata, so
//! that Assetgate never has more rights upstream than its caller (promise P5);
//! or a credential of the service's own, where the operator gave it one.
//!
//! With such a credential nothing of the caller's metadata goes along, not
//! even under other names: a cache must not be shown two identities at once.
//! Not for: forwarded calls, which carry what the caller sent.
//! Called by: `api` (building), the typed clients (attaching).

use std::hash::{Hash as _, Hasher};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use tonic::metadata::{KeyAndValueRef, MetadataMap, MetadataValue};

use super::credential::{Credential, ServiceCredential};
use super::quoted::{Search, each_secret};
use crate::budget::Share;
use crate::proto::rev2;

const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

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

/// Who our own calls are made as. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Identity(Option<Arc<ServiceCredential>>);

impl Identity {
    /// The service itself, or, without a credential, whoever calls.
    #[must_use]
    pub fn new(credential: Option<Arc<ServiceCredential>>) -> Self {
        Self(credential)
    }

    /// For our own calls on behalf of a caller.
    #[must_use]
    pub fn context(&self, caller: MetadataMap) -> CallContext {
        CallContext {
            service: self.0.clone(),
            ..CallContext::of_caller(caller)
        }
    }

    /// For our own calls on nobody's behalf, if there is a credential for
    /// them.
    #[must_use]
    pub fn service(&self) -> Option<CallContext> {
        let service = Some(Arc::clone(self.0.as_ref()?));
        Some(CallContext {
            service,
            ..CallContext::default()
        })
    }
}

/// What our own upstream calls carry, and what must not be quoted in answers
/// to them. Holds credentials: shown nowhere.
#[derive(Clone, Default)]
pub struct CallContext {
    /// The caller's, of which there may be much. Sent only if the service has
    /// no credential.
    metadata: Arc<MetadataMap>,
    service: Option<Arc<ServiceCredential>>,
    /// The connection it came over.
    connection: Option<Share>,
}

impl CallContext {
    /// What is passed on of a caller's metadata: all but what describes the
    /// caller's own call (RequestMetadata, `te`, `grpc-*`, user agent, content
    /// type and length).
    #[must_use]
    pub fn from_caller(caller: &MetadataMap) -> Self {
        Self::of_caller(caller.clone())
    }

    /// The same. Of a caller who sends much, the rest is taken out of it: to put
    /// it all into another map takes longer than whatever else is done with it.
    fn of_caller(caller: MetadataMap) -> Self {
        let mut headers = caller.into_headers();
        let passed_on = |name: &&HeaderName| is_passed_on(name.as_str());
        let most = headers.keys_len() / 2;
        let metadata = if headers.keys().filter(passed_on).count() > most {
            let others = headers.keys().filter(|name| !passed_on(name));
            let others: Vec<HeaderName> = others.cloned().collect();
            others.iter().for_each(|name| drop(headers.remove(name)));
            headers
        } else {
            let mut passed = HeaderMap::new();
            for (name, value) in headers.iter().filter(|(name, _)| passed_on(name)) {
                passed.append(name.clone(), value.clone());
            }
            passed
        };
        Self {
            metadata: Arc::new(MetadataMap::from_headers(metadata)),
            ..Self::default()
        }
    }

    /// The same, on behalf of somebody at the other end of this connection.
    #[must_use]
    pub fn of_connection(self, connection: Option<Share>) -> Self {
        Self { connection, ..self }
    }

    /// The connection that the caller came over, if there is one.
    #[must_use]
    pub fn connection(&self) -> Option<&Share> {
        self.connection.as_ref()
    }

    /// For a client of its own: calls carry what the credential holds.
    #[must_use]
    pub fn of_credential(credential: &Credential) -> Self {
        Self {
            metadata: Arc::new(credential.metadata().clone()),
            ..Self::default()
        }
    }

    /// `text` without the values of the caller's metadata and of the service's
    /// credential: a cache that refuses a credential may well quote it.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.search(text.as_bytes()).redact()
    }

    /// Whether a value of the caller's metadata or of the service's credential
    /// stands in `bytes`.
    #[must_use]
    pub fn is_quoted_in(&self, bytes: &[u8]) -> bool {
        self.search(bytes).found()
    }

    /// Feeds in everything by which the cache may tell one caller from another:
    /// all that is passed on, credentials included, but for what traces a
    /// single call. For keyed hashes that stay in memory, and nothing else.
    pub fn feed(&self, hasher: &mut impl Hasher) {
        let mut entries: Vec<(&str, &[u8])> = Vec::new();
        let credential = self.service.as_ref().map(|service| service.current());
        let sent = credential
            .as_deref()
            .map_or(&*self.metadata, Credential::metadata);
        for entry in sent.iter() {
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

    fn search<'t>(&self, text: &'t [u8]) -> Search<'t> {
        let mut search = Search::new(text);
        each_secret(&self.metadata, |secret| search.secret(secret));
        if let Some(service) = &self.service {
            let credential = service.current();
            credential
                .secrets()
                .for_each(|secret| search.secret(secret));
        }
        search
    }

    /// The metadata as headers of an upstream request, with whose call it is.
    pub(super) fn headers(&self) -> HeaderMap {
        let metadata = match &self.service {
            // As it is now: a call may come long after its caller did.
            Some(service) => service.current().metadata().clone(),
            None => MetadataMap::clone(&self.metadata),
        };
        let mut headers = metadata.into_headers();
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
    fn the_services_credential_goes_in_place_of_all_the_caller_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "authorization: Bearer of-the-service").unwrap();
        let credential = ServiceCredential::from_file(file.path().to_owned()).unwrap();
        let identity = Identity::new(Some(credential));
        let mut caller = MetadataMap::new();
        caller.insert("authorization", "Bearer of-the-caller".parse().unwrap());
        caller.insert("x-other", "key-of-the-caller".parse().unwrap());
        let context = identity.context(caller);
        for sent in [context.request(()), identity.service().unwrap().request(())] {
            let sent = sent.metadata();
            assert_eq!(sent.get("authorization").unwrap(), "Bearer of-the-service");
            assert_eq!(sent.len(), 2, "and RequestMetadata: {sent:?}");
        }
        let text = "of-the-service, of-the-caller and key-of-the-caller";
        assert_eq!(context.redact(text), "…, … and …");
        assert!(context.is_quoted_in(b"of-the-service") && context.is_quoted_in(b"of-the-caller"));

        let fed = |context: &CallContext| {
            let mut hasher = std::hash::DefaultHasher::new();
            context.feed(&mut hasher);
            hasher.finish()
        };
        let before = fed(&context);
        let nobody = identity.service().unwrap();
        assert_eq!(before, fed(&nobody), "the cache sees one caller");

        std::fs::write(file.path(), "x-key: another-one").unwrap();
        assert!(identity.0.as_ref().unwrap().reload_if_changed());
        let sent = context.request(());
        assert_eq!(sent.metadata().get("x-key").unwrap(), "another-one");
        assert_eq!(sent.metadata().get("authorization"), None);
        assert_eq!(context.redact("of-the-service another-one"), "… …");
        assert_ne!(before, fed(&context));
        assert!(Identity::default().service().is_none());
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
