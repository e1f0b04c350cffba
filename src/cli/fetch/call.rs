//! The call that fetches, repeated for as long as that makes sense.
//!
//! A server goes on downloading when a call has ended, and the same request
//! joins what is under way: so patience is a matter of asking again.
//! Called by: `cli::fetch`.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::bar::Bar;
use super::failure::{Failure, retry_delay, transport};
use super::request::{Prepared, shown};
use crate::asset::Uri;
use crate::digest::Digest;
use crate::proto::asset::fetch_client::FetchClient;
use crate::proto::asset::{FetchBlobResponse, Qualifier};
use crate::upstream::Upstream;

/// How often in a row a server that says "later" is asked again. It has
/// repeated what it could by itself.
const TRIES: u32 = 5;

/// How much later than asked for an answer may be.
const GRACE: Duration = Duration::from_secs(2);

/// A server's wish, else this, doubled each time.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Headers of answers of this server.
const REQUEST_ID: &str = "assetgate-request-id";
const OUTCOME: &str = "assetgate-outcome";

/// Who asks.
pub(super) struct Caller<'a> {
    pub(super) server: Upstream,
    pub(super) prepared: &'a Prepared,
    pub(super) timeout: Duration,
    pub(super) call_timeout: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) digest: Digest,
    /// The mirror that answered, without secrets.
    pub(super) uri: String,
    pub(super) qualifiers: Vec<Qualifier>,
    /// `fetched`, `hit_exact`, ..., if the server says.
    pub(super) outcome: Option<String>,
    /// Under which the server's log has it.
    pub(super) request_id: Option<String>,
}

/// What to do after a call.
enum Next {
    End(Failure),
    /// At once: only the call's own time was over.
    Join,
    /// After a pause.
    Later(Duration, Failure),
}

impl Caller<'_> {
    pub(super) async fn fetch(&self, bar: &Bar) -> Result<Fetched, Failure> {
        // The server's own words on a timeout are better than ours.
        let end = Instant::now() + self.timeout + GRACE;
        let (mut tries, mut reached) = (0, false);
        let mut last: Option<Failure> = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out(last));
            }
            let (pause, failure) = match self.call(self.call_timeout.min(left), reached).await {
                Ok(fetched) => return Ok(fetched),
                Err(Next::End(failure)) => return Err(failure),
                Err(Next::Join) => {
                    (reached, tries) = (true, 0);
                    continue;
                }
                Err(Next::Later(pause, failure)) => (pause, failure),
            };
            reached = true;
            tries += 1;
            let pause = pause.max(PAUSE * 2_u32.pow(tries - 1)).min(LONGEST_PAUSE);
            if tries >= TRIES || pause > end.saturating_duration_since(Instant::now()) {
                return Err(failure);
            }
            bar.pause(pause, &failure.text);
            last = Some(failure);
            tokio::time::sleep(pause).await;
        }
    }

    /// One call that may take so long. `again`: the server has answered before.
    async fn call(&self, patience: Duration, again: bool) -> Result<Fetched, Next> {
        let mut request = self.prepared.context.request(self.prepared.request.clone());
        request.set_timeout(patience);
        let mut client = FetchClient::new(self.server.clone());
        let since = Instant::now();
        let answer = tokio::time::timeout(patience + GRACE, client.fetch_blob(request)).await;
        let status = match answer {
            Err(_) => return Err(Next::Join),
            Ok(Ok(answer)) => return self.read(answer).map_err(Next::End),
            Ok(Err(status)) => status,
        };
        let failure = Failure::of(&status);
        // Before that it is not the call's time that was over.
        let in_vain = since.elapsed() >= patience.mul_f32(0.9);
        Err(match (status.code(), transport(&status)) {
            (_, Some(_)) if again => Next::Later(PAUSE, failure),
            (_, Some(_)) => Next::End(failure),
            (Code::DeadlineExceeded | Code::Cancelled, None) if in_vain => Next::Join,
            _ => match retry_delay(&status) {
                Some(pause) => Next::Later(pause, failure),
                None => Next::End(failure),
            },
        })
    }

    fn read(&self, answer: tonic::Response<FetchBlobResponse>) -> Result<Fetched, Failure> {
        let told = |name| {
            let value = answer.metadata().get(name)?.to_str().ok()?;
            Some(value.chars().take(64).collect())
        };
        let (request_id, outcome) = (told(REQUEST_ID), told(OUTCOME));
        let answer = answer.into_inner();
        if let Some(status) = answer.status.filter(|status| status.code != 0) {
            return Err(Failure::inline(&status));
        }
        let function = self.prepared.scope.function;
        let other = answer.digest_function != 0 && answer.digest_function != function.to_wire();
        let digest = Digest::from_wire(function, answer.blob_digest.as_ref());
        match digest {
            Ok(digest) if !other => Ok(Fetched {
                digest,
                uri: shown(&Uri::new(answer.uri)),
                qualifiers: answer.qualifiers,
                outcome,
                request_id,
            }),
            _ => Err(Failure::failed(format!(
                "the server's answer makes no sense: it is OK, and has no digest in {}",
                function.name()
            ))),
        }
    }

    fn timed_out(&self, last: Option<Failure>) -> Failure {
        let time = humantime::format_duration(self.timeout);
        let last = last.map_or(String::new(), |last| format!(" (before: {})", last.text));
        Failure::failed(format!(
            "no content within {time} (--timeout); the server may go on: ask again{last}"
        ))
    }
}
