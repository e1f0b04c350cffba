//! What the tests are made of: the program under test ([`Proxy`]), what stands
//! around it ([`Origin`], [`ForwardProxy`], [`Upstream`], [`RawUpstream`]), requests, and
//! assertions about answers.

pub mod admin;
pub mod answer;
pub mod client;
pub mod content;
pub mod entries;
pub mod file;
pub mod forge;
pub mod forward_proxy;
pub mod logs;
pub mod marks;
pub mod origin;
pub mod pki;
pub mod poll;
pub mod proxy;
pub mod raw;
pub mod request;
pub mod together;
pub mod upstream;

pub use answer::{Answer, hit, inline, refused, violations};
pub use client::Client;
pub use content::{Dir, digest_in, digest_of, sri};
pub use file::File;
pub use forward_proxy::ForwardProxy;
pub use origin::{Gate, Origin, Reply};
pub use pki::Pki;
pub use poll::{bounded, eventually};
pub use proxy::{Proxy, Running};
pub use raw::{RawCall, RawClient, RawUpstream};
pub use request::{
    Fetching, Pushing, Qualified, fetch_blob, fetch_directory, push_blob, push_directory,
};
pub use together::Pending;
pub use upstream::Upstream;

pub use assetgate::proto::rev2::digest_function::Value as Function;
pub use tonic::Code;
