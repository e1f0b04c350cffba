//! The frames of one kind of call, as bytes, and the reading of frame heads.
//!
//! Not for: when to send which (`peer`).
//! Called by: `peer`.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_FRAME_SIZE: u16 = 5;

/// Both windows of a peer, as grpc-java announces them.
pub(crate) const WINDOW: usize = 1024 * 1024;
/// What a connection's window is before anybody says anything.
pub(crate) const FIRST_WINDOW: usize = 65_535;

const HEAD: usize = 9;

/// One kind of call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// `/service/method`.
    pub(crate) path: &'static str,
    /// Bytes of the request's body.
    pub(crate) request: usize,
    /// Bytes of the answer's body.
    pub(crate) response: usize,
    /// The largest DATA frame that the peers send and take.
    pub(crate) frame: usize,
}

pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    head(out, kind, flags, stream, payload.len());
    out.extend_from_slice(payload);
}

pub(crate) fn head(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, by: usize) {
    let by = u32::try_from(by).unwrap_or(u32::MAX);
    frame(out, WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

/// What a peer says first, after the preface.
pub(crate) fn settings(out: &mut Vec<u8>, largest: usize) {
    let mut payload = Vec::new();
    for (id, value) in [
        (MAX_CONCURRENT_STREAMS, 1000),
        (INITIAL_WINDOW_SIZE, WINDOW),
        (MAX_FRAME_SIZE, largest),
    ] {
        payload.extend_from_slice(&id.to_be_bytes());
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(out, SETTINGS, 0, 0, &payload);
    window_update(out, 0, WINDOW - FIRST_WINDOW);
}

/// The values of the settings in a SETTINGS frame.
pub(crate) fn each_setting(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload.chunks_exact(6).map(|entry| {
        let value = [entry[2], entry[3], entry[4], entry[5]];
        (
            u16::from_be_bytes([entry[0], entry[1]]),
            u32::from_be_bytes(value),
        )
    })
}

/// A list of header fields as it is sent the first time on a connection, and
/// from then on, when the other side knows them.
#[derive(Debug, Default)]
pub(crate) struct Block {
    first: Vec<u8>,
    later: Vec<u8>,
    used: bool,
}

impl Block {
    pub(crate) fn take(&mut self) -> &[u8] {
        if std::mem::replace(&mut self.used, true) {
            &self.later
        } else {
            &self.first
        }
    }
}

/// A field of which HPACK knows name and value, or only the name, or nothing.
enum Field<'a> {
    Known(u8),
    Named(u8, &'a str),
    New(&'a str, &'a str),
}

fn string(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..127 => out.push(short as u8),
        long => {
            out.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Blocks that follow each other on one connection, so that each finds the
/// fields of those before it in the table.
fn blocks<const N: usize>(lists: [&[Field<'_>]; N]) -> [Block; N] {
    const FIRST_DYNAMIC: usize = 62;
    let is_new = |field: &&Field<'_>| !matches!(field, Field::Known(_));
    let mut newer = lists
        .iter()
        .flat_map(|list| list.iter())
        .filter(is_new)
        .count();
    lists.map(|list| {
        let mut block = Block::default();
        for field in list {
            match field {
                Field::Known(index) => {
                    block.first.push(0x80 | index);
                    block.later.push(0x80 | index);
                    continue;
                }
                Field::Named(index, value) => {
                    block.first.push(0x40 | index);
                    string(&mut block.first, value);
                }
                Field::New(name, value) => {
                    block.first.push(0x40);
                    string(&mut block.first, name);
                    string(&mut block.first, value);
                }
            }
            newer -= 1;
            block.later.push(0x80 | (FIRST_DYNAMIC + newer) as u8);
        }
        block
    })
}

/// The head of a request, as Bazel sends it.
pub(crate) fn request(call: &Call) -> Block {
    let metadata = "CgwKBWJhemVsEgU4LjQuMhIkYTNmNmI5YzAtNWQxYi00ZTJmLTlhN2MtMGQxZTJmM2E0YjVjGi\
        QwZjFlMmQzYy00YjVhLTY5NzgtODc5Ni1hNWI0YzNkMmUxZjAiCkNwcENvbXBpbGUqFC8vc3JjL21haW46YmF6ZWw";
    let [block] = blocks([&[
        Field::Known(3), // :method: POST
        Field::Known(6), // :scheme: http
        Field::Named(4, call.path),
        Field::Named(1, "cache.example:8980"),
        Field::New("te", "trailers"),
        Field::Named(31, "application/grpc"),
        Field::Named(58, "grpc-java-netty/1.71.0"),
        Field::New("grpc-accept-encoding", "gzip"),
        Field::New(
            "build.bazel.remote.execution.v2.requestmetadata-bin",
            metadata,
        ),
    ]]);
    block
}

/// The head of an answer and its trailers.
pub(crate) fn answer() -> [Block; 2] {
    blocks([
        &[Field::Known(8), Field::Named(31, "application/grpc")],
        &[Field::New("grpc-status", "0")],
    ])
}

/// A frame as far as a peer looks at it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) length: usize,
}

impl Head {
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes of a preface that are still to come.
    pub(crate) preface: usize,
    head: Vec<u8>,
    current: Option<Head>,
    left: usize,
    /// The payload of frames whose payload matters.
    kept: Vec<u8>,
}

impl Frames {
    /// Takes from the front of `bytes` what completes a frame; `None` when all
    /// of them were taken and none is complete.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<(Head, &[u8])> {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        *bytes = &bytes[skipped..];
        let current = match self.current {
            Some(current) => current,
            None => {
                let (front, rest) = bytes.split_at((HEAD - self.head.len()).min(bytes.len()));
                self.head.extend_from_slice(front);
                *bytes = rest;
                self.read_head()?
            }
        };
        let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
        if !matches!(current.kind, DATA | HEADERS) {
            self.kept.extend_from_slice(payload);
        }
        *bytes = rest;
        self.left -= payload.len();
        if self.left > 0 {
            return None;
        }
        self.current = None;
        Some((current, &self.kept))
    }

    fn read_head(&mut self) -> Option<Head> {
        let &[a, b, c, kind, flags, s, t, u, v] = self.head.as_slice() else {
            return None;
        };
        let current = Head {
            kind,
            flags,
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
            length: u32::from_be_bytes([0, a, b, c]) as usize,
        };
        self.head.clear();
        self.kept.clear();
        self.left = current.length;
        self.current = Some(current);
        Some(current)
    }
}
