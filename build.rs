//! Compiles the vendored `.proto` files without `protoc` and keeps their
//! descriptor set for reflection and metric labels.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const ROOT: &str = "proto";
const FILES: &[&str] = &[
    "assetgate/v1/asset_entry.proto",
    "build/bazel/remote/asset/v1/remote_asset.proto",
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "google/bytestream/bytestream.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let set = protox::compile(FILES, [ROOT])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .codec_path("crate::proto::Codec")
        .compile_fds(set)?;
    Ok(())
}
