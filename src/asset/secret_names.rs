//! Which parameters of URLs hold secrets, told by their names.
//!
//! A name is taken apart into words, at what is no letter or digit and where
//! its case changes, and counts if one of these is a word for a secret: `token`
//! is one in `job_token`, `X-Auth-Token` and `idToken`, and `tokenizer`,
//! `author` and `design` are none. Words that are written together are known by
//! lists: of `clientsecret` both halves, so that `bypass` is none.
//! Not for: where parameters stand (`scrub.rs`); headers (`key_headers.rs`).
//! Called by: `scrub.rs`; `config` (parsing), `cli` (declaring).

use std::str::FromStr;
use std::sync::OnceLock;

/// Whole words, whatever their case. A number may follow (`token2`), and an `s`
/// (`tokens`).
const WORDS: [&str; 38] = [
    "auth",
    "authorization",
    "bearer",
    "cred",
    "credential",
    "hdnea",
    "hdntl",
    "hdnts",
    "hmac",
    "jwt",
    "oauth",
    "pass",
    "passcode",
    "passkey",
    "passphrase",
    "passwd",
    "password",
    "policy",
    "pwd",
    "sas",
    "secret",
    "sig",
    "signature",
    "token",
    // Written together, and not one of `OWNERS` with one of `SECRETS`.
    "authcode",
    "authkey",
    "hmackey",
    "jsessionid",
    "passwordhash",
    "phpsessid",
    "samlresponse",
    "secretaccesskey",
    "secretid",
    "secretkey",
    "sessionid",
    "tokenid",
    "tokenkey",
    "tokensecret",
];

/// What a secret is said to be of or for, where the words of a name are written
/// together: `clientsecret`, `idtoken`, `oauth2token`.
const OWNERS: [&str; 53] = [
    "access",
    "account",
    "admin",
    "api",
    "app",
    "auth",
    "authentication",
    "authorization",
    "aws",
    "basic",
    "bearer",
    "bot",
    "client",
    "consumer",
    "csrf",
    "db",
    "deploy",
    "device",
    "download",
    "encryption",
    "git",
    "github",
    "gitlab",
    "http",
    "id",
    "identity",
    "job",
    "jwt",
    "login",
    "master",
    "my",
    "new",
    "oauth",
    "old",
    "personal",
    "private",
    "proxy",
    "read",
    "refresh",
    "registry",
    "repo",
    "request",
    "sas",
    "security",
    "service",
    "session",
    "shared",
    "upload",
    "url",
    "user",
    "web",
    "webhook",
    "xsrf",
];

/// What they own, of which there may be several too.
const SECRETS: [&str; 12] = [
    "auth",
    "cred",
    "credential",
    "jwt",
    "pass",
    "passwd",
    "password",
    "pwd",
    "secret",
    "sig",
    "signature",
    "token",
];

/// Whose `key` is one, written as two words or together. Other keys are names
/// of things, as are several of these (`accesskeys`).
const KEYS: [&str; 13] = [
    "access",
    "account",
    "api",
    "app",
    "decryption",
    "encryption",
    "license",
    "master",
    "private",
    "session",
    "shared",
    "signing",
    "subscription",
];

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

fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

fn has_secret_word(name: &[u8]) -> bool {
    let mut before: &[u8] = b"";
    let letter = |b: &u8| b.is_ascii_alphanumeric() || !b.is_ascii();
    for chunk in name.split(|b| !letter(b)).filter(|c| !c.is_empty()) {
        if is_secret_word(chunk) {
            return true;
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            let (word, after) = rest.split_at(word_end(rest));
            let key = is(without_number(word), "key") && KEYS.iter().any(|of| is(before, of));
            if key || is_secret_word(word) {
                return true;
            }
            (before, rest) = (word, after);
        }
    }
    false
}

/// Names that mean nothing else even in a path, where `policy=a` and `auth=none`
/// are parts of names of files.
const PLAINLY: [&str; 14] = [
    "access_token",
    "auth_token",
    "hdnea",
    "hdntl",
    "hdnts",
    "hmac",
    "job_token",
    "jwt",
    "password",
    "private_token",
    "secret",
    "sig",
    "signature",
    "token",
];

/// Whether a name is one of a secret and of nothing else.
pub(super) fn is_plainly_secret(name: &[u8]) -> bool {
    PLAINLY.iter().any(|known| is(name, known))
}

/// No word for a secret is shorter or longer.
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=40;

fn is_secret_word(word: &[u8]) -> bool {
    let word = without_number(word);
    if !LENGTHS.contains(&word.len()) {
        return false;
    }
    let one = match word {
        [one @ .., b's' | b'S'] => one,
        one => one,
    };
    let owned = |text: &[u8], owners: &[&str], what: &str| {
        let owner = text.len().checked_sub(what.len());
        owner.is_some_and(|at| {
            let (owner, end) = text.split_at(at);
            let owner = without_number(owner);
            is(end, what) && owners.iter().any(|known| is(owner, known))
        })
    };
    [word, one].iter().any(|text| {
        WORDS.iter().any(|known| is(text, known))
            || SECRETS.iter().any(|what| owned(text, &OWNERS, what))
    }) || owned(word, &KEYS, "key")
}

fn without_number(word: &[u8]) -> &[u8] {
    let digits = word.iter().rev().take_while(|b| b.is_ascii_digit());
    &word[..word.len() - digits.count()]
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

    const SECRET: &[&str] = &[
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
        "tokens",
        "SECRETS2",
        "token2",
        "Signature1",
        "sig_2",
        "credentials",
        "creds",
        "apiKey2",
        "clientsecret",
        "clientSecrets",
        "sessiontoken",
        "bearertoken",
        "refreshtoken",
        "idtoken",
        "securitytoken",
        "accesstokens",
        "oauthtoken",
        "oauth2token",
        "privatetoken",
        "authcode",
        "passphrase",
        "private_key",
        "privateKey",
        "privatekey",
        "apisecret",
        "secretkey",
        "secretAccessKey",
        "aws_secretaccesskey",
        "licensekey",
        "license-key",
        "userpass",
        "dbpwd2",
        "httpauth",
        "phpsessid",
        "awscredentials",
    ];

    const PLAIN: &[&str] = &[
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
        "secretary",
        "compass",
        "passive",
        "passenger",
        "trespass",
        "encompass",
        "passage",
        "tokenize",
        "signals",
        "authors",
        "authuser",
        "designs",
        "keywords",
        "keys",
        "publickey",
        "public_key",
        "storage_key",
        "primaryKey",
        "monkey",
        "turnkey",
        "apikeyboard",
        "id",
        "ids",
        "session",
        "user",
        "code",
        "otp",
        "sha256",
        "12",
        "s",
    ];

    #[test]
    fn words_are_whole_words_however_they_are_put_together() {
        for name in SECRET {
            assert!(is_secret(name.as_bytes()), "{name}");
        }
        for name in PLAIN {
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
