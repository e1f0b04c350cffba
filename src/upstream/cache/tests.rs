//! The typed clients over real sockets and our own connections.

use bytes::Bytes;
use futures_util::stream;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;
use crate::digest::{Digest, DigestFunction};
use crate::upstream::double::{Double, scope, sha256};
use crate::upstream::{CallContext, Endpoint, Error, Pool, PoolSettings};

/// A server on a runtime of its own, so that it can be killed.
struct Server {
    runtime: Option<Runtime>,
    port: u16,
}

impl Server {
    fn start(double: &Double) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = double.routes();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .add_routes(routes)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
        });
        let runtime = Some(runtime);
        Self { runtime, port }
    }

    fn cache(&self) -> Cache {
        let url = format!("grpc://127.0.0.1:{}", self.port);
        let endpoint: Endpoint = url.parse().unwrap();
        Cache::new(Pool::new(PoolSettings::new(vec![endpoint])).into_upstream())
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ctx() -> CallContext {
    CallContext::default()
}

#[tokio::test]
async fn blobs_go_and_come_back_in_messages_of_any_size() {
    let double = Double::new();
    double.set(|s| s.read_chunk = 6 << 20);
    let server = Server::start(&double);
    let cache = server.cache();
    let blobs: Vec<(Digest, Bytes)> = [3usize, 3 << 20, 6 << 20]
        .into_iter()
        .map(|n| Bytes::from(vec![b'z'; n]))
        .map(|data| (sha256(&data), data))
        .collect();
    cache
        .write_blobs(&ctx(), &scope(), blobs.clone())
        .await
        .unwrap();
    let wanted = blobs.iter().map(|(d, _)| d);
    let found = cache.read_blobs(&ctx(), &scope(), wanted).await.unwrap();
    assert_eq!(found, blobs.into_iter().collect());
}

#[tokio::test]
async fn uploads_end_early_or_not_at_all() {
    let double = Double::new();
    let server = Server::start(&double);
    let cache = server.cache();
    let data = vec![1u8; 300_000];
    let broken = [
        Ok(Bytes::copy_from_slice(&data)),
        Err(std::io::Error::other("checksum mismatch")),
    ];
    let broken = stream::iter(broken);
    let upload = cache
        .write_stream(&ctx(), &scope(), &sha256(&data), broken)
        .await;
    assert!(matches!(upload, Err(Error::Source(_))));
    assert!(!double.has(&sha256(&data)));

    double.set(|s| s.early_success = true);
    let digest = Digest::new(DigestFunction::Sha256, &"0".repeat(64), 1 << 40).unwrap();
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 65_536])));
    cache
        .write_stream(&ctx(), &scope(), &digest, endless)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cache_that_dies_is_unavailable() {
    let double = Double::new();
    double.set(|s| s.hang_reads = true);
    let mut server = Server::start(&double);
    let cache = server.cache();
    let large = double.put(vec![1u8; 5 << 20]);
    let (context, scope) = (ctx(), scope());
    let read = cache.read_blob(&context, &scope, &large);
    let kill = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        server.kill();
    };
    let (read, ()) = tokio::join!(read, kill);
    let error = read.unwrap_err();
    assert_eq!(error.code(), Some(tonic::Code::Unavailable), "{error}");

    let error = cache
        .find_missing(&context, &scope, [&large])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(tonic::Code::Unavailable), "{error}");
    assert!(error.to_string().contains("the cache"), "{error}");
    assert!(!error.to_string().contains("127.0.0.1:"), "{error}");
}
