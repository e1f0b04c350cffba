//! What stands in signed URLs beside the signature and is another with each:
//! from when and until when it holds.
//!
//! Names that are secrets by themselves are not here: all of `X-Amz-`,
//! `X-Goog-` and `x-oss-` is left out with or without a signature.
//! Not for: which names these are (`secret_names.rs`).
//! Called by: `cuts.rs`.

/// A scheme: the parameter with the signature, which is a secret, and those
/// that go where it stands in the same query. Without it they say which content
/// is meant, and stay. What says that does in any case: versions, content types
/// to answer with (`rscd`, `response-content-type`).
struct Scheme {
    signature: &'static str,
    beside: &'static [&'static str],
}

/// Sources, as of 2026:
/// - Amazon S3 with Signature Version 2 (`AWSAccessKeyId`, `Expires`,
///   `Signature`): S3 User Guide, "Signing and authenticating REST requests";
///   Alibaba Cloud OSS V1 and Huawei OBS have taken it over
/// - Amazon CloudFront (`Expires`, `Signature`, `Key-Pair-Id`): Developer Guide,
///   "Create a signed URL using a canned policy"
/// - Google Cloud Storage V2 (`GoogleAccessId`, `Expires`, `Signature`):
///   "V2 signing process"; Cloud CDN (`Expires`, `KeyName`, `Signature`): "Use
///   signed URLs". The account that signed says nothing about the content
/// - Azure Storage (`st`, `se`; `skt`, `ske` of the key it was signed with;
///   `sig`): REST API, "Create a service SAS", "Create a user delegation SAS"
/// - Tencent Cloud COS (`q-sign-time`, `q-key-time`, `q-signature`): API
///   documentation, "Request signature"
const SCHEMES: [Scheme; 3] = [
    Scheme {
        signature: "signature",
        beside: &["expires", "googleaccessid"],
    },
    Scheme {
        signature: "sig",
        beside: &["st", "se", "skt", "ske"],
    },
    Scheme {
        signature: "q-signature",
        beside: &["q-sign-time", "q-key-time"],
    },
];

/// Schemes, a bit for each.
pub(super) type Schemes = u8;

/// Those in which this name, decoded, is that of the signature.
pub(super) fn signature_of(name: &[u8]) -> Schemes {
    which(|scheme| is(name, scheme.signature))
}

/// Those in which a parameter of this name goes with the signature.
pub(super) fn beside_signature_of(name: &[u8]) -> Schemes {
    which(|scheme| scheme.beside.iter().any(|other| is(name, other)))
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

fn which(is: impl Fn(&Scheme) -> bool) -> Schemes {
    let all = SCHEMES.iter().enumerate();
    all.filter(|(_, scheme)| is(scheme))
        .fold(0, |all, (bit, _)| all | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::super::secret_names::is_secret;
    use super::*;

    #[test]
    fn signatures_are_secrets_and_what_stands_beside_them_is_not() {
        for scheme in &SCHEMES {
            assert!(is_secret(scheme.signature.as_bytes()));
            assert_ne!(signature_of(scheme.signature.as_bytes()), 0);
            for name in scheme.beside {
                assert!(!is_secret(name.as_bytes()), "{name}");
                let of = beside_signature_of(name.to_ascii_uppercase().as_bytes());
                assert_eq!(of, signature_of(scheme.signature.as_bytes()), "{name}");
            }
        }
        assert_eq!(beside_signature_of(b"expire"), 0);
        assert_eq!(signature_of(b"token"), 0);
    }
}
