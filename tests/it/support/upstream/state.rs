//! What the cache holds, what it has heard and how it shall misbehave.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use assetgate::proto::rev2;
use base64::Engine as _;
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::Function;

/// Instance and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub instance: String,
    pub digest: rev2::Digest,
}

impl Key {
    pub fn new(instance: &str, digest: &rev2::Digest) -> Self {
        Self {
            instance: instance.into(),
            digest: digest.clone(),
        }
    }

    fn order(&self) -> (&str, &str, i64) {
        (&self.instance, &self.digest.hash, self.digest.size_bytes)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// A call as the cache saw it.
#[derive(Debug, Clone)]
pub struct Call {
    /// `/package.Service/Method`
    pub path: String,
    pub metadata: HeaderMap,
    /// The messages, framed, if they are recorded.
    pub messages: Arc<Mutex<Vec<u8>>>,
}

impl Call {
    pub fn method(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// The name of the tool that says it calls.
    pub fn tool(&self) -> String {
        let value = self.value("build.bazel.remote.execution.v2.requestmetadata-bin");
        let encoded = value.unwrap().trim_end_matches('=');
        let decoded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(encoded);
        let metadata = rev2::RequestMetadata::decode(&*decoded.unwrap()).unwrap();
        metadata.tool_details.unwrap().tool_name
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(|v| v.to_str().unwrap())
    }
}

pub(super) struct Switches {
    pub(super) functions: Vec<Function>,
    pub(super) completeness: bool,
    pub(super) record: bool,
    pub(super) batch_limit: i64,
    pub(super) zstd: bool,
    pub(super) instances: Option<(Vec<String>, Code)>,
    pub(super) token: Option<(String, Code)>,
    pub(super) failures: HashMap<String, Status>,
    pub(super) raw: HashMap<String, Bytes>,
    pub(super) delays: HashMap<String, Duration>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            functions: vec![Function::Sha256],
            completeness: true,
            record: false,
            batch_limit: 0,
            zstd: false,
            instances: None,
            token: None,
            failures: HashMap::new(),
            raw: HashMap::new(),
            delays: HashMap::new(),
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: Mutex<BTreeMap<Key, Bytes>>,
    pub(super) action_results: Mutex<BTreeMap<Key, rev2::ActionResult>>,
    pub(super) calls: Mutex<Vec<Call>>,
    /// Names of finished writes, and bytes received.
    pub(super) writes: Mutex<Vec<(String, usize)>>,
    pub(super) switches: Mutex<Switches>,
}

impl State {
    pub(super) fn check_instance(&self, name: &str) -> Result<(), Status> {
        match &self.switches.lock().instances {
            Some((known, code)) if !known.iter().any(|k| k == name) => Err(Status::new(
                *code,
                format!("no instance is called {name:?}"),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn blob(&self, instance: &str, digest: &rev2::Digest) -> Option<Bytes> {
        if digest.size_bytes == 0 {
            return Some(Bytes::new());
        }
        self.blobs.lock().get(&Key::new(instance, digest)).cloned()
    }

    /// Stores content that has this digest in one of the announced functions.
    pub(super) fn store(
        &self,
        instance: &str,
        digest: &rev2::Digest,
        content: Bytes,
    ) -> Result<(), Status> {
        let functions = self.switches.lock().functions.clone();
        let fits = |f: &Function| crate::support::digest_in(*f, &content) == *digest;
        if !functions.iter().any(fits) {
            return Err(Status::invalid_argument("the content has another digest"));
        }
        let key = Key::new(instance, digest);
        self.blobs.lock().insert(key, content);
        Ok(())
    }
}
