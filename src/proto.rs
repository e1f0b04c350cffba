//! Generated message and service types of the vendored definitions, their
//! descriptor set, what decoding takes, and the codec every generated service
//! uses.
//!
//! Not for: conversions into the domain (`api/convert.rs`, `digest.rs`).
//! Called by: whatever speaks the wire.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::all, clippy::too_many_lines)]
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags
)]

mod codec;
pub mod estimate;

pub use codec::{Codec, MAX_DECODED, MAX_NATIVE_MESSAGE, Undecodable, decode, walked};

/// Every vendored file as a serialized `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod assetgate {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/assetgate.v1.rs"));
    }
}

pub mod build {
    pub mod bazel {
        pub mod semver {
            include!(concat!(env!("OUT_DIR"), "/build.bazel.semver.rs"));
        }
        pub mod remote {
            pub mod asset {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/build.bazel.remote.asset.v1.rs"));
                }
            }
            pub mod execution {
                pub mod v2 {
                    include!(concat!(
                        env!("OUT_DIR"),
                        "/build.bazel.remote.execution.v2.rs"
                    ));
                }
            }
        }
    }
}

pub mod google {
    pub mod api {
        include!(concat!(env!("OUT_DIR"), "/google.api.rs"));
    }
    pub mod bytestream {
        include!(concat!(env!("OUT_DIR"), "/google.bytestream.rs"));
    }
    pub mod longrunning {
        include!(concat!(env!("OUT_DIR"), "/google.longrunning.rs"));
    }
}

pub mod grpc {
    pub mod health {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
        }
    }
}

/// Short names for the packages used everywhere.
pub use build::bazel::remote::asset::v1 as asset;
pub use build::bazel::remote::execution::v2 as rev2;
pub use google::bytestream;
pub use grpc::health::v1 as health;

/// The kind of a method, as the label `grpc_type` of metrics has it.
#[must_use]
pub fn grpc_type(method: &prost_types::MethodDescriptorProto) -> &'static str {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}
