//! How the server's download gets on, from its admin page `/fetches`, if that
//! can be reached. It never matters: without it the line says how long it takes.
//!
//! Called by: `cli::fetch`.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use url::Url;

use super::bar::Bar;
use crate::asset::Uri;

const PATH: &str = "/fetches?format=json";

/// Between two looks, and between two movements of the line.
const LOOK: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(100);

/// A page that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// More than the page of a server that is busy has.
const MAX_PAGE: usize = 4 << 20;

/// One download, as the page tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Seen {
    pub(super) uri: String,
    pub(super) host: String,
    pub(super) phase: String,
    pub(super) bytes: u64,
    pub(super) total: Option<u64>,
    pub(super) waiters: u32,
    pub(super) attempts: u32,
}

#[derive(Deserialize)]
struct Page {
    fetches: Vec<Seen>,
}

impl Seen {
    /// What stands beside the figures.
    pub(super) fn words(&self) -> String {
        let mut words = match (self.phase.as_str(), self.host.is_empty()) {
            ("connecting", false) => format!("connecting to {}", self.host),
            ("receiving", false) => format!("from {}", self.host),
            ("storing", _) => "into the cache".to_owned(),
            ("waiting", _) => "waiting for its turn".to_owned(),
            (phase, _) => phase.to_owned(),
        };
        if self.attempts > 1 {
            words.push_str(&format!(", request {}", self.attempts));
        }
        if self.waiters > 1 {
            words.push_str(&format!(", {} callers wait", self.waiters));
        }
        // They come over the network and go to a terminal.
        words.retain(|c| !c.is_control());
        words
    }
}

/// A URI as it was given, and as it is asked for.
fn spellings(uri: &Uri) -> Vec<String> {
    let mut all = vec![uri.redacted()];
    if let Some(mut url) = uri.as_str().and_then(|text| Url::parse(text).ok()) {
        url.set_fragment(None);
        all.push(Uri::new(String::from(url)).redacted());
    }
    all
}

/// Looks for one download.
pub(super) struct Watch {
    page: Option<(Client<HttpConnector, Empty<Bytes>>, http::Uri)>,
    /// As the page shows them.
    uris: Vec<String>,
}

impl Watch {
    /// On the page below `admin`, if there is one, for a download of one of
    /// `uris`.
    pub(super) fn new(admin: Option<&http::Uri>, uris: &[Uri]) -> Self {
        let page = admin.and_then(|admin| {
            let mut parts = admin.clone().into_parts();
            parts.path_and_query = Some(PathAndQuery::from_static(PATH));
            let page = http::Uri::from_parts(parts).ok()?;
            let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
            Some((client, page))
        });
        Self {
            page,
            uris: uris.iter().flat_map(spellings).collect(),
        }
    }

    /// Keeps the line moving, and true as far as the page is there. Never
    /// returns.
    pub(super) async fn follow(&self, bar: &Bar) {
        if bar.is_hidden() {
            return std::future::pending().await;
        }
        let mut tick = tokio::time::interval(TICK);
        let mut absent = false;
        loop {
            let looks = LOOK.as_millis() / TICK.as_millis();
            for _ in 0..looks {
                tick.tick().await;
                bar.tick();
            }
            if !absent {
                match self.look().await {
                    Ok(Some(seen)) => bar.show(&seen),
                    Ok(None) => {}
                    Err(NoPage) => absent = true,
                }
            }
        }
    }

    /// The download, if it is under way now.
    async fn look(&self) -> Result<Option<Seen>, NoPage> {
        let (client, page) = self.page.as_ref().ok_or(NoPage)?;
        let read = async {
            let answer = client.get(page.clone()).await.map_err(|_| NoPage)?;
            let body = Limited::new(answer.into_body(), MAX_PAGE);
            let body = body.collect().await.map_err(|_| NoPage)?.to_bytes();
            serde_json::from_slice::<Page>(&body).map_err(|_| NoPage)
        };
        let page = tokio::time::timeout(PATIENCE, read).await;
        let page = page.map_err(|_| NoPage)??;
        let mut all = page.fetches.into_iter();
        Ok(all.find(|seen| self.uris.contains(&seen.uri)))
    }
}

/// The page cannot be had.
#[derive(Debug, PartialEq, Eq)]
struct NoPage;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::sync::watch;

    use super::*;
    use crate::admin::{self, AllowedHosts, Readiness, State};
    use crate::fetcher::{Progress, Waiters};

    async fn page(progress: &Progress) -> (SocketAddr, tokio::task::JoinSet<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, readiness) = watch::channel(Readiness::ready());
        let progress = progress.clone();
        let state = State::new(readiness, String::new, Vec::new);
        let state = state.with_fetches(move || progress.list());
        let mut serving = tokio::task::JoinSet::new();
        let router = admin::router(state, AllowedHosts::of(address, &[]));
        serving.spawn(admin::serve(listener, router, 64));
        (address, serving)
    }

    fn watch(address: impl std::fmt::Display, uri: &'static str) -> Watch {
        let admin = format!("http://{address}").parse().unwrap();
        Watch::new(Some(&admin), &[Uri::new("http://m/1"), Uri::new(uri)])
    }

    #[tokio::test]
    async fn the_download_is_found_on_the_page_by_its_redacted_uri() {
        let progress = Progress::default();
        let (address, _serving) = page(&progress).await;
        let watch = watch(address, "HTTP://u:secret@H.example/./a?sig=secret#f");
        assert_eq!(watch.look().await, Ok(None));
        let _other = progress.begin("http://h.example/b".to_owned(), "h.example".to_owned());
        let shown = Uri::new("http://u:secret@h.example/a?sig=secret").redacted();
        let tracker = progress.begin(shown, "h.example".to_owned());
        let waiters = Waiters::default();
        waiters.set(3);
        let _wanting = tracker.wanted_by(&waiters);
        tracker.attempt(2);
        tracker.announce(Some(1000));
        tracker.received(10);
        let seen = watch.look().await.unwrap().unwrap();
        assert_eq!((seen.bytes, seen.total), (10, Some(1000)));
        let words = "from h.example, request 2, 3 callers wait";
        assert_eq!(seen.words(), words);
    }

    #[tokio::test]
    async fn what_is_no_page_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(watch(address, "http://h/a").look().await, Err(NoPage));
        assert_eq!(Watch::new(None, &[]).look().await, Err(NoPage));
    }
}
