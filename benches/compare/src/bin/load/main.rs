//! Load client: gRPC over HTTP/2 with prior knowledge, hand-framed bodies.
//!
//! load call   --port P                                          (one unary call: does it answer?)
//! load unary  --port P [--conns 1] [--streams 10] [--secs 5] [--rate 0] [--req 100] [--method M] [--pid PROXY]
//! load read   --port P [--conns 1] [--streams 1] [--count 16] [--size 67108864] [--chunk 65536] [--pid PROXY]
//! load write  --port P ... same flags as read
//! load hold   --port P [--conns 10] [--streams 1000] [--secs 5] [--take 65536] [--pid PROXY] [--stats PORT]
//! load hold-write --port P ... [--stall-ms 60000]   (same for writers; --stall-ms: the upstream does not read)
//! load cancel --port P [--streams 200] [--stats PORT] [--pid PROXY]
//! load cancel-burst --port P --pid PROXY [--streams 100]   (stops the proxy for 50 ms with SIGSTOP)
//! load stats  --stats PORT
//!
//! Common: --frame 16384 --win-stream 1048576 --win-conn 1048576 (what grpc-java, so Bazel, announces);
//! --tls-ca FILE: TLS 1.3, one cipher suite.
//! --pid may be given more than once; CPU is the sum over those processes, from schedstat.
//! Every command prints one line of `key value` pairs.
//!
//! Not for: calls per second at many connections; that is h2load.
//! Called by: `bench.sh`, by way of `measure.py`.

mod cancel;
mod client;
mod hold;
mod stream;
mod unary;

use grpc_fwd_bench::args::Args;
use std::rc::Rc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let a = Rc::new(Args::of_process());
    tokio::task::LocalSet::new()
        .run_until(async move {
            match a.command() {
                "call" => unary::once(&a).await,
                "unary" => unary::unary(a).await,
                "read" => stream::stream(a, false).await,
                "write" => stream::stream(a, true).await,
                "hold" => hold::hold(a, false).await,
                "hold-write" => hold::hold(a, true).await,
                "cancel" => cancel::cancel(a).await,
                "cancel-burst" => cancel::burst(a).await,
                "stats" => println!("{}", client::stub_stats(a.num("--stats", 0) as u16).await),
                _ => {
                    eprintln!("usage: load call|unary|read|write|hold|hold-write|cancel|cancel-burst|stats --port P ...");
                    std::process::exit(2);
                }
            }
        })
        .await;
}
