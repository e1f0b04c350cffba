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
    each_secret(metadata, |secret| secrets.push(secret.to_owned()));
    secrets.sort();
    secrets.dedup();
    secrets
}

/// The same one by one, some more than once.
pub(super) fn each_secret(metadata: &MetadataMap, mut tell: impl FnMut(&str)) {
    let mut tell = |secret: &str| {
        if secret.len() >= SHORTEST {
            tell(secret);
        }
    };
    for entry in metadata.iter() {
        match entry {
            KeyAndValueRef::Ascii(_, value) => of_text(value.to_str().unwrap_or(""), &mut tell),
            KeyAndValueRef::Binary(_, value) => {
                let encoded = String::from_utf8_lossy(value.as_encoded_bytes());
                tell(encoded.trim_end_matches('='));
                let decoded = value.to_bytes().unwrap_or_default();
                tell(std::str::from_utf8(&decoded).unwrap_or(""));
            }
        }
    }
}

fn of_text(value: &str, tell: &mut impl FnMut(&str)) {
    tell(value);
    // What stands in a header is ASCII.
    let mut words = value.split_ascii_whitespace();
    let scheme = words.next().unwrap_or_default();
    let mut last = None;
    for word in words.by_ref().take(WORDS) {
        tell(word);
        last = Some(word);
    }
    if let Some(word) = words.next_back() {
        tell(word);
        last = Some(word);
    }
    if last.is_none() && scheme.len() < value.len() {
        tell(scheme);
    }
    let pair = last.filter(|_| scheme.eq_ignore_ascii_case("basic"));
    let pair = pair.and_then(|pair| STANDARD.decode(pair).ok());
    if let Some(pair) = pair.and_then(|pair| String::from_utf8(pair).ok()) {
        if let Some((_, password)) = pair.split_once(':') {
            tell(password);
        }
        tell(&pair);
    }
}

/// A look for secrets in a text. Of a caller's thousands most are told by
/// their first bytes alone not to stand in it, in whatever form: nothing is
/// made of these, and nobody searches for them.
pub(super) struct Search<'t> {
    text: &'t [u8],
    starts: Starts,
    /// What may stand in the text.
    forms: Vec<String>,
}

impl<'t> Search<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            starts: Starts::of(text),
            forms: Vec::new(),
        }
    }

    /// Looks for one more; it has at least [`SHORTEST`] bytes.
    pub(super) fn secret(&mut self, secret: &str) {
        let Some(first) = secret.as_bytes().first_chunk::<SHORTEST>() else {
            return;
        };
        let starts = &self.starts;
        let plain = starts.has(first);
        let percent = match first.iter().copied().all(is_plain) {
            true => plain,
            false => starts.has(&percent_start(first)),
        };
        let [base64, for_urls] = base64_starts(first);
        let [hex, upper] = hex_starts(first);
        let forms = &mut self.forms;
        if plain {
            forms.push(secret.to_owned());
        }
        if percent {
            forms.push(percent_encoded(secret));
        }
        if starts.has(&base64) {
            forms.push(STANDARD_NO_PAD.encode(secret));
        }
        if starts.has(&for_urls) {
            forms.push(URL_SAFE_NO_PAD.encode(secret));
        }
        if starts.has(&hex) {
            forms.push(hex::encode(secret));
        }
        if starts.has(&upper) {
            forms.push(hex::encode_upper(secret));
        }
    }

    /// The text without them. The longest go first, so that none hides a part
    /// of another.
    pub(super) fn redact(mut self) -> String {
        self.forms
            .sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.forms.dedup();
        let text = String::from_utf8_lossy(self.text).into_owned();
        let gone = |text: String, form: &String| text.replace(form.as_str(), "…");
        self.forms.iter().fold(text, gone)
    }

    /// Whether one of them stands in it.
    pub(super) fn found(&self) -> bool {
        let text = self.text;
        let quoted = |form: &String| text.windows(form.len()).any(|w| w == form.as_bytes());
        self.forms.iter().any(quoted)
    }
}

/// Which six bytes stand in a text one after another, as a set that also has a
/// few others.
struct Starts(Box<[u64; 1024]>);

impl Starts {
    fn of(text: &[u8]) -> Self {
        let mut set = Box::new([0; 1024]);
        for start in text.array_windows::<SHORTEST>() {
            let (word, bit) = Self::place(start);
            set[word] |= bit;
        }
        Self(set)
    }

    fn has(&self, start: &[u8; SHORTEST]) -> bool {
        let (word, bit) = Self::place(start);
        self.0[word] & bit != 0
    }

    /// Where six bytes stand in the set: in one of 65,536 places.
    fn place(start: &[u8; SHORTEST]) -> (usize, u64) {
        let [a, b, c, d, e, f] = *start;
        let number = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        ((place / 64) as usize, 1 << (place % 64))
    }
}

/// What a text that begins so begins with in Base64, as it is and for URLs.
fn base64_starts(first: &[u8; SHORTEST]) -> [[u8; SHORTEST]; 2] {
    const ALPHABETS: [&[u8; 64]; 2] = [
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    ];
    let [a, b, c, d, e, f] = *first;
    let bits = u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
    ALPHABETS.map(|digits| std::array::from_fn(|n| digits[(bits >> (58 - 6 * n) & 63) as usize]))
}

/// The same in hexadecimal digits, small and large.
fn hex_starts(first: &[u8; SHORTEST]) -> [[u8; SHORTEST]; 2] {
    let digit = |digits: &[u8; 16], n: usize| {
        let byte = first[n / 2];
        digits[usize::from(if n.is_multiple_of(2) {
            byte >> 4
        } else {
            byte & 15
        })]
    };
    [b"0123456789abcdef", HEX].map(|digits| std::array::from_fn(|n| digit(digits, n)))
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// What a text that begins so begins with, once it is percent-encoded.
fn percent_start(first: &[u8; SHORTEST]) -> [u8; SHORTEST] {
    let mut out = [0; SHORTEST];
    let written = first.iter().flat_map(|byte| {
        let plain = is_plain(*byte);
        let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
        let bytes = if plain {
            [*byte, 0, 0]
        } else {
            [b'%', high, low]
        };
        bytes.into_iter().take(if plain { 1 } else { 3 })
    });
    for (to, byte) in out.iter_mut().zip(written) {
        *to = byte;
    }
    out
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~')
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
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
        metadata.insert("x-padded", " padded-one ".parse().unwrap());
        metadata.insert("x-many", "a b c d e f the-last".parse().unwrap());
        let bytes = tonic::metadata::MetadataValue::from_bytes(b"binary-one");
        metadata.insert_bin("x-bin", bytes);
        let search = |text: &str| {
            let text = text.to_owned().leak();
            let mut search = Search::new(text.as_bytes());
            each_secret(&metadata, |secret| search.secret(secret));
            search
        };
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
            "padded-one".to_owned(),
            "the-last".to_owned(),
            STANDARD.encode("binary-one"),
        ] {
            let text = format!("no <{quoted}> 1");
            assert!(search(&text).found(), "{quoted}");
            let shown = search(&text).redact();
            let rest = shown
                .strip_prefix("no <…")
                .unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(rest.trim_start_matches('='), "> 1", "{shown}");
        }
        assert!(!search("try 1 of Basic").found());
        assert!(!search("").found());
        assert_eq!(search("try 1 of Basic").redact(), "try 1 of Basic");
    }

    #[test]
    fn what_a_form_begins_with_is_told_from_what_the_secret_begins_with() {
        for n in 0..2000u64 {
            let secret: String = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63)
                .to_le_bytes()
                .map(|byte| char::from(byte % 95 + 32))
                .iter()
                .collect();
            let first = secret.as_bytes().first_chunk().unwrap();
            let [base64, for_urls] = base64_starts(first);
            let [hex, upper] = hex_starts(first);
            for (start, form) in [
                (percent_start(first), percent_encoded(&secret)),
                (base64, STANDARD_NO_PAD.encode(&secret)),
                (for_urls, URL_SAFE_NO_PAD.encode(&secret)),
                (hex, hex::encode(&secret)),
                (upper, hex::encode_upper(&secret)),
            ] {
                assert_eq!(start, form.as_bytes()[..SHORTEST], "{form} of {secret:?}");
            }
        }
    }

    #[test]
    fn what_does_not_begin_as_a_part_of_the_text_is_not_searched_for() {
        let mut metadata = MetadataMap::new();
        for i in 0..900u32 {
            let name = format!("x-{i}").parse::<tonic::metadata::AsciiMetadataKey>();
            let value = hex::encode(i.wrapping_mul(0x9e37_79b1).to_le_bytes());
            metadata.insert(name.unwrap(), value.parse().unwrap());
        }
        // As long as texts are, and longer.
        let text = "the cache said so, and the origin said something else. ".repeat(30);
        let mut search = Search::new(text.as_bytes());
        let mut secrets = 0;
        each_secret(&metadata, |secret| {
            search.secret(secret);
            secrets += 1;
        });
        assert!(secrets >= 900, "{secrets}");
        // Searching for all would be six forms each.
        assert!(search.forms.len() < 60, "{}", search.forms.len());
    }
}
