//! A cache of the test's own: the four REv2 services over maps, which records
//! every call and misbehaves on request.

mod action_cache;
mod byte_stream;
mod capabilities;
mod cas;
mod front;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assetgate::proto::bytestream::byte_stream_server::ByteStreamServer;
use assetgate::proto::rev2;
use assetgate::proto::rev2::action_cache_server::ActionCacheServer;
use assetgate::proto::rev2::capabilities_server::CapabilitiesServer;
use assetgate::proto::rev2::content_addressable_storage_server::ContentAddressableStorageServer;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tonic::service::Routes;
use tonic::{Code, Status};

use front::Front;
pub use state::{Call, Key};
use state::{State, Switches};

use super::Function;

/// A running cache.
pub struct Upstream {
    state: Arc<State>,
    address: SocketAddr,
    front: Mutex<Option<Front>>,
}

impl Upstream {
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let front = Front::start(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            &state,
            routes(&state),
        );
        Self {
            address: front.address(),
            front: Mutex::new(Some(front)),
            state,
        }
    }

    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and refuses new ones.
    pub async fn stop(&self) {
        let front = self.front.lock().take();
        if let Some(front) = front {
            front.stop().await;
        }
    }

    /// Serves again at the same address, with the same content.
    pub fn restart(&self) {
        let front = Front::start(self.address, &self.state, routes(&self.state));
        *self.front.lock() = Some(front);
    }

    /// Ends every connection at once; new ones are accepted.
    pub fn hang_up(&self) {
        self.front.lock().as_ref().unwrap().hang_up();
    }

    fn switch<T>(&self, change: impl FnOnce(&mut Switches) -> T) {
        change(&mut self.state.switches.lock());
    }

    /// Announces these digest functions (SHA256 at first).
    pub fn announce(&self, functions: &[Function]) {
        self.switch(|s| s.functions = functions.to_vec());
    }

    /// Whether GetActionResult checks that outputs are there (it does).
    pub fn check_completeness(&self, on: bool) {
        self.switch(|s| s.completeness = on);
    }

    /// Announces this batch limit.
    pub fn batch_limit(&self, bytes: i64) {
        self.switch(|s| s.batch_limit = bytes);
    }

    /// Announces zstd for ByteStream.
    pub fn announce_zstd(&self) {
        self.switch(|s| s.zstd = true);
    }

    /// The name of each finished write, and how many bytes were sent.
    pub fn writes(&self) -> Vec<(String, usize)> {
        self.state.writes.lock().clone()
    }

    /// Knows only these instances; others get `code`.
    pub fn only_instances(&self, names: &[&str], code: Code) {
        let names = names.iter().map(ToString::to_string).collect();
        self.switch(|s| s.instances = Some((names, code)));
    }

    /// Refuses CAS and Action Cache calls without `authorization: <token>`.
    pub fn demand_token(&self, token: &str, code: Code) {
        self.switch(|s| s.token = Some((token.into(), code)));
    }

    /// Answers a method (its last path segment) with this status, for good.
    pub fn fail(&self, method: &str, status: Status) {
        self.switch(|s| s.failures.insert(method.into(), status));
    }

    pub fn heal(&self, method: &str) {
        self.switch(|s| s.failures.remove(method));
        self.switch(|s| s.raw.remove(method));
    }

    /// Answers a method with these bytes as its message.
    pub fn answer_raw(&self, method: &str, message: &[u8]) {
        let message = Bytes::copy_from_slice(message);
        self.switch(|s| s.raw.insert(method.into(), message));
    }

    /// Takes this long before any answer to a method.
    pub fn delay(&self, method: &str, by: Duration) {
        self.switch(|s| s.delays.insert(method.into(), by));
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().clone()
    }

    pub fn forget_calls(&self) {
        self.state.calls.lock().clear();
    }

    /// The calls of one method.
    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|c| c.method() == method);
        calls
    }

    /// Stores a SHA256 blob in the default instance.
    pub fn put(&self, blob: &[u8]) -> rev2::Digest {
        let digest = super::digest_of(blob);
        let key = Key::new("", &digest);
        let mut blobs = self.state.blobs.lock();
        blobs.insert(key, Bytes::copy_from_slice(blob));
        digest
    }

    /// Stores content under a digest of any function, unchecked.
    pub fn put_as(&self, digest: &rev2::Digest, blob: &[u8]) {
        let mut blobs = self.state.blobs.lock();
        blobs.insert(Key::new("", digest), Bytes::copy_from_slice(blob));
    }

    pub fn put_all(&self, blobs: &[Vec<u8>]) {
        for blob in blobs {
            self.put(blob);
        }
    }

    /// Whether a blob is in any instance.
    pub fn has(&self, digest: &rev2::Digest) -> bool {
        let blobs = self.state.blobs.lock();
        blobs.keys().any(|k| k.digest == *digest)
    }

    pub fn get(&self, digest: &rev2::Digest) -> Option<Bytes> {
        let blobs = self.state.blobs.lock();
        let found = blobs.iter().find(|(k, _)| k.digest == *digest);
        found.map(|(_, content)| content.clone())
    }

    /// Evicts a blob.
    pub fn drop_blob(&self, digest: &rev2::Digest) {
        let mut blobs = self.state.blobs.lock();
        let before = blobs.len();
        blobs.retain(|k, _| k.digest != *digest);
        assert!(blobs.len() < before, "{digest:?} was not there");
    }

    pub fn blobs(&self) -> Vec<(Key, Bytes)> {
        let blobs = self.state.blobs.lock();
        blobs.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Action Cache entries that are asset references, in any instance:
    /// probes of the cache are not among them.
    pub fn entries(&self) -> Vec<(Key, rev2::ActionResult)> {
        let entries = self.state.action_results.lock();
        let all = entries.iter().map(|(k, v)| (k.clone(), v.clone()));
        all.filter(|(_, v)| super::entries::is_reference(v))
            .collect()
    }

    /// Changes every asset reference.
    pub fn edit_entries(&self, mut edit: impl FnMut(&mut rev2::ActionResult)) {
        let mut entries = self.state.action_results.lock();
        for entry in entries.values_mut() {
            if super::entries::is_reference(entry) {
                edit(entry);
            }
        }
    }

    /// Puts an entry under a key.
    pub fn set_entry(&self, key: &Key, entry: rev2::ActionResult) {
        self.state.action_results.lock().insert(key.clone(), entry);
    }

    /// Keeps what calls say, besides who calls.
    pub fn record_messages(&self) {
        self.switch(|s| s.record = true);
    }

    /// Everything it holds, and every message it recorded, as one heap of
    /// bytes to search.
    pub fn contents(&self) -> Vec<u8> {
        let mut heap = Vec::new();
        for (key, content) in self.blobs() {
            heap.extend_from_slice(format!("\n{key:?}\n").as_bytes());
            heap.extend_from_slice(&content);
        }
        for (key, entry) in self.state.action_results.lock().iter() {
            heap.extend_from_slice(format!("\n{key:?}\n").as_bytes());
            heap.extend_from_slice(&entry.encode_to_vec());
        }
        for call in self.calls() {
            heap.extend_from_slice(format!("\n{}\n", call.path).as_bytes());
            heap.extend_from_slice(&call.messages.lock());
        }
        heap
    }

    /// The same and the metadata of every call, in full: its `Debug` form
    /// leaves out what came marked as sensitive.
    pub fn everything(&self) -> Vec<u8> {
        let mut heap = self.contents();
        for call in self.calls() {
            for (name, value) in &call.metadata {
                heap.extend_from_slice(format!("\n{} {name}: ", call.path).as_bytes());
                heap.extend_from_slice(value.as_bytes());
            }
        }
        heap
    }
}

fn routes(state: &Arc<State>) -> Routes {
    let cas = ContentAddressableStorageServer::from_arc(state.clone());
    let bytes = ByteStreamServer::from_arc(state.clone());
    let results = ActionCacheServer::from_arc(state.clone());
    Routes::new(cas.max_decoding_message_size(usize::MAX))
        .add_service(bytes.max_decoding_message_size(usize::MAX))
        .add_service(results.max_decoding_message_size(usize::MAX))
        .add_service(CapabilitiesServer::from_arc(state.clone()))
}
