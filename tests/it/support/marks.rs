//! Secrets that can be found again, whatever became of them on the way.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Stands in every secret meant for an origin.
pub const ORIGIN: &str = "hunter2swordfish";
/// Stands in every secret meant for the cache: the caller's metadata and the
/// service's credential.
pub const CACHE: &str = "correcthorsebattery";
/// Stands in the keys that sign references.
pub const SIGNING: &str = "zanzibarquetzalcoatl";
/// All of them. Whoever adds a kind of secret adds its mark.
pub const MARKS: [&str; 3] = [ORIGIN, CACHE, SIGNING];

/// Base64 of `mark` as it reads at one of the three places it may begin at.
fn base64(mark: &str, before: usize) -> [String; 2] {
    let padded = [&b"\0\0"[..before], mark.as_bytes()].concat();
    let from = [0, 2, 3][before];
    let partial = usize::from(!padded.len().is_multiple_of(3));
    [STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|engine| {
        let encoded = engine.encode(&padded);
        encoded[from..encoded.len() - partial].to_owned()
    })
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let hex = rest.get(1..3).and_then(|h| std::str::from_utf8(h).ok());
        let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
        match byte.filter(|_| first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &rest[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// Where a mark stands, as it is, in hexadecimal, Base64 or percent-encoded.
pub fn find(bytes: &[u8], mark: &str) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let lower = text.to_ascii_lowercase();
    let decoded = percent_decoded(&percent_decoded(bytes)).to_ascii_lowercase();
    let decoded = String::from_utf8_lossy(&decoded);
    let around = |text: &str, at: usize| {
        let (from, to) = (at.saturating_sub(200), (at + 100).min(text.len()));
        String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()
    };
    for (text, form) in [
        (&*lower, mark.to_owned()),
        (&*decoded, mark.to_owned()),
        (&*lower, hex::encode(mark)),
    ] {
        if let Some(at) = text.find(&form) {
            return Some(around(text, at));
        }
    }
    let encoded = (0..3).flat_map(|before| base64(mark, before));
    let mut found = encoded.filter_map(|form| text.find(&form));
    found.next().map(|at| around(&text, at))
}

#[track_caller]
pub fn assert_none(place: &str, bytes: &[u8], marks: &[&str]) {
    for mark in marks {
        if let Some(around) = find(bytes, mark) {
            panic!("{mark} in {place}: …{around}…");
        }
    }
}

/// Names and contents of all files below a directory.
pub fn files(directory: &Path) -> Vec<u8> {
    let mut heap = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        heap.extend_from_slice(format!("\n{}\n", path.display()).as_bytes());
        if path.is_dir() {
            heap.extend(files(&path));
        } else {
            heap.extend(std::fs::read(&path).unwrap_or_default());
        }
    }
    heap
}

#[test]
fn a_mark_is_found_in_every_form() {
    for mark in MARKS {
        for before in ["", "a", "ab", "abc"] {
            let text = format!("{before}{mark}-tail");
            for form in [
                text.clone(),
                text.to_uppercase(),
                hex::encode(&text),
                hex::encode_upper(&text),
                STANDARD_NO_PAD.encode(&text),
                URL_SAFE_NO_PAD.encode(&text),
                STANDARD_NO_PAD.encode(format!("{before}{mark}")),
                text.bytes().map(|b| format!("%{b:02X}")).collect(),
                text.bytes().map(|b| format!("%25{b:02x}")).collect(),
            ] {
                let heap = [b"\xff\0x ", form.as_bytes(), b" y\n"].concat();
                assert!(find(&heap, mark).is_some(), "{form}");
            }
        }
        assert!(find(&mark.as_bytes()[1..], mark).is_none());
    }
}
