//! Assetgate: one gRPC address that gives a build cache you already run the
//! Remote Asset API.
//!
//! This page is the map. The modules, in the order to read them; each uses
//! only those above it, which `tests/it/layers.rs` enforces.
//!
//! | row | module | is |
//! |---|---|---|
//! | 0 | [`proto`] [`drain`] [`clock`] [`budget`] [`net`] [`call`] [`telemetry`] | generated messages; task tracking and graceful stop; the time; the bytes that may be held; sockets and TLS; facts about one call; logs and metrics |
//! | 1 | [`digest`] [`intake`] | digests, instance names, scopes: nothing malformed gets in; messages as they come, under the budget |
//! | 2 | [`asset`] | URIs, qualifiers, integrity, keys, references; no I/O |
//! | 3 | [`upstream`] [`embedded`] | the cache behind us: connections and typed clients; the in-process cache |
//! | 4 | [`store`] [`fetcher`] | references as Action Cache entries; content from origins |
//! | 5 | [`resolver`] | the use case: look up, else fetch, record |
//! | 6 | [`api`] [`forward`] [`middleware`] [`admin`] | the services; the transparent path; per-call layers; the admin port |
//! | 7 | [`config`] | file, environment and flags into settings |
//! | 8 | [`server`] | listeners, the stack, assembly |
//! | 9 | [`cli`] | subcommands |
//!
//! `fuzz`, which only tests and `fuzz/` build, may use anything.
//!
//! # Four walks
//!
//! **A forwarded read.** `server::accept` hands the socket to a thread;
//! `server::connection` speaks HTTP/2 on it; `server::dispatch` sees by the path
//! that the call is not ours; [`forward`] sends the same request over the
//! upstream connection that belongs to this client ([`upstream`]'s pool) and the
//! response body is polled straight through, so that flow control is end to
//! end. With no cache behind us, `forward` calls [`embedded`] in process;
//! services that have a route go to a server of their own.
//!
//! **A fetch hit.** The path is ours: the layers of [`middleware`], in the order
//! of `server::stack`, give the call an id and a report ([`call`]); [`api`] turns
//! the message into a query; [`resolver`] makes sure that the cache knows the
//! digest function, then asks [`store`] for the checksum keys, then for every
//! URI; `store` reads one Action Cache entry, verifies it against its key and,
//! unless a probe has seen that the cache does so by itself, asks the CAS
//! whether everything it names is present; `api` answers. All of it
//! happens on the listener's thread, over that thread's connections.
//!
//! **A fetch miss.** As above until `store` has nothing; `resolver` joins an
//! identical fetch that is under way, else starts a task on the asset runtime
//! (`resolver::flight`), which goes on if its caller leaves; [`fetcher`] tries
//! the mirrors in rounds, shares the download of one URL among all who want
//! it, goes on with a body that was cut off, verifies what comes, and brings it
//! into the cache, as it arrives if its digest is known;
//! `resolver` records a reference through `store`; a failure is turned into a
//! status in `api::status`, the only place that does.
//!
//! **A directory push.** `api` checks the message; `resolver` makes one key per
//! URI and goes over to the asset runtime; `store` walks the directory in the
//! CAS, makes sure that every file is there, uploads the Tree, the pins and the
//! Action that is the key, and writes the entries, the first URI's last.

pub mod proto;

pub mod budget;
pub mod call;
pub mod clock;
pub mod drain;
pub mod labour;
pub mod net;
pub mod telemetry;

pub mod digest;
pub mod intake;

pub mod asset;

pub mod embedded;
pub mod upstream;

pub mod fetcher;
pub mod store;

pub mod resolver;

pub mod admin;
pub mod api;
pub mod forward;
pub mod middleware;

pub mod config;

pub mod server;

pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
