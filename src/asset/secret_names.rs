//! Which parameters of URLs hold secrets, told by their names.
//!
//! A name is taken apart into words, at what is no letter or digit and where
//! its case changes, and counts if one of these is a word for a secret: `token`
//! is one in `job_token`, `X-Auth-Token` and `idToken`, and `tokenizer`,
//! `author` and `design` are none.
//! Not for: where parameters stand (`scrub.rs`); headers (`key_headers.rs`).
//! Called by: `scrub.rs`; `config` (parsing), `cli` (declaring).

use std::str::FromStr;
use std::sync::OnceLock;

/// Whole words, whatever their case. The last ones are such as are written
/// together.
const WORDS: [&str; 26] = [
    "auth",
    "authorization",
    "credential",
    "credentials",
    "hdnea",
    "hdntl",
    "hdnts",
    "hmac",
    "jwt",
    "pass",
    "passwd",
    "password",
    "policy",
    "pwd",
    "sas",
    "secret",
    "sig",
    "signature",
    "token",
    "accesskey",
    "accesstoken",
    "apikey",
    "apitoken",
    "authtoken",
    "oauthtoken",
    "privatetoken",
];

/// Two words that follow each other.
const PAIRS: [[&str; 2]; 2] = [["api", "key"], ["access", "key"]];

/// What names of signed URLs begin with: of these, dates and scopes belong to
/// the signature too.
const PREFIXES: [&str; 3] = ["x-amz-", "x-goog-", "x-oss-"];

/// Whole names that hold none of the words.
const NAMES: [&str; 1] = ["key-pair-id"];

/// Those of the operator. One per process and set once, before anything is
/// taken in: a key must not depend on which part of the program made it.
static DECLARED: OnceLock<Box<[SecretParameter]>> = OnceLock::new();

/// A name that an operator declares to be one of a secret: `NAME`, or `NAME*`
/// for all that begin so, whatever their case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretParameter {
    name: String,
    begins: bool,
}

impl FromStr for SecretParameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, begins) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let plain = |b: u8| b.is_ascii_graphic() && !b"=&;?#%*+/".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            // Not echoed: `NAME=VALUE` would be one.
            return Err(
                "a name of a parameter is written without a value and as it is when decoded, as \
                 in `build_pin`, or `build_*` for all that begin so"
                    .to_owned(),
            );
        }
        let name = name.to_owned();
        Ok(Self { name, begins })
    }
}

impl SecretParameter {
    fn is(&self, name: &[u8]) -> bool {
        match self.begins {
            true => begins(name, &self.name),
            false => name.eq_ignore_ascii_case(self.name.as_bytes()),
        }
    }
}

/// Takes these for names of secrets too, for the rest of the process. A second
/// declaration is of no effect.
pub fn declare_secret_parameters(names: &[SecretParameter]) {
    let _ = DECLARED.set(names.into());
}

/// Whether a parameter of this name, decoded, holds a secret.
pub(super) fn is_secret(name: &[u8]) -> bool {
    has_secret_word(name)
        || PREFIXES.iter().any(|prefix| begins(name, prefix))
        || NAMES
            .iter()
            .any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
        || DECLARED
            .get()
            .is_some_and(|all| all.iter().any(|declared| declared.is(name)))
}

fn begins(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn has_secret_word(name: &[u8]) -> bool {
    let is = |text: &[u8], word: &str| text.eq_ignore_ascii_case(word.as_bytes());
    let secret = |text: &[u8]| WORDS.iter().any(|word| is(text, word));
    let mut before: &[u8] = b"";
    let letter = |b: &u8| b.is_ascii_alphanumeric() || !b.is_ascii();
    for chunk in name.split(|b| !letter(b)).filter(|c| !c.is_empty()) {
        if secret(chunk) {
            return true;
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            let (word, after) = rest.split_at(word_end(rest));
            let pair = |[a, b]: &[&str; 2]| is(before, a) && is(word, b);
            if secret(word) || PAIRS.iter().any(pair) {
                return true;
            }
            (before, rest) = (word, after);
        }
    }
    false
}

/// Where the case changes: `idToken`, and `AWSAccess` before its second word.
fn word_end(chunk: &[u8]) -> usize {
    let upper = |i: usize| chunk.get(i).is_some_and(u8::is_ascii_uppercase);
    let lower = |i: usize| chunk.get(i).is_some_and(u8::is_ascii_lowercase);
    let ends = |i: &usize| upper(*i) && (!upper(*i - 1) || lower(*i + 1));
    (1..chunk.len()).find(ends).unwrap_or(chunk.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_words_however_they_are_put_together() {
        for name in [
            "token",
            "job_token",
            "X-Auth-Token",
            "idToken",
            "refreshTOKEN",
            "OAuthToken",
            "sig",
            "q-signature",
            "Policy",
            "AWSAccessKeyId",
            "x-API-KEY",
            "APIKey",
            "APIkey",
            "api.key",
            "accessKey",
            "user[pass]",
            "x-amz-date",
            "X-Goog-Expires",
            "x-oss-expires",
            "key-pair-id",
            "authtoken",
            "sasToken",
            "--sas--",
            "hdnts",
        ] {
            assert!(is_secret(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "-",
            "author",
            "design",
            "keyword",
            "tokenizer",
            "authority",
            "passenger",
            "key",
            "api",
            "keyApi",
            "access",
            "accesskeys",
            "signal",
            "policyholder",
            "bypass",
            "x-amz",
            "expires",
            "v",
            "\u{fc}token",
        ] {
            assert!(!is_secret(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn declared_names_are_names_and_beginnings() {
        let parse = |text: &str| text.parse::<SecretParameter>();
        assert!(parse("build_pin").unwrap().is(b"Build_Pin"));
        assert!(!parse("build_pin").unwrap().is(b"build_pins"));
        assert!(parse("x-corp-*").unwrap().is(b"X-Corp-a"));
        for bad in ["", "*", "a b", "a=hunter2", "a*b", "a&b", "%61", "\u{fc}"] {
            assert!(!parse(bad).unwrap_err().contains("hunter2"), "{bad}");
        }
    }
}
