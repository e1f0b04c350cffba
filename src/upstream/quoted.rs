//! Secrets in what a cache says: a cache that refuses a credential may well
//! quote it, as it came or in some other form.
//!
//! Called by: `context.rs`, `credential.rs`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use tonic::metadata::{KeyAndValueRef, MetadataMap};

/// Shorter values are no secrets, and parts of any text.
const SHORTEST: usize = 6;

/// Words of one value that are looked for by themselves: a caller may send
/// thousands, and looking takes time.
const WORDS: usize = 4;

/// What must not be quoted of some metadata: the values, what follows a scheme
/// in them, and what `Basic` hides in Base64.
pub(super) fn secrets_of(metadata: &MetadataMap) -> Vec<String> {
    let mut secrets = Vec::new();
    for entry in metadata.iter() {
        match entry {
            KeyAndValueRef::Ascii(_, value) => of_text(value.to_str().unwrap_or(""), &mut secrets),
            KeyAndValueRef::Binary(_, value) => {
                let encoded = String::from_utf8_lossy(value.as_encoded_bytes());
                secrets.push(encoded.trim_end_matches('=').to_owned());
                let decoded = value.to_bytes().unwrap_or_default();
                secrets.extend(String::from_utf8(decoded.to_vec()));
            }
        }
    }
    secrets.retain(|secret| secret.len() >= SHORTEST);
    secrets.sort();
    secrets.dedup();
    secrets
}

fn of_text(value: &str, secrets: &mut Vec<String>) {
    secrets.push(value.to_owned());
    let mut words = value.split_whitespace();
    let scheme = words.next().unwrap_or_default();
    let last = value.split_whitespace().last();
    let basic = scheme.eq_ignore_ascii_case("basic");
    let pair = last.filter(|_| basic);
    secrets.extend(words.take(WORDS).chain(last).map(str::to_owned));
    let pair = pair.and_then(|pair| STANDARD.decode(pair).ok());
    if let Some(pair) = pair.and_then(|pair| String::from_utf8(pair).ok()) {
        let password = pair
            .split_once(':')
            .map(|(_, password)| password.to_owned());
        secrets.extend(password);
        secrets.push(pair);
    }
}

/// `text` without these secrets.
pub(super) fn redact<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> String {
    let forms = forms(secrets);
    let gone = |text: String, form: &String| text.replace(form.as_str(), "…");
    forms.iter().fold(text.to_owned(), gone)
}

/// Whether one of these secrets stands in `bytes`.
pub(super) fn is_quoted<'a>(bytes: &[u8], secrets: impl Iterator<Item = &'a str>) -> bool {
    let quoted = |form: &String| bytes.windows(form.len()).any(|w| w == form.as_bytes());
    forms(secrets).iter().any(quoted)
}

/// The secrets as they may be written, the longest first, so that none hides
/// a part of another.
fn forms<'a>(secrets: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut forms: Vec<String> = secrets
        .flat_map(|secret| {
            let hex = hex::encode(secret);
            [
                secret.to_owned(),
                percent_encoded(secret),
                STANDARD_NO_PAD.encode(secret),
                URL_SAFE_NO_PAD.encode(secret),
                hex.to_ascii_uppercase(),
                hex,
            ]
        })
        .collect();
    forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    forms.dedup();
    forms
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_every_form() {
        let mut metadata = MetadataMap::new();
        let basic = format!("Basic {}", STANDARD.encode("user:pass/word"));
        metadata.insert("authorization", basic.parse().unwrap());
        metadata.insert("x-key", "Token of mine+1".parse().unwrap());
        metadata.insert("x-flag", "1".parse().unwrap());
        let bytes = tonic::metadata::MetadataValue::from_bytes(b"binary-one");
        metadata.insert_bin("x-bin", bytes);
        let secrets = secrets_of(&metadata);
        let secrets = || secrets.iter().map(String::as_str);
        for quoted in [
            basic.clone(),
            "user:pass/word".to_owned(),
            "pass/word".to_owned(),
            "pass%2Fword".to_owned(),
            "mine+1".to_owned(),
            hex::encode("mine+1"),
            hex::encode_upper("mine+1"),
            STANDARD.encode("mine+1"),
            "binary-one".to_owned(),
            STANDARD.encode("binary-one"),
        ] {
            let text = format!("no <{quoted}> 1");
            assert!(is_quoted(text.as_bytes(), secrets()), "{quoted}");
            let shown = redact(&text, secrets());
            let rest = shown
                .strip_prefix("no <…")
                .unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(rest.trim_start_matches('='), "> 1", "{shown}");
        }
        assert!(!is_quoted(b"try 1 of Basic", secrets()));
        assert!(!is_quoted(b"", secrets()));
    }
}
