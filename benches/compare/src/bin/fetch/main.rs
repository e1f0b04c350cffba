//! Downloads into a cache, and what they are measured against. All of it on one thread.
//!
//! fetch origin   --port-file FILE       (an origin: see `origin`)
//! fetch blob     --port P --uri URL --sha256 HEX --size N            (one FetchBlob)
//! fetch blobs    --port P --origin URL --run NAME [--count 2000] [--at-once 2000] [--size 65536] [--conns 20]
//!                [--path made] [--same 1] [--pid SERVER]             (many, all made up by `fetch origin`)
//! fetch download --origin URL --run NAME [--count 2000] [--at-once 64] [--size 65536]   (a plain loop: GET and SHA-256)
//! fetch upload   --port P --file FILE --sha256 HEX                   (one bare ByteStream.Write)
//!
//! Every name of a run is new to a cache when `--run` is. `--same 1`: all calls ask for one name.
//! Every command but `origin` prints one line of `key value` pairs, and ends with 1 when an answer was not the right one.
//!
//! Not for: calls that a cache answers from what it has; that is `load` and h2load.
//! Called by: `tests/fetch_miss.sh`.

mod blobs;
mod client;
mod download;
mod made;
mod origin;
mod upload;

use grpc_fwd_bench::args::Args;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let a = Args::of_process();
    let errors = tokio::task::LocalSet::new()
        .run_until(async move {
            match a.command() {
                "origin" => origin::serve(&a).await,
                "blob" => blobs::one(&a).await,
                "blobs" => blobs::many(&a).await,
                "download" => download::many(&a).await,
                "upload" => upload::one(&a).await,
                _ => {
                    eprintln!("usage: fetch origin|blob|blobs|download|upload ...");
                    std::process::exit(2);
                }
            }
        })
        .await;
    std::process::exit(i32::from(errors > 0));
}
