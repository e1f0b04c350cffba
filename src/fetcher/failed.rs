//! Why one mirror failed, and how the failures of all become one error.
//!
//! Not for: which gRPC code that is (`api::status`).
//! Called by: everything in `fetcher` that talks to an origin.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::connector::ConnectError;
use super::{Failure, FetchError};
use crate::asset::Uri;

/// Longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Longest message; it has to fit into a header of the answer.
const MAX_MESSAGE: usize = 2048;

/// Why one mirror failed. Cloneable, as several requests may share one.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// For people, without the URL and without secrets.
    pub(super) text: String,
    /// For the log besides: addresses, which are nothing to callers.
    pub(super) detail: Option<String>,
    /// The last URL, redacted, if redirects led away from the first.
    pub(super) redirected_to: Option<String>,
    /// The same request will fail the same way, whatever its class.
    pub(super) lasting: bool,
}

impl Failed {
    pub(super) fn new(failure: Failure, text: impl Into<String>) -> Self {
        Self {
            failure,
            text: text.into(),
            detail: None,
            redirected_to: None,
            lasting: false,
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        use Failure::{TooManyRequests, Truncated, Unavailable};
        let passing = matches!(
            self.failure,
            Unavailable { .. } | TooManyRequests { .. } | Truncated
        );
        passing && !self.lasting
    }

    /// The last of so many failures in a row.
    pub(super) fn after(mut self, tries: u32) -> Self {
        if tries > 1 {
            self.text.push_str(&format!(" (the last of {tries} tries)"));
        }
        self
    }

    /// How long the origin wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.failure {
            Failure::Unavailable { retry_after } | Failure::TooManyRequests { retry_after } => {
                retry_after
            }
            _ => None,
        }
    }

    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(Failure::Unavailable { retry_after: None }, text)
    }

    /// The failure that an answer other than a usable one means. Its text is
    /// the code and its standard phrase: what else an origin writes is not to
    /// be trusted with people's terminals.
    pub(super) fn status(status: StatusCode, headers: &HeaderMap) -> Self {
        let retry_after = retry_after(headers, SystemTime::now());
        let failure = match status.as_u16() {
            404 | 410 => Failure::NotFound,
            401 | 403 => Failure::Refused,
            429 => Failure::TooManyRequests { retry_after },
            408 | 500..=599 => Failure::Unavailable { retry_after },
            _ => Failure::Unusable,
        };
        let phrase = status.canonical_reason().unwrap_or("");
        Self::new(failure, format!("{} {phrase}", status.as_u16()).trim_end())
    }

    /// The failure of a request that got no answer.
    pub(super) fn request(error: &(dyn StdError + 'static)) -> Self {
        let connect = find::<ConnectError>(error);
        Self {
            detail: connect.and_then(ConnectError::detail),
            ..Self::unanswered(error, connect)
        }
    }

    fn unanswered(error: &(dyn StdError + 'static), connect: Option<&ConnectError>) -> Self {
        match connect {
            Some(refused @ ConnectError::Disallowed { .. }) => {
                Self::new(Failure::Disallowed, refused.to_string())
            }
            Some(refused @ ConnectError::Certificate(..)) => Self {
                lasting: true,
                ..Self::unavailable(refused.to_string())
            },
            Some(refused @ ConnectError::ProxyCredential(_)) => {
                Self::new(Failure::Refused, refused.to_string())
            }
            // What the proxy says of the way to the origin. Its 404 and 410 do
            // not say that there is no such content.
            Some(refused @ ConnectError::ProxyRefused { status, .. }) => {
                let failure = match Self::status(*status, &HeaderMap::new()).failure {
                    Failure::NotFound => Failure::Unusable,
                    other => other,
                };
                Self::new(failure, refused.to_string())
            }
            Some(other) => Self::unavailable(other.to_string()),
            None => Self::unavailable(format!("no usable answer: {}", root(error))),
        }
    }

    /// The failure of a body that broke off.
    pub(super) fn body(error: &hyper::Error, received: u64, announced: Option<u64>) -> Self {
        let of = announced.map_or(String::new(), |n| format!(" of {n}"));
        let text = format!("cut off after {received}{of} bytes");
        let io = find::<std::io::Error>(error).map(std::io::Error::kind);
        let ended = io == Some(std::io::ErrorKind::UnexpectedEof);
        if ended || error.is_incomplete_message() {
            Self::new(Failure::Truncated, text)
        } else {
            Self::unavailable(format!("{text}: {}", root(error)))
        }
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// The innermost cause as one short line.
pub(super) fn root(error: &(dyn StdError + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    let text = current.to_string();
    let clean = text.chars().filter(|c| !c.is_control());
    clean.take(200).collect()
}

pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        at.duration_since(now).unwrap_or_default()
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

/// The failures of the mirrors tried so far.
pub(super) struct Failures<'a> {
    uris: &'a [Uri],
    all: Vec<(usize, Failed)>,
}

impl<'a> Failures<'a> {
    pub(super) fn new(uris: &'a [Uri]) -> Self {
        let all = Vec::new();
        Self { uris, all }
    }

    pub(super) fn add(&mut self, index: usize, failed: Failed) {
        self.all.push((index, failed));
    }

    /// One error of all failures: the gravest class, of the first mirror that
    /// has it, and a line that names every attempt.
    pub(super) fn into_error(self, attempts: u32) -> FetchError {
        let mut gravest: Option<&(usize, Failed)> = None;
        for one in &self.all {
            if gravest.is_none_or(|g| one.1.failure > g.1.failure) {
                gravest = Some(one);
            }
        }
        let Some((uri_index, failed)) = gravest else {
            return FetchError::Internal("there is no URI to fetch".to_owned());
        };
        FetchError::Origin {
            failure: failed.failure.clone(),
            uri_index: *uri_index,
            message: self.message(*uri_index),
            detail: self.detail(),
            attempts,
        }
    }

    fn detail(&self) -> Option<String> {
        let mut all: Vec<&str> = self
            .all
            .iter()
            .filter_map(|(_, f)| f.detail.as_deref())
            .collect();
        all.dedup();
        let mut all = all.join("; ");
        all.truncate(all.floor_char_boundary(MAX_MESSAGE));
        (!all.is_empty()).then_some(all)
    }

    /// The gravest failure comes first only if not all of them fit.
    fn message(&self, gravest: usize) -> String {
        let lines: Vec<String> = self.all.iter().map(|(i, f)| self.line(*i, f)).collect();
        let whole = lines.join("; ");
        if whole.len() <= MAX_MESSAGE {
            return whole;
        }
        let chosen = self.all.iter().position(|(i, _)| *i == gravest);
        let mut line = lines[chosen.unwrap_or(0)].clone();
        let mut end = line.len().min(MAX_MESSAGE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        match lines.len() - 1 {
            0 => line,
            others => format!("{line}; and {others} other mirrors failed"),
        }
    }

    fn line(&self, index: usize, failed: &Failed) -> String {
        let mut line = self.uris.get(index).map(Uri::redacted).unwrap_or_default();
        if line.is_empty() {
            line.push_str("(empty URI)");
        }
        if self.uris.len() > 1 {
            line.push_str(&format!(" ({} of {})", index + 1, self.uris.len()));
        }
        if let Some(hop) = &failed.redirected_to {
            line.push_str(&format!(" (redirected to {hop})"));
        }
        line.push_str(": ");
        line.push_str(&failed.text);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(status: u16) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        Failed::status(status, &HeaderMap::new()).failure
    }

    #[test]
    fn s1_s2_s4_s7_every_status_has_its_class() {
        let retry_after = None;
        for (class, codes) in [
            (Failure::NotFound, &[404, 410][..]),
            (Failure::Refused, &[401, 403]),
            (Failure::TooManyRequests { retry_after }, &[429]),
            (
                Failure::Unavailable { retry_after },
                &[408, 500, 502, 503, 504, 599],
            ),
            (
                Failure::Unusable,
                &[204, 206, 300, 304, 305, 400, 402, 405, 407, 409, 416, 451],
            ),
        ] {
            for code in codes {
                assert_eq!(failure_of(*code), class, "{code}");
            }
        }
    }

    #[test]
    fn retry_after_in_both_forms_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let parsed = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now).map(|d| d.as_secs())
        };
        assert_eq!(parsed("7"), Some(7));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(parsed("99999999999"), Some(3600));
        assert_eq!(parsed("-1"), None);
        assert_eq!(parsed("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn u4_the_gravest_failure_is_the_one_reported() {
        let uris: Vec<Uri> = ["http://a/1", "http://b/2?k=v", "http://u:p@c/3"]
            .map(Uri::new)
            .into();
        let report = |codes: [u16; 3]| {
            let mut failures = Failures::new(&uris);
            for (i, code) in codes.into_iter().enumerate() {
                let status = StatusCode::from_u16(code).unwrap();
                failures.add(i, Failed::status(status, &HeaderMap::new()));
            }
            match failures.into_error(3) {
                FetchError::Origin {
                    uri_index, message, ..
                } => (uri_index, message),
                other => panic!("{other}"),
            }
        };
        assert_eq!(report([404, 403, 404]).0, 1);
        assert_eq!(report([404, 403, 503]).0, 2);
        assert_eq!(report([404, 404, 404]).0, 0);
        assert_eq!(
            report([503, 404, 403]).1,
            "http://a/1 (1 of 3): 503 Service Unavailable; http://b/2?... (2 of 3): 404 Not Found; \
             http://c/3 (3 of 3): 403 Forbidden"
        );
    }

    #[test]
    fn a_message_has_an_end() {
        let uris: Vec<Uri> = (0..64)
            .map(|i| Uri::new(format!("http://h/{i}/{}", "é".repeat(300))))
            .collect();
        let mut failures = Failures::new(&uris);
        for i in 0..64 {
            failures.add(i, Failed::unavailable("x".repeat(5000)));
        }
        let FetchError::Origin { message, .. } = failures.into_error(3) else {
            panic!()
        };
        assert!(message.len() < MAX_MESSAGE + 100);
        assert!(message.ends_with("; and 63 other mirrors failed"));
    }
}
