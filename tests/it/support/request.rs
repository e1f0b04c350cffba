//! Requests of the Remote Asset API, written in one line each.

use std::time::{Duration, SystemTime};

use assetgate::proto::asset::{
    FetchBlobRequest, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest, Qualifier,
};
use assetgate::proto::rev2::Digest;
use bytes::Bytes;

use super::Function;

fn bytes<U: AsRef<[u8]>>(uris: &[U]) -> Vec<Bytes> {
    uris.iter()
        .map(|u| Bytes::copy_from_slice(u.as_ref()))
        .collect()
}

pub fn fetch_blob<U: AsRef<[u8]>>(uris: &[U]) -> FetchBlobRequest {
    FetchBlobRequest {
        uris: bytes(uris),
        ..Default::default()
    }
}

pub fn fetch_directory<U: AsRef<[u8]>>(uris: &[U]) -> FetchDirectoryRequest {
    FetchDirectoryRequest {
        uris: bytes(uris),
        ..Default::default()
    }
}

pub fn push_blob<U: AsRef<[u8]>>(uris: &[U], digest: Digest) -> PushBlobRequest {
    PushBlobRequest {
        uris: bytes(uris),
        blob_digest: Some(digest),
        ..Default::default()
    }
}

pub fn push_directory<U: AsRef<[u8]>>(uris: &[U], digest: Digest) -> PushDirectoryRequest {
    PushDirectoryRequest {
        uris: bytes(uris),
        root_directory_digest: Some(digest),
        ..Default::default()
    }
}

/// What all four requests have.
pub trait Qualified: Sized {
    fn with_qualifiers(self, qualifiers: Vec<Qualifier>) -> Self;
    fn instance(self, name: &str) -> Self;
    fn function(self, function: Function) -> Self;

    fn qualifier(self, name: &str, value: &str) -> Self {
        self.qualifiers(&[(name, value)])
    }

    /// Adds some, in this order.
    fn qualifiers<N: AsRef<str>, V: AsRef<str>>(self, pairs: &[(N, V)]) -> Self {
        let all = pairs.iter().map(|(name, value)| Qualifier {
            name: name.as_ref().into(),
            value: value.as_ref().into(),
        });
        self.with_qualifiers(all.collect())
    }
}

/// What both fetches have.
pub trait Fetching: Sized {
    fn within(self, timeout: prost_types::Duration) -> Self;
    fn not_older(self, than: prost_types::Timestamp) -> Self;

    fn timeout(self, timeout: Duration) -> Self {
        self.within(timeout.try_into().unwrap())
    }

    fn oldest(self, time: SystemTime) -> Self {
        self.not_older(time.into())
    }
}

/// What both pushes have.
pub trait Pushing: Sized {
    fn expiring(self, at: prost_types::Timestamp) -> Self;
    fn references(self, blobs: Vec<Digest>, directories: Vec<Digest>) -> Self;

    fn expire_at(self, time: SystemTime) -> Self {
        self.expiring(time.into())
    }
}

macro_rules! qualified {
    ($($message:ty),*) => {$(
        impl Qualified for $message {
            fn with_qualifiers(mut self, qualifiers: Vec<Qualifier>) -> Self {
                self.qualifiers.extend(qualifiers);
                self
            }
            fn instance(mut self, name: &str) -> Self {
                self.instance_name = name.into();
                self
            }
            fn function(mut self, function: Function) -> Self {
                self.digest_function = function as i32;
                self
            }
        }
    )*};
}

macro_rules! fetching {
    ($($message:ty),*) => {$(
        impl Fetching for $message {
            fn within(mut self, timeout: prost_types::Duration) -> Self {
                self.timeout = Some(timeout);
                self
            }
            fn not_older(mut self, than: prost_types::Timestamp) -> Self {
                self.oldest_content_accepted = Some(than);
                self
            }
        }
    )*};
}

macro_rules! pushing {
    ($($message:ty),*) => {$(
        impl Pushing for $message {
            fn expiring(mut self, at: prost_types::Timestamp) -> Self {
                self.expire_at = Some(at);
                self
            }
            fn references(mut self, blobs: Vec<Digest>, directories: Vec<Digest>) -> Self {
                self.references_blobs = blobs;
                self.references_directories = directories;
                self
            }
        }
    )*};
}

qualified!(
    FetchBlobRequest,
    FetchDirectoryRequest,
    PushBlobRequest,
    PushDirectoryRequest
);
fetching!(FetchBlobRequest, FetchDirectoryRequest);
pushing!(PushBlobRequest, PushDirectoryRequest);
