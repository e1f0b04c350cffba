//! A client that sends what it likes, frame by frame, and says what it got.
//!
//! Not for: calls that are meant to succeed (`support::Client`).
//! Called by: `floods`, `floods_slow`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::support::PATIENCE;
use crate::server::sniff::PREFACE;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame on the wire.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header field, literal and not indexed, without Huffman's code.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        push_length(&mut bytes, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An HPACK integer with a prefix of 7 bits.
fn push_length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// The header block of a gRPC call.
pub(super) fn call_block(path: &str) -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "front.example"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .iter()
    .flat_map(|(name, value)| field(name, value))
    .collect()
}

/// What the server said.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Code and debug data of a GOAWAY.
    pub(super) goaway: Option<(u32, String)>,
    /// Streams and codes.
    pub(super) resets: Vec<(u32, u32)>,
    /// First bytes of header blocks, by stream. A status is the first field.
    pub(super) heads: Vec<(u32, Vec<u8>)>,
    /// DATA bytes.
    pub(super) data: usize,
    /// Whether the server ended the connection.
    pub(super) closed: bool,
}

impl Heard {
    /// Whether the stream was answered with this status (`:status` with the
    /// name indexed and a literal value, or one of the indexed ones).
    pub(super) fn has_status(&self, stream: u32, status: &str) -> bool {
        let indexed = match status {
            "200" => Some(0x88),
            _ => None,
        };
        self.heads.iter().any(|(of, block)| {
            let huffman = huffman_digits(status);
            *of == stream
                && (block.first().copied() == indexed
                    || block.windows(status.len()).any(|w| w == status.as_bytes())
                    || block.windows(huffman.len()).any(|w| w == huffman))
        })
    }
}

/// Digits in Huffman's code as of RFC 7541: 0-2 have five bits, 3-9 six.
fn huffman_digits(digits: &str) -> Vec<u8> {
    let (mut bits, mut count) = (0u64, 0);
    for digit in digits.bytes().map(|b| u64::from(b - b'0')) {
        let (code, length) = if digit < 3 {
            (digit, 5)
        } else {
            (0x19 + digit - 3, 6)
        };
        bits = bits << length | code;
        count += length;
    }
    while count % 8 != 0 {
        bits = bits << 1 | 1;
        count += 1;
    }
    bits.to_be_bytes()[8 - count / 8..].to_vec()
}

pub(super) struct Attacker {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    pub(super) heard: Heard,
    buffer: Vec<u8>,
}

impl Attacker {
    /// A TCP connection on which nothing was said.
    pub(super) async fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (read, write) = socket.into_split();
        Self {
            read,
            write,
            heard: Heard::default(),
            buffer: Vec::new(),
        }
    }

    /// One on which HTTP/2 began as it should.
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let mut attacker = Self::silent(address).await;
        let mut hello = PREFACE.to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        attacker.send(&hello).await;
        attacker
    }

    /// Sends; that the server is gone will be heard.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        drop(self.write.write_all(bytes).await);
    }

    /// Listens until `enough`, or the end of the connection.
    pub(super) async fn listen(&mut self, enough: impl Fn(&Heard) -> bool) -> &Heard {
        let listen = listen(&mut self.read, &mut self.buffer, &mut self.heard, enough);
        tokio::time::timeout(PATIENCE, listen)
            .await
            .expect("the server says nothing");
        &self.heard
    }

    /// Sends what `next` gives until it is told to go away, or until `until`.
    pub(super) async fn flood(&mut self, mut next: impl FnMut() -> Vec<u8>, until: Instant) {
        let talk = async {
            while Instant::now() < until {
                if self.write.write_all(&next()).await.is_err() {
                    // What was said before the socket was reset is still to be read.
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let told = |heard: &Heard| heard.goaway.is_some();
        let listen = listen(&mut self.read, &mut self.buffer, &mut self.heard, told);
        tokio::select! {
            () = listen => {}
            () = talk => {}
        }
        if self.heard.goaway.is_some() {
            drop(self.write.shutdown().await);
            self.listen(|_| false).await;
        }
    }
}

async fn listen(
    read: &mut OwnedReadHalf,
    buffer: &mut Vec<u8>,
    heard: &mut Heard,
    enough: impl Fn(&Heard) -> bool,
) {
    while !heard.closed && !enough(heard) {
        match read.read_buf(buffer).await {
            Ok(0) | Err(_) => heard.closed = true,
            Ok(_) => take_frames(buffer, heard),
        }
    }
}

fn take_frames(buffer: &mut Vec<u8>, heard: &mut Heard) {
    let mut from = 0;
    while let Some(head) = buffer[from..].first_chunk::<9>() {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b));
        let (length, kind, stream) = (number(&head[..3]) as usize, head[3], number(&head[5..]));
        let Some(payload) = buffer.get(from + 9..from + 9 + length) else {
            break;
        };
        match kind {
            DATA => heard.data += length,
            HEADERS => heard
                .heads
                .push((stream, payload[..length.min(64)].to_vec())),
            RST_STREAM => heard.resets.push((stream, number(payload))),
            GOAWAY => {
                let debug = String::from_utf8_lossy(&payload[8..]).into_owned();
                heard.goaway = Some((number(&payload[4..8]), debug));
            }
            _ => {}
        }
        from += 9 + length;
    }
    buffer.drain(..from);
}
