//! A plain TCP relay: the floor under every proxy that works with HTTP/2.
//!
//! relay --port P --to P
//!
//! One thread, two 64 KiB buffers a connection, `TCP_NODELAY` on both sides.
//!
//! Not for: a real relay; it has no limits and no time-outs.
//! Called by: `bench.sh`, as the peer `tcp`.

use grpc_fwd_bench::args::Args;
use tokio::net::{TcpListener, TcpStream};

const BUFFER: usize = 64 << 10;

async fn relay(mut client: TcpStream, to: u16) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut upstream = TcpStream::connect(("127.0.0.1", to)).await?;
    upstream.set_nodelay(true)?;
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::of_process();
    let to = args.num("--to", 0) as u16;
    let listener = TcpListener::bind(("127.0.0.1", args.num("--port", 0) as u16))
        .await
        .expect("bind");
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, to));
        }
    }
}
