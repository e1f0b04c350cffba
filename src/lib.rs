//! Assetgate: one gRPC address that gives a build cache the Remote Asset API.

pub mod admin;
pub mod api;
pub mod asset;
pub mod call;
pub mod cli;
pub mod config;
pub mod digest;
pub mod drain;
pub mod embedded;
pub mod fetcher;
pub mod forward;
pub mod middleware;
pub mod net;
pub mod proto;
pub mod resolver;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
