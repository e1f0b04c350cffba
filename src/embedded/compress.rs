//! zstd, with bounded memory in both directions.
//!
//! Not for: gRPC-level compression.
//! Called by: `read.rs`, `write.rs`, `cas.rs`.

use std::io::{self, Write};

use zstd::stream::raw::{DParameter, Operation};

/// Fast: a cache is read over fast networks more often than over slow ones.
const LEVEL: i32 = 1;

/// Largest window a sender may use: 8 MiB, what RFC 8878 asks every decoder
/// to support. More would let each upload take 128 MiB of memory.
const WINDOW_LOG: u32 = 23;

const BUFFER: usize = 128 << 10;

/// Decompresses a stream piece by piece.
pub(super) struct Decoder {
    inner: zstd::stream::raw::Decoder<'static>,
    buffer: Vec<u8>,
    at_end: bool,
}

impl Decoder {
    /// Most bytes that one step gives.
    pub(super) const STEP: usize = BUFFER;

    /// A decoder at the beginning of a stream.
    pub(super) fn new() -> io::Result<Self> {
        let mut inner = zstd::stream::raw::Decoder::new()?;
        inner.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        let buffer = vec![0; BUFFER];
        let at_end = false;
        Ok(Self {
            inner,
            buffer,
            at_end,
        })
    }

    /// Whether a frame ended with the input so far.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Decompresses from the front of `input` until it, or the buffer for the
    /// output, is used up. Empty output means that nothing is left.
    pub(super) fn step(&mut self, input: &mut &[u8]) -> io::Result<&[u8]> {
        loop {
            let status = self.inner.run_on_buffers(input, &mut self.buffer)?;
            *input = input.get(status.bytes_read..).unwrap_or_default();
            if status.bytes_read > 0 || status.bytes_written > 0 {
                self.at_end = status.remaining == 0;
            }
            if status.bytes_written > 0 || input.is_empty() {
                let output = self.buffer.get(..status.bytes_written);
                return Ok(output.unwrap_or_default());
            }
        }
    }
}

/// Compresses a stream piece by piece.
pub(super) struct Encoder(zstd::stream::write::Encoder<'static, Vec<u8>>);

impl Encoder {
    /// An encoder at the beginning of a stream.
    pub(super) fn new() -> io::Result<Self> {
        zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map(Self)
    }

    /// Takes in `bytes`; what comes out may be empty.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(bytes)?;
        Ok(std::mem::take(self.0.get_mut()))
    }

    /// The end of the stream.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}

/// Compresses what is in memory.
pub(super) fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, LEVEL)
}

/// Decompresses what is in memory, to at most `size` bytes.
pub(super) fn decompress(bytes: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::new()?;
    let mut rest = bytes;
    let mut whole = Vec::with_capacity(size);
    loop {
        let piece = decoder.step(&mut rest)?;
        if piece.is_empty() {
            break;
        }
        if whole.len() + piece.len() > size {
            return Err(io::Error::other("it is longer than its digest says"));
        }
        whole.extend_from_slice(piece);
    }
    if !decoder.at_end() {
        return Err(io::Error::other("the zstd stream is cut off"));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8 & 0x3f
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn pieces_come_back_whole_whatever_their_size() {
        let data = noise(700_001);
        let mut encoder = Encoder::new().unwrap();
        let mut stream = Vec::new();
        for piece in data.chunks(100_000) {
            stream.extend(encoder.push(piece).unwrap());
        }
        stream.extend(encoder.finish().unwrap());
        for size in [1, 1000, stream.len()] {
            let mut decoder = Decoder::new().unwrap();
            let mut whole = Vec::new();
            for mut piece in stream.chunks(size) {
                loop {
                    let out = decoder.step(&mut piece).unwrap();
                    if out.is_empty() {
                        break;
                    }
                    whole.extend_from_slice(out);
                }
            }
            assert!(decoder.at_end());
            assert!(whole == data);
        }
    }

    #[test]
    fn several_frames_are_one_stream() {
        let mut both = compress(b"one").unwrap();
        both.extend(compress(b"two").unwrap());
        assert_eq!(decompress(&both, 6).unwrap(), b"onetwo");
    }

    #[test]
    fn a_bomb_a_cut_and_garbage_are_errors() {
        let bomb = compress(&vec![0; 10 << 20]).unwrap();
        assert!(decompress(&bomb, 1000).is_err());
        let whole = compress(b"hello").unwrap();
        assert!(decompress(&whole[..whole.len() - 1], 5).is_err());
        assert!(decompress(b"not zstd", 5).is_err());
        assert!(decompress(b"", 0).is_err());
    }

    #[test]
    fn a_window_over_eight_mebibytes_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&noise(1000)).unwrap();
        let stream = encoder.finish().unwrap();
        assert!(decompress(&stream, 1000).is_err());
    }
}
