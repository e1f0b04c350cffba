//! Wire bytes under fuzzing: decoding never takes more than twice what was
//! told before, and nothing is refused that prost decodes.

#![allow(clippy::unwrap_used, reason = "a panic is how a finding is told")]

use bytes::{Buf as _, Bytes};
use prost::Message;

use super::{Excess, Limits, Shape, Shaped};
use crate::proto::{asset, assetgate, google, rev2};

/// Runs what it is given, and tells the most bytes that were allocated at a
/// time meanwhile.
pub type Measure = fn(&mut dyn FnMut()) -> u64;

/// Bytes beside the message: what an error says, and how the buffer is shared.
const SLACK: u64 = 2048;

const NO_LIMIT: Limits = Limits::bytes(u64::MAX);

type Judge = fn(&[u8], Option<Measure>);

const JUDGES: [Judge; 16] = [
    judge::<asset::FetchBlobRequest>,
    judge::<asset::PushDirectoryRequest>,
    judge::<asset::FetchDirectoryResponse>,
    judge::<rev2::UpdateActionResultRequest>,
    judge::<rev2::BatchUpdateBlobsRequest>,
    judge::<rev2::BatchReadBlobsResponse>,
    judge::<rev2::FindMissingBlobsRequest>,
    judge::<rev2::Tree>,
    judge::<rev2::GetTreeResponse>,
    judge::<rev2::Command>,
    // With a map.
    judge::<rev2::ExecuteResponse>,
    // With packed numbers.
    judge::<rev2::ServerCapabilities>,
    // With an `Any` in a choice.
    judge::<google::longrunning::Operation>,
    // A message within itself.
    judge::<google::api::HttpRule>,
    judge::<assetgate::v1::AssetEntry>,
    judge::<rev2::RequestMetadata>,
];

/// Messages as clients send them, and as attackers do.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let fetch = asset::FetchBlobRequest {
        uris: vec!["https://h.example/x".into(); 5],
        qualifiers: vec![asset::Qualifier::default(); 9],
        ..Default::default()
    };
    let update = rev2::UpdateActionResultRequest {
        action_result: Some(result()),
        ..Default::default()
    };
    let find = rev2::FindMissingBlobsRequest {
        blob_digests: vec![digest(); 17],
        ..Default::default()
    };
    let logs = (0..9).map(|i| (format!("log-{i}"), rev2::LogFile::default()));
    let execute = rev2::ExecuteResponse {
        result: Some(result()),
        server_logs: logs.collect(),
        ..Default::default()
    };
    let functions = rev2::CacheCapabilities {
        digest_functions: vec![1; 33],
        ..Default::default()
    };
    let capabilities = rev2::ServerCapabilities {
        cache_capabilities: Some(functions),
        ..Default::default()
    };
    vec![
        [&[0], &fetch.encode_to_vec()[..]].concat(),
        [&[3], &update.encode_to_vec()[..]].concat(),
        [&[4], &[0x12, 0].repeat(1000)[..]].concat(),
        [&[6], &find.encode_to_vec()[..]].concat(),
        [&[7], &[0x0a, 2, 0x0a, 0].repeat(500)[..]].concat(),
        [&[10], &execute.encode_to_vec()[..]].concat(),
        [&[11], &capabilities.encode_to_vec()[..]].concat(),
        [&[13], &nested(100)[..]].concat(),
        [&[13], &nested(101)[..]].concat(),
    ]
}

fn digest() -> rev2::Digest {
    rev2::Digest {
        hash: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned(),
        size_bytes: 3,
    }
}

fn result() -> rev2::ActionResult {
    let file = rev2::OutputFile {
        path: "bazel-out/k8/bin/x.o".to_owned(),
        digest: Some(digest()),
        ..Default::default()
    };
    rev2::ActionResult {
        output_files: vec![file; 9],
        ..Default::default()
    }
}

/// A message with so many levels below it.
fn nested(levels: usize) -> Vec<u8> {
    let rule = google::api::HttpRule::default();
    let rule = (0..levels).fold(rule, |rule, _| google::api::HttpRule {
        additional_bindings: vec![rule],
        ..Default::default()
    });
    rule.encode_to_vec()
}

/// One message, the first byte says of which type.
pub fn run(data: &[u8]) {
    any(data, None);
}

/// The same, with what decoding takes measured.
pub fn run_measured(data: &[u8], measure: Measure) {
    any(data, Some(measure));
}

fn any(data: &[u8], measure: Option<Measure>) {
    if let Some((first, wire)) = data.split_first() {
        JUDGES[usize::from(*first) % JUDGES.len()](wire, measure);
    }
}

fn judge<M: Message + Shaped + Default>(wire: &[u8], measure: Option<Measure>) {
    let shape = Shape::of::<M>();
    let told = shape.estimate(wire, NO_LIMIT);
    let (a, b) = wire.split_at(wire.len() / 2);
    let pieces = shape.estimate(a.chain(b), NO_LIMIT);
    // What is wrong first depends on whether an inner message is in one piece.
    let same = match (&told, &pieces) {
        (Err(Excess::Malformed { name, .. }), Err(Excess::Malformed { name: other, .. })) => {
            name == other
        }
        _ => told == pieces,
    };
    assert!(same, "in two pieces: {told:?}, {pieces:?}");
    let bytes = Bytes::copy_from_slice(wire);
    let mut decoded = None;
    let mut decode = || decoded = Some(M::decode(bytes.clone()));
    let took = match measure {
        Some(measure) => measure(&mut decode),
        None => {
            decode();
            0
        }
    };
    let decoded = decoded.unwrap();
    match told {
        Ok(told) => {
            let most = 2 * told.bytes + SLACK;
            let name = shape.name();
            assert!(took <= most, "{name}: {took} bytes, told {told:?}");
            assert!(shape.estimate(wire, Limits::bytes(told.bytes)).is_ok());
            assert!(!Shape::always_fits(wire.len(), told.bytes - 1));
            let less = shape.estimate(wire, Limits::bytes(told.bytes - 1));
            assert!(matches!(less, Err(Excess::Bytes { .. })), "{less:?}");
        }
        Err(excess) => assert!(decoded.is_err(), "{excess}"),
    }
}
