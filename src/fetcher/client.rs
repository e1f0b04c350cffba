//! Asks one origin, and follows its redirects under our own rules.
//!
//! Not for: what comes after the response head (`receive`).
//! Called by: `fetch`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Empty;
use secrecy::ExposeSecret;

use super::Failure;
use super::credentials::Credentials;
use super::exchange::{Body, Exchange};
use super::failed::Failed;
use super::hosts::{Standing, Turn};
use super::target::Target;
use crate::asset::{KeyHeaders, SecretValue, Validators};

pub(super) const USER_AGENT: &str = concat!("assetgate/", env!("CARGO_PKG_VERSION"));
/// An HTTP client for origins.
pub(super) struct Client {
    exchange: Exchange,
    credentials: Arc<Credentials>,
    max_redirects: u32,
}

/// What a request says beside the client's headers.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    /// The first byte that is wanted, and what must still be current for the
    /// bytes before it to be of any use.
    pub(super) from: Option<(u64, Option<HeaderValue>)>,
    /// 304 will do if this is still current.
    pub(super) known: Option<Validators>,
    /// The client's headers that select a representation, as Accept does.
    pub(super) key_headers: KeyHeaders,
}

/// A response head with the body to come, at the end of all redirects.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// The last URL, redacted, if it is not the first.
    pub(super) redirected_to: Option<String>,
    /// Credentials of this service went along, on one hop or more.
    pub(super) lent: bool,
}

impl Client {
    pub(super) fn new(
        exchange: Exchange,
        credentials: Arc<Credentials>,
        max_redirects: u32,
    ) -> Self {
        Self {
            exchange,
            credentials,
            max_redirects,
        }
    }

    /// GETs `target` and follows redirects. The client's headers go with the
    /// request as long as it stays at the origin they were meant for; after
    /// that only those that select a representation do. This service's own are
    /// looked up for each hop. `turn` is what the download holds then,
    /// `standing` tells what it waits for until then.
    pub(super) async fn get(
        &self,
        mut target: Target,
        headers: &[(HeaderName, SecretValue)],
        ask: &Ask,
        pinned: bool,
        turn: &mut Turn,
        standing: &Standing,
    ) -> Result<Answer, Failed> {
        let mut lent = false;
        let mut seen = vec![target.url.clone()];
        let mut redirected_to = None;
        loop {
            let at = |mut failed: Failed| {
                failed.redirected_to.clone_from(&redirected_to);
                failed
            };
            let own = self.credentials.for_url(&target.url);
            lent |= target.lent || !own.is_empty();
            let mut request = request(&target, headers, own, &ask.key_headers).map_err(at)?;
            ask.write(request.headers_mut());
            let sent = self.exchange.send(request, &target, turn, standing);
            let response = sent.await.map_err(at)?;
            if !is_redirect(response.status()) {
                return Ok(Answer {
                    response,
                    redirected_to,
                    lent,
                });
            }
            let unusable = |text: &str| at(Failed::new(Failure::Unusable, text));
            let location = response.headers().get(header::LOCATION);
            let location = location.ok_or_else(|| unusable("a redirect to nowhere"))?;
            let next = target.redirected(location, pinned).map_err(at)?;
            if seen.contains(&next.url) {
                return Err(unusable("redirects in a circle"));
            }
            if seen.len() > self.max_redirects as usize {
                let text = format!("more than {} redirects", self.max_redirects);
                return Err(unusable(&text));
            }
            seen.push(next.url.clone());
            redirected_to = Some(next.redacted());
            target = next;
        }
    }
}

impl Ask {
    /// Into the request of every hop: what is asked about is the resource at
    /// the end of them.
    fn write(&self, headers: &mut HeaderMap) {
        if let Some((first, current)) = &self.from
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={first}-"))
        {
            headers.insert(header::RANGE, range);
            if let Some(current) = current {
                headers.insert(header::IF_RANGE, current.clone());
            }
        }
        let Some(known) = &self.known else {
            return;
        };
        // With both, only the first would count (RFC 9110, 13.2.2).
        let (name, value) = match (&known.etag, &known.last_modified) {
            (Some(etag), _) => (header::IF_NONE_MATCH, etag),
            (None, Some(date)) => (header::IF_MODIFIED_SINCE, date),
            (None, None) => return,
        };
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn request(
    target: &Target,
    headers: &[(HeaderName, SecretValue)],
    own: HeaderMap,
    key_headers: &KeyHeaders,
) -> Result<Request<Empty<Bytes>>, Failed> {
    let bad = |_| Failed::new(Failure::NotFound, "not a valid URL, cannot be fetched");
    let uri: http::Uri = target.url.as_str().parse().map_err(bad)?;
    // Least first: what the client says of this origin goes before ours.
    let mut map = own;
    map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    map.entry(header::ACCEPT)
        .or_insert(HeaderValue::from_static("*/*"));
    if let Some(basic) = &target.basic {
        map.insert(header::AUTHORIZATION, basic.clone());
    }
    for (name, value) in headers {
        if target.own || key_headers.select(name.as_str()) {
            let value = HeaderValue::from_str(value.expose_secret());
            let unusable = |_| Failed::new(Failure::Unusable, "a header that cannot be sent");
            let mut value = value.map_err(unusable)?;
            value.set_sensitive(true);
            map.insert(name, value);
        }
    }
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    *request.headers_mut() = map;
    Ok(request)
}
