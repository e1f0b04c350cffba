//! A few 64 KiB buffers per thread, lent to whichever connection is busy.
//!
//! Connections come in thousands and are mostly idle; a buffer is only needed
//! between a wake-up and the end of that poll, so idle ones hold none.
//!
//! Not for: data that waits for its reader (a connection keeps the buffer it
//! was lent while bytes are in it).
//! Called by: `coalesce`.

use std::cell::RefCell;

/// Size of both buffers: 32 KiB gains half as much, 128 KiB no more
/// (measured).
pub(super) const SIZE: usize = 64 * 1024;

/// Buffers kept per thread and kind; what is returned beyond is freed.
const KEPT: usize = 8;

thread_local! {
    static READ: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer to read into: `SIZE` initialised bytes of no meaning.
pub(super) fn lend_read() -> Box<[u8]> {
    READ.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; SIZE].into_boxed_slice())
}

/// Takes a read buffer back.
pub(super) fn return_read(buffer: Box<[u8]>) {
    READ.with_borrow_mut(|kept| {
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}

/// An empty buffer with room for `SIZE` bytes.
pub(super) fn lend_write() -> Vec<u8> {
    WRITE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Takes a write buffer back; whatever is in it is dropped.
pub(super) fn return_write(mut buffer: Vec<u8>) {
    buffer.clear();
    WRITE.with_borrow_mut(|kept| {
        if kept.len() < KEPT && buffer.capacity() >= SIZE {
            kept.push(buffer);
        }
    });
}
