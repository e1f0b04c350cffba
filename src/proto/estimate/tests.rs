//! What holds of every message, and of some made to be expensive.

use bytes::{Buf as _, Bytes};
use prost::Message;

use super::{Excess, Label, Limits, MOST_PER_BYTE, Shape, Shaped};
use crate::proto::{asset, rev2};

const NO_LIMIT: Limits = Limits::bytes(u64::MAX);

fn estimate<M: Message + Shaped>(message: &M) -> u64 {
    let wire = message.encode_to_vec();
    let estimate = Shape::of::<M>().estimate(&*wire, NO_LIMIT).unwrap();
    // In pieces it is the same.
    for at in [1, wire.len() / 2] {
        let (a, b) = wire.split_at(at.min(wire.len()));
        let pieces = Shape::of::<M>().estimate(a.chain(b), NO_LIMIT);
        assert_eq!(pieces, Ok(estimate));
    }
    estimate.bytes
}

#[test]
fn every_message_and_method_has_a_shape() {
    let set = prost_types::FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = 0;
    for file in set.file.iter().filter(|f| f.package() != "google.protobuf") {
        for message in &file.message_type {
            let name = format!("{}.{}", file.package(), message.name());
            assert_eq!(Shape::named(&name).map(Shape::name), Some(&*name));
            for nested in &message.nested_type {
                assert!(Shape::named(&format!("{name}.{}", nested.name())).is_some());
            }
        }
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let shape = Shape::of_request(&path).unwrap();
                assert_eq!(format!(".{}", shape.name()), method.input_type());
                methods += 1;
            }
        }
    }
    assert!(methods > 20, "{methods}");
    assert!(Shape::named("google.protobuf.Any").is_some());
    assert!(Shape::named("none.Such").is_none() && Shape::of_request("/none").is_none());
}

#[test]
fn empty_elements_cost_their_struct() {
    let result = rev2::ActionResult {
        output_files: vec![rev2::OutputFile::default(); 1 << 16],
        ..Default::default()
    };
    let least = size_of::<rev2::OutputFile>() << 16;
    let bytes = estimate(&result) as usize;
    assert!(bytes >= least && bytes < least + 1024, "{bytes} {least}");
}

#[test]
fn small_messages_always_fit() {
    for shape in super::table::NAMED {
        assert!(shape.size <= 1024, "{}: {}", shape.name, shape.size);
        for field in shape.fields {
            let size = match field.label {
                Label::Repeated { size, .. } => size,
                // A quarter more for the buckets that stay empty.
                Label::Map { size, .. } => size + size / 4 + 8,
                Label::Single | Label::Boxed => 0,
            };
            // Four elements and what the allocation costs, for two bytes.
            let most = (4 * size as u64 + 32) / 2;
            assert!(
                most <= MOST_PER_BYTE,
                "{} {}: {most}",
                shape.name,
                field.number
            );
        }
    }
    assert!(Shape::always_fits(500, 1 << 20));
    assert!(!Shape::always_fits(512, 1 << 20));
}

#[test]
fn bytes_are_shared_and_texts_are_not() {
    let blob = |n| rev2::batch_update_blobs_request::Request {
        data: Bytes::from(vec![0; n]),
        ..Default::default()
    };
    assert!(estimate(&blob(1 << 20)) < 200);
    let text = asset::Qualifier {
        name: "n".repeat(1 << 20),
        value: String::new(),
    };
    assert!(estimate(&text) > 1 << 20);
}

#[test]
fn the_first_excess_ends_it() {
    // A directory of two million bytes of empty files: only a few are looked at.
    let wire: Vec<u8> = [0x0a, 0].repeat(1 << 20);
    let shape = Shape::of::<rev2::Directory>();
    let excess = shape.estimate(&*wire, Limits::bytes(1 << 20)).unwrap_err();
    assert_eq!(
        excess.to_string(),
        "the build.bazel.remote.execution.v2.Directory of 2097152 bytes would take more than \
         1048576 bytes of memory once decoded: send fewer parts in one message"
    );
}

#[test]
fn levels_end_where_those_of_prost_do() {
    // Three levels of messages within the message.
    let wire = rev2::Tree {
        root: Some(rev2::Directory {
            files: vec![rev2::FileNode {
                digest: Some(rev2::Digest::default()),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec();
    let at = |depth| {
        let limits = Limits {
            bytes: 1 << 20,
            depth,
        };
        Shape::of::<rev2::Tree>().estimate(&*wire, limits)
    };
    assert!(at(3).is_ok());
    let excess = at(2).unwrap_err();
    assert!(matches!(excess, Excess::Depth { limit: 2, .. }), "{excess}");
}

#[test]
fn what_is_no_message_is_told() {
    let wires: [&[u8]; 7] = [
        &[0x80],             // a key without end
        &[0x07],             // wire type 7
        &[0x0a, 0xff],       // a length without end
        &[0x0a, 5, 1],       // longer than the message
        &[0x0a, 2, 0x12, 9], // longer than the file
        &[0x08, 1],          // a file that is a number
        &[0x7b],             // an unknown group without end
    ];
    for wire in wires {
        let excess = Shape::of::<rev2::Directory>().estimate(wire, NO_LIMIT);
        assert!(
            matches!(excess, Err(Excess::Malformed { .. })),
            "{wire:?}: {excess:?}"
        );
        assert!(rev2::Directory::decode(wire).is_err(), "{wire:?}");
    }
    // Unknown fields, groups among them, are skipped.
    for wire in [&[0x7b, 0x08, 1, 0x7c][..], &[0x78, 1], &[0x7d, 1, 2, 3, 4]] {
        assert!(rev2::Directory::decode(wire).is_ok(), "{wire:?}");
        let estimate = Shape::of::<rev2::Directory>().estimate(wire, NO_LIMIT);
        assert!(estimate.is_ok(), "{wire:?}");
    }
}

#[test]
fn packed_numbers_count_as_elements() {
    let capabilities = rev2::CacheCapabilities {
        digest_functions: vec![1; 1000],
        ..Default::default()
    };
    let empty = estimate(&rev2::CacheCapabilities::default());
    let bytes = estimate(&capabilities) - empty;
    assert!((4000..5000).contains(&bytes), "{bytes}");
}

/// Bytes of memory behind a decoded value, as its capacities say.
trait Heap {
    fn heap(&self) -> usize;
}

impl Heap for String {
    fn heap(&self) -> usize {
        self.capacity()
    }
}

impl Heap for Bytes {
    fn heap(&self) -> usize {
        0
    }
}

impl<T: Heap> Heap for Vec<T> {
    fn heap(&self) -> usize {
        self.capacity() * size_of::<T>() + self.iter().map(T::heap).sum::<usize>()
    }
}

impl<T: Heap> Heap for Option<T> {
    fn heap(&self) -> usize {
        self.as_ref().map_or(0, T::heap)
    }
}

macro_rules! heap {
    ($($message:ty: $($field:ident)*;)*) => {$(
        impl Heap for $message {
            fn heap(&self) -> usize {
                0 $(+ self.$field.heap())*
            }
        }
    )*};
}

heap! {
    rev2::Digest: hash;
    rev2::FileNode: name digest;
    rev2::DirectoryNode: name digest;
    rev2::Directory: files directories;
    rev2::Tree: root children;
    rev2::OutputFile: path digest contents;
    rev2::ActionResult: output_files stdout_raw;
    rev2::UpdateActionResultRequest: instance_name action_digest action_result;
    rev2::batch_update_blobs_request::Request: digest data;
    rev2::BatchUpdateBlobsRequest: instance_name requests;
    asset::Qualifier: name value;
    asset::FetchBlobRequest: instance_name uris qualifiers;
}

/// What is told is no less than what there is, and no more than twice it.
fn fits<M: Message + Shaped + Default + Heap>(message: &M) {
    let wire = Bytes::from(message.encode_to_vec());
    let there = M::decode(wire.clone()).unwrap().heap() + size_of::<M>();
    let told = estimate(message) as usize;
    assert!(there <= told && told <= 2 * there, "{there} {told}");
    assert!(told < 6 * wire.len() + 1024, "{told} {}", wire.len());
}

#[test]
fn ordinary_messages_are_told_as_they_are() {
    let digest = || {
        Some(rev2::Digest {
            hash: "ab".repeat(32),
            size_bytes: 12_345,
        })
    };
    for n in [0, 1, 3, 5, 64, 100, 1000] {
        let directory = rev2::Directory {
            files: (0..n)
                .map(|i| rev2::FileNode {
                    name: format!("file-{i}.txt"),
                    digest: digest(),
                    ..Default::default()
                })
                .collect(),
            directories: (0..n / 10)
                .map(|i| rev2::DirectoryNode {
                    name: format!("directory-{i}"),
                    digest: digest(),
                })
                .collect(),
            ..Default::default()
        };
        fits(&rev2::Tree {
            children: vec![directory.clone(); n.min(9)],
            root: Some(directory),
        });
        let file = rev2::OutputFile {
            path: "bazel-out/k8-fastbuild/bin/package/target.o".to_owned(),
            digest: digest(),
            ..Default::default()
        };
        fits(&rev2::UpdateActionResultRequest {
            action_digest: digest(),
            action_result: Some(rev2::ActionResult {
                output_files: vec![file; n],
                stdout_raw: Bytes::from_static(b"done"),
                ..Default::default()
            }),
            ..Default::default()
        });
        let blob = rev2::batch_update_blobs_request::Request {
            digest: digest(),
            data: Bytes::from_static(&[1; 500]),
            ..Default::default()
        };
        fits(&rev2::BatchUpdateBlobsRequest {
            requests: vec![blob; n],
            ..Default::default()
        });
        let header = |i| asset::Qualifier {
            name: format!("http_header_url:{i}:Authorization"),
            value: "Bearer abcdefghijklmnopqrstuvwxyz".to_owned(),
        };
        fits(&asset::FetchBlobRequest {
            uris: vec!["https://mirror.example/a/b/c-1.2.3.tar.gz".into(); n],
            qualifiers: (0..n).map(header).collect(),
            ..Default::default()
        });
    }
}
