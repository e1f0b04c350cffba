//! Tests of the coalescing stream, without HTTP/2.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::Waker;

use hyper::rt::ReadBuf as HyperBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

async fn write(io: &mut Coalesced<DuplexStream>, data: &[u8]) -> io::Result<usize> {
    poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, data)).await
}

/// One poll of a write, with a waker that does nothing.
fn try_write(io: &mut Coalesced<DuplexStream>, data: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(io).poll_write(&mut Context::from_waker(Waker::noop()), data)
}

async fn read(io: &mut Coalesced<DuplexStream>, room: usize) -> Vec<u8> {
    let mut memory = vec![0; room];
    let mut buffer = HyperBuf::new(&mut memory);
    poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, buffer.unfilled()))
        .await
        .unwrap();
    buffer.filled().to_vec()
}

async fn flush(io: &Coalesced<DuplexStream>) {
    poll_fn(|cx| {
        io.flush(cx);
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn small_writes_are_sent_together_at_the_flush_and_not_before() {
    let (near, mut far) = duplex(1 << 20);
    let mut io = Coalesced::new(near);
    write(&mut io, b"one ").await.unwrap();
    let two = [IoSlice::new(b"two "), IoSlice::new(b"three")];
    poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &two))
        .await
        .unwrap();
    poll_fn(|cx| Pin::new(&mut io).poll_flush(cx))
        .await
        .unwrap();
    let mut got = [0; 64];
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), far.read(&mut got));
    assert!(early.await.is_err(), "HTTP/2's own flush sends nothing");
    flush(&io).await;
    assert_eq!(far.read(&mut got).await.unwrap(), 13);
    assert_eq!(&got[..13], b"one two three");
    assert!(io.inner.lock().write.holds_nothing(), "idle: no buffer");
}

#[tokio::test]
async fn what_does_not_fit_goes_out_with_what_was_collected_in_order() {
    let (near, mut far) = duplex(1 << 20);
    let mut io = Coalesced::new(near);
    let mut expected = Vec::new();
    for (index, size) in [10, 70_000, 5, 65_000, 65_536, 1].into_iter().enumerate() {
        let data = vec![index as u8; size];
        let mut rest = &data[..];
        while !rest.is_empty() {
            rest = &rest[write(&mut io, rest).await.unwrap()..];
        }
        expected.extend(data);
    }
    flush(&io).await;
    let mut got = vec![0; expected.len()];
    far.read_exact(&mut got).await.unwrap();
    assert!(got == expected);
}

#[tokio::test]
async fn a_full_socket_pushes_back_and_loses_nothing() {
    let (near, mut far) = duplex(1000);
    let mut io = Coalesced::new(near);
    let mut accepted = 0;
    while let Poll::Ready(written) = try_write(&mut io, &[7; 1000]) {
        accepted += written.unwrap();
        assert!(accepted <= SIZE + 2000, "bounded");
    }
    assert!(accepted > 32 * 1024);
    let mut got = Vec::new();
    // Shutting down sends the rest first.
    let shut_down = async {
        poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx))
            .await
            .unwrap();
        drop(io);
    };
    let (read, ()) = tokio::join!(far.read_to_end(&mut got), shut_down);
    assert_eq!(read.unwrap(), accepted);
}

#[tokio::test]
async fn an_error_of_the_flush_is_reported_by_the_next_write() {
    let (near, far) = duplex(1000);
    let mut io = Coalesced::new(near);
    write(&mut io, b"lost").await.unwrap();
    drop(far);
    flush(&io).await;
    let error = write(&mut io, b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn reads_are_buffered_and_the_sniffed_bytes_come_first() {
    let (near, mut far) = duplex(1 << 20);
    let mut io = Coalesced::with_client(near, b"preface");
    far.write_all(b"frame and more").await.unwrap();
    assert_eq!(read(&mut io, 3).await, b"pre");
    assert_eq!(read(&mut io, 100).await, b"face");
    assert_eq!(read(&mut io, 5).await, b"frame");
    // Large reads skip the buffer, but never what is in it.
    far.write_all(&[1; 70_000]).await.unwrap();
    assert_eq!(read(&mut io, 1 << 20).await, b" and more");
    assert!(io.inner.lock().read.is_none(), "idle: no buffer");
    assert_eq!(read(&mut io, 1 << 20).await, vec![1; 70_000]);
    drop(far);
    assert_eq!(read(&mut io, 10).await, b"");
}

/// Reads until the stream does not give more in this poll.
fn read_in_one_poll(io: &mut Coalesced<DuplexStream>, room: usize) -> usize {
    let mut memory = vec![0; room];
    let mut total = 0;
    loop {
        let mut buffer = HyperBuf::new(&mut memory);
        let mut cx = Context::from_waker(Waker::noop());
        let polled = Pin::new(&mut *io).poll_read(&mut cx, buffer.unfilled());
        match polled {
            Poll::Ready(result) => result.unwrap(),
            Poll::Pending => return total,
        }
        total += buffer.filled().len();
    }
}

#[tokio::test]
async fn one_poll_reads_a_turn_and_the_next_goes_on() {
    // 8 KiB is what HTTP/2 asks for at first, 256 KiB what it does in bulk.
    for (frame, room, most) in [
        (
            &[0, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0][..],
            8 << 10,
            16 << 10,
        ),
        // Large heads.
        (&[0, 0x20, 0, 1, 4, 0, 0, 0, 1], 8 << 10, 32 << 10),
        (
            &[0, 0x40, 0, 0, 0, 0, 0, 0, 1],
            256 << 10,
            TURN + (256 << 10),
        ),
    ] {
        let (near, mut far) = duplex(4 << 20);
        let mut io = Coalesced::with_client(near, b"");
        let mut bytes = frame.to_vec();
        let length = usize::from(frame[1]) << 8 | usize::from(frame[2]);
        bytes.resize(9 + length, 0);
        let bytes = bytes.repeat((4 << 20) / bytes.len());
        far.write_all(&bytes).await.unwrap();
        let (mut total, mut polls) = (0, 0);
        while total < bytes.len() {
            let read = read_in_one_poll(&mut io, room);
            assert!((1..=most).contains(&read), "{read} of {most}");
            flush(&io).await;
            // Else tokio ends what it takes for one poll.
            tokio::task::yield_now().await;
            total += read;
            polls += 1;
        }
        assert!(polls >= bytes.len() / most);
    }
}

#[tokio::test]
async fn a_turn_lasts_until_the_poll_ends_however_often_is_read() {
    let (near, mut far) = duplex(4 << 20);
    let mut io = Coalesced::with_client(near, b"");
    let frame = [0, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    far.write_all(&frame.repeat(10_000)).await.unwrap();
    let first = read_in_one_poll(&mut io, 8 << 10);
    assert!(first > 0);
    // As HTTP/2 does for each call that it hands on.
    for _ in 0..3 {
        assert_eq!(read_in_one_poll(&mut io, 8 << 10), 0);
    }
    flush(&io).await;
    assert!(read_in_one_poll(&mut io, 8 << 10) > 0);
}

#[tokio::test]
async fn an_offence_ends_the_reading_and_is_known() {
    let (near, mut far) = duplex(4 << 20);
    let mut io = Coalesced::with_client(near, b"preface");
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    far.write_all(&ping.repeat(10_000)).await.unwrap();
    for _ in 0..1000 {
        read_in_one_poll(&mut io, 8 << 10);
        flush(&io).await;
    }
    assert_eq!(io.conduct().offence, None);
    far.write_all(&ping.repeat(30_000)).await.unwrap();
    for _ in 0..1000 {
        read_in_one_poll(&mut io, 8 << 10);
        flush(&io).await;
    }
    assert_eq!(io.conduct().offence, Some(crate::net::Offence::Pings));
}

#[tokio::test]
async fn the_last_word_is_said_between_frames_only() {
    for whole in [false, true] {
        let (near, mut far) = duplex(1 << 20);
        let mut io = Coalesced::with_client(near, b"");
        write(&mut io, &[0, 0, 4, 0, 0, 0, 0, 0, 1]).await.unwrap();
        if whole {
            write(&mut io, b"data").await.unwrap();
        }
        io.go_away(11, "why");
        poll_fn(|cx| io.poll_close(cx)).await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        let goaway = &[
            &[0, 0, 11, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11][..],
            b"why",
        ]
        .concat();
        assert_eq!(got.ends_with(goaway), whole, "{got:?}");
        assert_eq!(got.len(), if whole { 13 + 20 } else { 9 });
    }
}

#[tokio::test]
async fn the_first_words_are_told_apart() {
    for (bytes, wanted) in [
        (&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], FirstWords::Http2),
        (b"HTTP/1.1 400", FirstWords::Other),
        (b"", FirstWords::Nothing),
    ] {
        let (near, mut far) = duplex(1000);
        let mut io = Coalesced::new(near);
        far.write_all(bytes).await.unwrap();
        drop(far);
        let listener = io.clone();
        let (first, _) = tokio::join!(poll_fn(|cx| listener.poll_first(cx)), read(&mut io, 10));
        assert_eq!(first, wanted);
    }
}
