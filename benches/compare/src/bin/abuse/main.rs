//! What harms a server, and who is harmed by it. All of it on one thread.
//!
//! abuse store     --port P                        (what the others ask for; once, before anything else)
//! abuse ATTACK    --port P [--front P] [--at front] [--secs 5]     (one of those in `attacks`)
//! abuse storm     --port P --front P [--secs 5]   (nearly all of them at once, from ten connections)
//! abuse honest    --port P --front P --pid SERVER... --busy PERCENT [--secs 5]
//!                                                 (right calls, as many as keep the servers that busy)
//! abuse bystander --port P --front P --pid SERVER... [--secs 5] [--fresh 1]
//!
//! --port is the server with the embedded cache, --front the one whose upstream that is. An attack prints what came of its
//! calls, a line each. The bystander prints a line of `key value` pairs and ends with 1 when an answer was wrong or missing.
//!
//! Not for: what an honest load costs; that is `load`.
//! Called by: `tests/abuse.sh`.

mod attacks;
mod bystander;
mod calls;
mod client;
mod frames;
mod honest;
mod memory;
mod stored;
mod streams;

use grpc_fwd_bench::args::Args;
use std::rc::Rc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let a = Rc::new(Args::of_process());
    let work = async {
        match a.command() {
            "store" => stored::store(&a).await,
            "bystander" => bystander::bystander(&a).await,
            "honest" => honest::honest(a).await,
            "" => Err("usage: abuse store|ATTACK|storm|honest|bystander ...".into()),
            _ => {
                attacks::run(&a).await;
                Ok(())
            }
        }
    };
    if let Err(error) = tokio::task::LocalSet::new().run_until(work).await {
        eprintln!("failed: {error}");
        std::process::exit(1);
    }
    // What is still open goes with the process.
    std::process::exit(0);
}
