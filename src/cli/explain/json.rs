//! An explanation for programs. Names are those of metrics and of the log.
//!
//! Called by: `explain.rs`.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::stamp;
use super::text::checksum_name;
use crate::asset::{AssetReference, KeySpace, Qualifiers, Source, Uri};
use crate::resolver::{Asking, ExplainedKey, Explanation, Missed, Query, Verdict};
use crate::store::{Explained, Lookup};

pub(super) fn tell(query: &Query, explanation: &Explanation, now: SystemTime) -> String {
    let request = &query.request;
    let uris: Vec<String> = request.uris.iter().map(Uri::redacted).collect();
    let keys: Vec<Value> = explanation.keys.iter().map(|k| key(k, now)).collect();
    let told = json!({
        "request": {
            "kind": request.kind.name(),
            "instance": request.scope.instance.as_str(),
            "digest_function": request.scope.function.name(),
            "uris": uris,
            "qualifiers": pairs(&request.qualifiers),
            "oldest_content_accepted": query.request.oldest.map(stamp),
        },
        "keys": keys,
        "verdict": verdict(query, &explanation.verdict),
    });
    format!("{told:#}\n")
}

fn key(key: &ExplainedKey, now: SystemTime) -> Value {
    let space = &key.key.space;
    let checksum = match space {
        KeySpace::Checksum { checksum, .. } => Some(checksum_name(checksum)),
        _ => None,
    };
    json!({
        "space": space.name(),
        "uri": space.uri().map(Uri::redacted),
        "uri_index": key.uri_index,
        "checksum": checksum,
        "qualifiers": pairs(space.qualifiers()),
        "found": found(&key.found, now),
        "exact": key.confirmed_by.as_ref().map(|exact| found(exact, now)),
        "accepted": key.missed.is_none(),
        "missed": key.missed.map(Missed::name),
        "answers": key.answers,
    })
}

fn found(found: &Explained, now: SystemTime) -> Value {
    let result = match &found.lookup {
        Lookup::Hit(_) => "hit",
        Lookup::Miss(miss) => miss.name(),
    };
    let reference = found.reference.as_deref();
    json!({
        "action": found.action.to_string(),
        "result": result,
        "detail": found.detail,
        "entry": reference.map(|reference| entry(found, reference, now)),
    })
}

fn entry(found: &Explained, reference: &AssetReference, now: SystemTime) -> Value {
    let verified: Vec<String> = reference.verified.iter().map(checksum_name).collect();
    let age = match now.duration_since(reference.content_time) {
        Ok(age) => age.as_secs_f64(),
        Err(error) => -error.duration().as_secs_f64(),
    };
    json!({
        "digest": reference.digest.to_string(),
        "source": match reference.source {
            Source::Push => "push",
            Source::Fetch => "fetch",
        },
        "uri": Uri::new(reference.uri.clone()).redacted(),
        "content_time": stamp(reference.content_time),
        "age_seconds": age,
        "expire_at": reference.expire_at.map(stamp),
        "qualifiers": pairs(&reference.qualifiers),
        "verified": verified,
        "signed": found.signed,
        "detached": found.detached,
    })
}

fn pairs(qualifiers: &Qualifiers) -> Value {
    let pairs = qualifiers.iter();
    pairs
        .map(|q| (q.name.clone(), Value::from(q.value.clone())))
        .collect()
}

fn revalidated(query: &Query, asking: &Asking) -> Value {
    let uri = query.request.uris.get(asking.uri_index);
    json!({
        "uri": uri.map(Uri::redacted),
        "digest": asking.digest.to_string(),
        "content_time": stamp(asking.content_time),
    })
}

fn verdict(query: &Query, verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Hit(answer) => {
            let uri = answer.uri_index.and_then(|i| query.request.uris.get(i));
            json!({
                "hit": true,
                "outcome": answer.outcome.name(),
                "uri": uri.map(Uri::redacted),
                "digest": answer.digest.to_string(),
                "qualifiers": pairs(&answer.qualifiers),
            })
        }
        Verdict::Miss { missed, origin } => {
            let asked = origin.iter().flatten();
            let asked: Vec<Value> = asked.map(|asking| revalidated(query, asking)).collect();
            json!({
                "hit": false,
                "missed": missed.map(Missed::name),
                "origin_would_be_asked": origin.is_ok(),
                "would_be_revalidated": asked,
                "error": origin.as_ref().err().map(ToString::to_string),
            })
        }
    }
}
