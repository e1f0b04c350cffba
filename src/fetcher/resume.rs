//! Going on with a body that was cut off: what is asked for, and whether what
//! comes is the rest (RFC 9110, 14).
//!
//! Not for: when that is worth a try (`download`).
//! Called by: `download`.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

/// How much older than the answer a `Last-Modified` has to be to tell one
/// version from the next (RFC 9110, 8.8.2.2).
const STRONG_AGE: Duration = Duration::from_secs(60);

/// What names exactly these bytes, if the head has it: a strong entity tag, or
/// a date that is old enough.
pub(super) fn strong_validator(head: &HeaderMap) -> Option<HeaderValue> {
    if let Some(tag) = head.get(header::ETAG) {
        let strong = tag.as_bytes().starts_with(b"\"");
        return strong.then(|| tag.clone());
    }
    let date = |name| httpdate::parse_http_date(head.get(name)?.to_str().ok()?).ok();
    let age = date(header::DATE)?
        .duration_since(date(header::LAST_MODIFIED)?)
        .ok()?;
    let modified = head.get(header::LAST_MODIFIED)?;
    (age >= STRONG_AGE).then(|| modified.clone())
}

/// Whether a 206 begins at this byte of a resource of this length, as far as
/// the length is known.
pub(super) fn is_the_rest(head: &HeaderMap, first: u64, total: Option<u64>) -> bool {
    let Some((start, end, whole)) = content_range(head) else {
        return false;
    };
    let fits = |whole: u64| end + 1 == whole && total.is_none_or(|total| total == whole);
    start == first && end >= start && whole.is_none_or(fits)
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
fn content_range(head: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let text = head.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, whole) = rest.trim().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let whole = match whole {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    let is_bytes = unit.eq_ignore_ascii_case("bytes");
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    (is_bytes && end < u64::MAX).then_some((start, end, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: http::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn what_tells_versions_apart() {
        let strong = |pairs: &[(&str, &str)]| {
            let value = strong_validator(&head(pairs))?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (old, now, just) = (
            "Sun, 06 Nov 1994 08:48:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:30 GMT",
        );
        assert_eq!(strong(&[("etag", "\"a\"")]).as_deref(), Some("\"a\""));
        assert_eq!(strong(&[("etag", "W/\"a\"")]), None);
        let weak_first = [("etag", "W/\"a\""), ("last-modified", old), ("date", now)];
        assert_eq!(strong(&weak_first), None, "the tag says it may differ");
        let dated = [("last-modified", old), ("date", now)];
        assert_eq!(strong(&dated).as_deref(), Some(old));
        assert_eq!(strong(&[("last-modified", just), ("date", now)]), None);
        assert_eq!(strong(&[("last-modified", old)]), None);
        assert_eq!(strong(&[]), None);
    }

    #[test]
    fn only_the_rest_is_the_rest() {
        let rest = |range: &str, first, total| {
            is_the_rest(&head(&[("content-range", range)]), first, total)
        };
        assert!(rest("bytes 5-9/10", 5, Some(10)));
        assert!(rest("bytes 5-9/10", 5, None));
        assert!(rest("bytes 5-9/*", 5, Some(10)));
        for other in [
            "bytes 4-9/10",
            "bytes 0-9/10",
            "bytes 5-8/10",
            "bytes 5-9/11",
            "bytes 5-10/11",
            "bytes 5-4/10",
            "items 5-9/10",
            "bytes */10",
            "bytes 5-18446744073709551615/*",
            "5-9/10",
            "",
        ] {
            assert!(!rest(other, 5, Some(10)), "{other}");
        }
        assert!(!is_the_rest(&HeaderMap::new(), 0, None));
    }
}
