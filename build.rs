//! Compiles the vendored `.proto` files without `protoc` and keeps their
//! descriptor set for reflection and metric labels, and a table of message
//! shapes for what is judged before it is decoded.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

#[path = "build/shapes.rs"]
mod shapes;

const ROOT: &str = "proto";
const FILES: &[&str] = &[
    "assetgate/v1/asset_entry.proto",
    "build/bazel/remote/asset/v1/remote_asset.proto",
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "google/bytestream/bytestream.proto",
    "grpc/health/v1/health.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    println!("cargo:rerun-if-changed=build");
    let mut set = protox::compile(FILES, [ROOT])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    uris_are_bytes(&mut set);
    std::fs::write(out.join("shapes.rs"), shapes::write(&set)?)?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .codec_path("crate::proto::Codec")
        .compile_fds(set)?;
    Ok(())
}

/// Generates `bytes` for the `string` fields that hold URIs, which is the same
/// on the wire: clients are known to send URLs that are not UTF-8, and such a
/// URL is a mirror that cannot be fetched rather than a broken request.
fn uris_are_bytes(set: &mut prost_types::FileDescriptorSet) {
    let asset = set
        .file
        .iter_mut()
        .filter(|f| f.package() == "build.bazel.remote.asset.v1");
    let fields = asset
        .flat_map(|f| &mut f.message_type)
        .flat_map(|m| &mut m.field);
    for field in fields.filter(|f| matches!(f.name(), "uri" | "uris")) {
        field.set_type(prost_types::field_descriptor_proto::Type::Bytes);
    }
}
