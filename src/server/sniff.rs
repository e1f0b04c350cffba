//! Reads the first bytes of a connection: HTTP/2, or a refusal.
//!
//! Not for: TLS, which is done before.
//! Called by: `connection`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What an HTTP/2 client says first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The one answer an HTTP/1 client gets.
const REFUSAL: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    content-type: text/plain\r\n\
    content-length: 70\r\n\
    connection: close\r\n\r\n\
    This port speaks gRPC over HTTP/2 only. Metrics are on the admin port.";

/// How long an HTTP/1 client may go on sending after it was refused.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    Http2,
    Http1,
    Garbage,
    Closed,
}

/// Reads until it is clear what the client speaks; for HTTP/2 that is exactly
/// the preface.
pub(super) async fn sniff<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Sniffed> {
    let mut bytes = [0; PREFACE.len()];
    let mut length = 0;
    while length < bytes.len() {
        let read = stream.read(&mut bytes[length..]).await?;
        if read == 0 {
            return Ok(Sniffed::Closed);
        }
        length += read;
        let so_far = &bytes[..length];
        if !PREFACE.starts_with(so_far)
            && let Some(other) = no_http2(so_far)
        {
            return Ok(other);
        }
    }
    Ok(if bytes == *PREFACE {
        Sniffed::Http2
    } else {
        Sniffed::Garbage
    })
}

/// HTTP/1 begins with a method: a few capitals and a space.
fn no_http2(bytes: &[u8]) -> Option<Sniffed> {
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase()).count();
    match bytes.get(method) {
        // `PRI` is no method of HTTP/1: this is a broken preface.
        Some(b' ') if method > 0 && &bytes[..method] != b"PRI" => Some(Sniffed::Http1),
        None if bytes.len() < PREFACE.len() => None,
        _ => Some(Sniffed::Garbage),
    }
}

/// Answers an HTTP/1 client. What it still sends is read for a moment: closing
/// a socket with unread bytes would reset it and lose the answer.
pub(super) async fn refuse_http1<S>(stream: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    let mut sink = [0; 1024];
    let rest = async {
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    match tokio::time::timeout(LINGER, rest).await {
        Ok(result) => result,
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sniff_pieces(pieces: &[&[u8]]) -> Sniffed {
        let mut io = tokio_test_reader(pieces);
        sniff(&mut io).await.unwrap()
    }

    /// Yields each piece on its own, then the end.
    fn tokio_test_reader(pieces: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|p| io::Result::Ok(bytes::Bytes::copy_from_slice(p)))
            .collect();
        tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn tells_http2_from_http1_from_garbage() {
        let (front, back) = PREFACE.split_at(7);
        for (pieces, wanted) in [
            (&[&PREFACE[..]][..], Sniffed::Http2),
            (&[front, back], Sniffed::Http2),
            (&[b"GET / HTTP/1.1\r\n"], Sniffed::Http1),
            (&[b"PO", b"ST", b" /"], Sniffed::Http1),
            (&[b"P", b"UT /x"], Sniffed::Http1),
            (&[b"\x16\x03\x01\x02\x00"], Sniffed::Garbage),
            (&[b"PRI * HTTP/1.1\r\n"], Sniffed::Garbage),
            (&[b"\0"], Sniffed::Garbage),
            (&[b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"], Sniffed::Garbage),
            (&[b"PRI *"], Sniffed::Closed),
            (&[], Sniffed::Closed),
        ] {
            assert_eq!(sniff_pieces(pieces).await, wanted, "{pieces:?}");
        }
    }

    #[test]
    fn the_refusal_has_the_length_it_announces() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
