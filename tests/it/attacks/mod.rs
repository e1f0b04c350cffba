//! Attacks on a fetch: checksums, headers, URLs, redirects and bodies that are
//! not what they should be. Each gets the status DESIGN has for it, stores
//! nothing and leaves nothing behind.

mod answers;
mod requests;

use assetgate::proto::asset::{FetchBlobRequest, FetchBlobResponse};
use tempfile::TempDir;
use tonic::Status;

use crate::support::origin::Serving;
use crate::support::{
    Answer as _, Client, Code, Origin, Proxy, Running, Upstream, digest_of, eventually, fetch_blob,
    hit,
};

/// Above what is kept in memory.
const LARGE: usize = 3 << 20;

struct Rig {
    cache: Upstream,
    proxy: Running,
    client: Client,
    origin: Serving,
    spool: TempDir,
    descriptors: usize,
}

impl Rig {
    async fn new(origin: Origin) -> Self {
        let origin = origin.file("/fine", "content").start().await;
        let spool = TempDir::new().unwrap();
        let cache = Upstream::start();
        let config = format!(
            "[fetch]\nattempts = 1\nmax_size = \"4MiB\"\nstall_timeout = \"1s\"\n\
             spool_dir = {:?}\n",
            spool.path()
        );
        let proxy = Proxy::new().config(config).upstream(&cache);
        let (proxy, client) = proxy.connected().await;
        let rig = Self {
            descriptors: 0,
            cache,
            proxy,
            client,
            origin,
            spool,
        };
        // Connections that stay open are open from here on.
        hit(rig.client.fetch_blob(rig.at("/fine")).await);
        let descriptors = rig.proxy.descriptors();
        for (_, blob) in rig.cache.blobs() {
            rig.cache.drop_blob(&digest_of(&blob));
        }
        Self { descriptors, ..rig }
    }

    fn at(&self, path: &str) -> FetchBlobRequest {
        fetch_blob(&[self.origin.url(path)])
    }

    /// The code of a call that must fail, inside the answer or outside.
    async fn code(&self, what: &str, request: FetchBlobRequest) -> (Code, bool) {
        let answer: Result<FetchBlobResponse, Status> = self.client.fetch_blob(request).await;
        match answer {
            Ok(answer) => {
                assert_eq!(answer.digest(), None, "{what}: {answer:?}");
                let status = answer.status();
                assert!(!status.message.is_empty(), "{what}: no reason");
                (Code::from_i32(status.code), true)
            }
            Err(status) => {
                assert!(!status.message().is_empty(), "{what}: no reason");
                (status.code(), false)
            }
        }
    }

    async fn inline(&self, what: &str, request: FetchBlobRequest, code: Code) {
        assert_eq!(self.code(what, request).await, (code, true), "{what}");
    }

    async fn invalid(&self, what: &str, request: FetchBlobRequest) {
        let expected = (Code::InvalidArgument, false);
        assert_eq!(self.code(what, request).await, expected, "{what}");
    }

    /// Nothing was stored and nothing stays behind; it serves as before.
    async fn is_clean(&self) {
        assert_eq!(self.cache.writes(), []);
        for (key, blob) in self.cache.blobs() {
            // What shows whether a caller may write is small.
            assert!(blob.len() < 1000, "{key:?} was stored");
        }
        let references = self.cache.entries().len();
        assert!(references <= 1, "{references}: only that of `/fine`");
        let metrics = self.proxy.metrics().await;
        assert_eq!(metrics.sum("assetgate_panics_total", &[]), 0.0);
        eventually("the end of what the attacks took", async || {
            let spooled = std::fs::read_dir(self.spool.path()).unwrap().count();
            let open = self.proxy.open_files();
            let held = self.proxy.metrics().await.sum("assetgate_spool_bytes", &[]);
            let clean = spooled == 0 && held == 0.0 && open.iter().all(|f| f.len() < LARGE / 2);
            // A connection to the origin more may be kept for the next fetch.
            (clean && self.proxy.descriptors() <= self.descriptors + 2).then_some(())
        })
        .await;
        assert_eq!(
            hit(self.client.fetch_blob(self.at("/fine")).await),
            digest_of(b"content")
        );
    }
}
