//! An explanation for people.
//!
//! Everything from the cache is input: it is shown without control characters.
//! Called by: `explain.rs`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use crate::asset::{AssetReference, Checksum, KeySpace, Qualifiers, Source, Uri};
use crate::resolver::{ExplainedKey, Explanation, Missed, Query, Verdict};
use crate::store::{Explained, Lookup, Miss};

pub(super) fn tell(query: &Query, explanation: &Explanation, now: SystemTime) -> String {
    let mut out = String::new();
    for (index, key) in explanation.keys.iter().enumerate() {
        let _ = writeln!(out, "{}. {}", index + 1, title(key));
        facts(&mut out, key, now);
        out.push('\n');
    }
    out.push_str(&verdict(query, &explanation.verdict, now));
    out.push('\n');
    out
}

/// What the key is made of.
fn title(key: &ExplainedKey) -> String {
    let space = &key.key.space;
    let what = match space {
        KeySpace::Checksum { checksum, .. } => checksum_name(checksum),
        _ => space.uri().map(Uri::redacted).unwrap_or_default(),
    };
    let with = match space.qualifiers() {
        none if none.is_empty() => String::new(),
        some => format!(" with {}", pairs(some)),
    };
    format!("{} {what}{with}", space.name())
}

fn facts(out: &mut String, key: &ExplainedKey, now: SystemTime) {
    let found = &key.found;
    line(out, "action", &found.action.to_string());
    line(out, "found", &lookup(found));
    if let Some(reference) = &found.reference {
        entry(out, key, reference, now);
    }
    if let Some(exact) = &key.confirmed_by {
        line(out, "exact entry", &lookup(exact));
    }
    let accepted = match (key.missed, key.answers) {
        (None, true) => "yes: this answers".to_owned(),
        (None, false) => "yes, but an earlier key answers".to_owned(),
        (Some(missed), _) => format!("no, {}: {}", missed.name(), why(missed)),
    };
    line(out, "accepted", &accepted);
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "   {name:<12}{value}");
}

/// What was found, and what that means.
fn lookup(found: &Explained) -> String {
    let detail = found.detail;
    match &found.lookup {
        Lookup::Hit(_) => format!("hit; its content is there ({detail})"),
        Lookup::Miss(Miss::Absent) => {
            "absent: no entry, or one that the cache withholds as its content is gone".to_owned()
        }
        Lookup::Miss(Miss::Unusable) => {
            format!("unusable: the entry is none of this server's, or does not fit ({detail})")
        }
        Lookup::Miss(Miss::Incomplete) => {
            "incomplete: something that the entry names is not in the cache".to_owned()
        }
        Lookup::Miss(Miss::Expired) => format!("expired: {detail}"),
    }
}

fn entry(out: &mut String, key: &ExplainedKey, reference: &AssetReference, now: SystemTime) {
    let found = &key.found;
    line(out, "content", &reference.digest.to_string());
    let source = match reference.source {
        Source::Push => "pushed",
        Source::Fetch => "fetched",
    };
    let uri = Uri::new(reference.uri.clone()).redacted();
    let known = key.key.space.uri().map(Uri::redacted);
    let from = match known == Some(uri.clone()) || uri.is_empty() {
        true => String::new(),
        false => format!(", {uri}"),
    };
    let said = format!("{}{from}", moment(reference.content_time, now));
    line(out, source, &said);
    if let Some(at) = reference.expire_at {
        line(out, "expires", &moment(at, now));
    }
    if !reference.qualifiers.is_empty() {
        line(out, "stored with", &pairs(&reference.qualifiers));
    }
    if !reference.verified.is_empty() {
        let names: Vec<String> = reference.verified.iter().map(checksum_name).collect();
        let vouches = |c| reference.vouches_for(c) == Some(true);
        let is_proof = reference.verified.iter().all(vouches);
        let name = if is_proof { "verified" } else { "claimed" };
        line(out, name, &names.join(", "));
    }
    let signed = match found.signed {
        true => "yes, validly",
        false => "not looked at (no references.mac_key)",
    };
    line(out, "signed", signed);
    let detached = match found.detached {
        true => "yes: it names content that is kept elsewhere",
        false => "no",
    };
    line(out, "detached", detached);
}

pub(super) fn checksum_name(checksum: &Checksum) -> String {
    format!(
        "{}:{}",
        checksum.algorithm().name(),
        hex::encode(checksum.raw())
    )
}

fn pairs(qualifiers: &Qualifiers) -> String {
    let shown = |text: &str| text.escape_debug().to_string();
    let pairs = qualifiers
        .iter()
        .map(|q| format!("{}={}", shown(&q.name), shown(&q.value)));
    pairs.collect::<Vec<_>>().join(", ")
}

/// A time to the second, and how long ago that is.
fn moment(time: SystemTime, now: SystemTime) -> String {
    let whole = prost_types::Timestamp {
        nanos: 0,
        ..prost_types::Timestamp::from(time)
    };
    format!("{whole}, {}", relative(time, now))
}

fn relative(time: SystemTime, now: SystemTime) -> String {
    match now.duration_since(time) {
        Ok(age) => format!("{} ago", in_words(age)),
        Err(error) => format!("in {}", in_words(error.duration())),
    }
}

/// In its two largest units.
fn in_words(time: Duration) -> String {
    const UNITS: [(&str, u64); 5] = [
        ("year", 365 * 86_400),
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
        ("second", 1),
    ];
    let mut rest = time.as_secs();
    let mut parts = Vec::new();
    for (unit, seconds) in UNITS {
        let count = rest / seconds;
        rest %= seconds;
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {unit}{plural}"));
        }
    }
    match parts.is_empty() {
        true => "less than a second".to_owned(),
        false => parts[..parts.len().min(2)].join(" and "),
    }
}

/// What a reason means, after its name.
fn why(missed: Missed) -> &'static str {
    match missed {
        Missed::Absent => "there is nothing",
        Missed::Unusable => "the entry is no reference for this key",
        Missed::Contradicted => "it does not have the checksum that was asked for",
        Missed::Unproven => "whether it has the checksum that was asked for is not known",
        Missed::HalfPushed => "it was pushed for several URIs, and the first has no entry",
        Missed::Gone => "its content is not in the cache any more",
        Missed::Expired => "it has expired or was withdrawn",
        Missed::Unconfirmed => "its origin served it before, and has to confirm it first",
        Missed::Stale => "it is older than oldest_content_accepted",
    }
}

fn verdict(query: &Query, verdict: &Verdict, now: SystemTime) -> String {
    let uris = &query.request.uris;
    match verdict {
        Verdict::Hit(answer) => {
            let uri = answer.uri_index.and_then(|index| uris.get(index));
            let under = uri.map(|uri| format!(" for {uri}")).unwrap_or_default();
            let (outcome, digest) = (answer.outcome.name(), &answer.digest);
            format!("A fetch would answer from the cache now: {outcome}{under}, {digest}.")
        }
        Verdict::Miss { missed, origin } => {
            let missed = match missed {
                Some(missed) => format!("miss, {}", missed.name()),
                None => "it would not be looked up".to_owned(),
            };
            let then = match origin {
                Ok(asked) if asked.is_empty() => "The origin would be asked.".to_owned(),
                Ok(asked) => {
                    let entries = asked.iter().map(|asking| {
                        let uri = uris.get(asking.uri_index);
                        let uri = uri.map(Uri::redacted).unwrap_or_default();
                        format!("{uri} (entry of {})", moment(asking.content_time, now))
                    });
                    let entries: Vec<String> = entries.collect();
                    format!(
                        "It would be revalidated with the origin: {}.",
                        entries.join(", ")
                    )
                }
                Err(error) => format!("The origin would not be asked: {error}."),
            };
            format!("A fetch would not be answered from the cache: {missed}. {then}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_two_units() {
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(words(0), "less than a second");
        assert_eq!(words(61), "1 minute and 1 second");
        assert_eq!(words(2 * 86_400 + 59), "2 days and 59 seconds");
        assert_eq!(words(3 * 3_600 + 5 * 60 + 9), "3 hours and 5 minutes");
        let now = SystemTime::now();
        let later = now + Duration::from_secs(7_200);
        assert_eq!(relative(later, now), "in 2 hours");
        assert_eq!(relative(now, later), "2 hours ago");
    }
}
