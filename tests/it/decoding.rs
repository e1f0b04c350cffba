//! No message is decoded before it was seen how much memory that takes.

use std::path::{Path, PathBuf};

/// Where a message is decoded without a look at it, and why it may be.
const ALLOWED: [(&str, &str); 5] = [
    // Our own descriptors.
    ("forward/methods.rs", "FileDescriptorSet::decode("),
    ("middleware/methods.rs", "FileDescriptorSet::decode("),
    // Of a response's head, whose size is bounded; not a type of ours.
    ("api/status.rs", "tonic_types::Status::decode("),
    // Two numbers, whatever stands there.
    ("embedded/action.rs", "NodeDigest::decode("),
    ("digest.rs", "hex::decode("),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Whether it is compiled for tests only.
fn is_of_tests(path: &str) -> bool {
    let parts = ["tests", "fuzz", "double", "hostile", "model"];
    let mut names = path.split('/').map(|part| part.trim_end_matches(".rs"));
    names.any(|name| parts.contains(&name))
}

#[test]
fn messages_are_walked_before_they_are_decoded() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        if is_of_tests(path) || path.starts_with("proto/") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let decodes = ["::decode(", "::decode_length_delimited(", "::merge("];
            let ours = line.contains("proto::decode(") || line.contains("tree::decode(");
            if !ours && decodes.iter().any(|d| line.contains(d)) {
                found.push((path.to_owned(), number + 1, line.trim().to_owned()));
            }
        }
    }
    found.retain(|(path, _, line)| {
        let allowed = |(file, text): &(&str, &str)| path == file && line.contains(text);
        !ALLOWED.iter().any(allowed)
    });
    assert!(found.is_empty(), "use proto::decode: {found:#?}");
}
