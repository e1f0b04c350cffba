//! Names of methods as metric labels: those of the vendored descriptors and
//! `other`, so that no caller can make labels up.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::proto::{FILE_DESCRIPTOR_SET, grpc_type};

/// A method as metrics name it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) service: String,
    pub(super) name: String,
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub(super) kind: &'static str,
}

static OTHER: LazyLock<Method> = LazyLock::new(|| Method {
    service: "other".to_owned(),
    name: "other".to_owned(),
    kind: "unary",
});

static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let sets = [
        FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut methods = HashMap::new();
    for set in sets {
        // Built with the program and checked by the test below.
        let set = FileDescriptorSet::decode(set).unwrap_or_default();
        for file in set.file {
            for service in &file.service {
                let full = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    methods.insert(
                        format!("/{full}/{}", method.name()),
                        Method {
                            service: full.clone(),
                            name: method.name().to_owned(),
                            kind: grpc_type(method),
                        },
                    );
                }
            }
        }
    }
    methods
});

impl Method {
    /// The method of a request path.
    pub(super) fn of(path: &str) -> &'static Method {
        METHODS.get(path).unwrap_or_else(|| &OTHER)
    }

    /// The name, if it is a method of the asset services.
    pub(super) fn asset_rpc(&'static self) -> Option<&'static str> {
        self.service
            .starts_with("build.bazel.remote.asset.v1.")
            .then_some(self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_methods_and_other() {
        let fetch = Method::of("/build.bazel.remote.asset.v1.Fetch/FetchBlob");
        assert_eq!(fetch.asset_rpc(), Some("FetchBlob"));
        assert_eq!(
            Method::of("/grpc.health.v1.Health/Watch").kind,
            "server_stream"
        );
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(Method::of(reflection).kind, "bidi_stream");
        for path in ["/x.Y/z", "/build.bazel.remote.asset.v1.Fetch/Nope", ""] {
            assert_eq!(Method::of(path).name, "other");
        }
    }
}
