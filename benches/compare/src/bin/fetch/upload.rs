//! A bare ByteStream.Write of a file.
//!
//! Not for: hashing it; the caller knows the digest.
//! Called by: `main`.

use crate::client::{call, connect};
use bytes::Bytes;
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::wire::{self, Value};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use std::fs::File;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

const MESSAGE: u64 = 1 << 20;

/// The file as WriteRequests, head and data in frames of their own.
struct Writes {
    file: File,
    name: String,
    at: u64,
    size: u64,
    data: Option<Bytes>,
}

impl Writes {
    /// The head of the next message; its data is kept for the next frame.
    fn next(&mut self) -> std::io::Result<Bytes> {
        let mut data = vec![0; MESSAGE.min(self.size - self.at) as usize];
        self.file.read_exact(&mut data)?;
        let name = (self.at == 0).then_some(self.name.as_str());
        let last = self.at + data.len() as u64 == self.size;
        let head = wire::write_head(name, self.at, last, data.len());
        self.at += data.len() as u64;
        self.data = Some(data.into());
        Ok(head)
    }
}

impl Body for Writes {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.at == self.size {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(self.next().map(Frame::data)))
    }
}

pub async fn one(a: &Args) -> u64 {
    let file = File::open(a.text("--file").expect("--file")).expect("the file");
    let size = file.metadata().expect("the file").len();
    let hash = a.text("--sha256").expect("--sha256");
    let mut conn = connect(a.num("--port", 0) as u16).await;
    let pid = u128::from(std::process::id());
    let uuid = format!("{:08x}-0000-4000-8000-{:012x}", pid, size);
    let body = Writes {
        file,
        name: format!("uploads/{uuid}/blobs/{hash}/{size}"),
        at: 0,
        size,
        data: None,
    };
    let began = Instant::now();
    let answer = call(
        &mut conn,
        "/google.bytestream.ByteStream/Write",
        body.boxed_unsync(),
    )
    .await;
    println!("upload seconds {:.3}", began.elapsed().as_secs_f64());
    let committed = answer.map(|message| {
        let of = |(number, value)| match (number, value) {
            (1, Value::Number(n)) => Some(n),
            _ => None,
        };
        wire::fields(&message).into_iter().find_map(of)
    });
    if committed == Ok(Some(size)) {
        return 0;
    }
    eprintln!("failed: {committed:?}, {size} bytes to write");
    1
}
