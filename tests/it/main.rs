//! Black-box tests: each starts the real `assetgate` program on loopback, with
//! scripted origins and caches around it, and judges it by what it answers and
//! what it asks of others. Test names begin with the conformance id.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test crate: a panic is how a test fails, nothing here is an API, and its \
              servers end with the test's runtime"
)]

mod attacks;
mod bad_input;
mod bounds;
mod cache;
mod cli;
mod credentials;
mod crowds;
mod decoding;
mod directories;
mod embedded;
mod embedded_bounds;
mod embedded_uploads;
mod explain;
mod exposure;
mod fetch_cli;
mod forward;
mod freshness;
mod gates;
mod held;
mod host;
mod ids;
mod large_trees;
mod layers;
mod listeners;
mod negatives;
mod newcomer;
mod one_parser;
mod operating;
mod origin_policy;
mod origin_proxy;
mod places;
mod presence;
mod probe;
mod proof;
mod push;
mod qualifiers;
mod readme;
mod received;
mod redirects;
mod references;
mod scenarios_content;
mod scenarios_mirrors;
mod scenarios_qualifiers;
mod scenarios_sharing;
mod scenarios_uploads;
mod secret_parameters;
mod secrets;
mod secrets_everywhere;
mod status;
mod support;
mod timeout;
mod unpinned;
mod upstream_failures;
mod uris;
mod validation;
