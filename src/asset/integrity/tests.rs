//! The grammar of `checksum.sri`, and which content satisfies it.

use super::*;
use proptest::prelude::*;

const ABC: &str = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
const OTHER: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

fn verify(value: &str, content: &[u8]) -> bool {
    let mut hasher = Integrity::parse(value).unwrap().hasher();
    hasher.update(content);
    hasher.finish().is_ok()
}

#[test]
fn any_one_match_satisfies() {
    assert!(verify(ABC, b"abc"));
    assert!(!verify(OTHER, b"abc"));
    for list in [
        format!("{OTHER} {ABC}"),
        format!("{ABC}\t{OTHER}"),
        format!("{OTHER}\n{ABC}"),
        format!("sha999-AAAA {ABC}"),
        format!("{ABC} sha999-AAAA"),
        format!("{ABC}?opt=1"),
        "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=".to_owned(),
        "SHA256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0".to_owned(),
        "sha256-ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0".to_owned(),
    ] {
        assert!(verify(&list, b"abc"), "{list}");
    }
}

#[test]
fn a_mistake_never_switches_verification_off() {
    for bad in [
        "",
        " \t",
        "sha256",
        "sha256-",
        "-AAAA",
        "sha256-!!!!",
        "sha256-AAAA",
        "md5-AAAA",
        "sha999-AAAA",
        "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
    ] {
        assert!(Integrity::parse(bad).is_err(), "{bad:?}");
    }
    for length in [31, 33] {
        let token = format!("sha256-{}", STANDARD.encode(vec![0; length]));
        assert!(Integrity::parse(&token).is_err());
        assert!(Integrity::parse(&format!("{ABC} {token}")).is_err());
    }
    assert_eq!(
        Integrity::parse(&format!("{ABC} ").repeat(33)),
        Err(IntegrityError::TooMany)
    );
}

#[test]
fn the_same_hash_twice_counts_once() {
    assert_eq!(
        Integrity::parse(&format!("{ABC} {ABC}"))
            .unwrap()
            .checksums()
            .len(),
        1
    );
    assert_eq!(Integrity::parse(ABC).unwrap().to_string(), ABC);
}

proptest! {
    #[test]
    fn never_panics(value in ".{0,200}") {
        let _ = Integrity::parse(&value);
    }

    #[test]
    fn shows_what_it_parsed(raw in proptest::collection::vec(any::<u8>(), 48)) {
        let value = Checksum::new(Algorithm::Sha384, &raw).unwrap().to_string();
        prop_assert_eq!(Integrity::parse(&value).unwrap().to_string(), value);
    }
}
