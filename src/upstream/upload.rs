//! The body of a request on its way upstream, which can be had back while
//! little of it was sent.
//!
//! A call that the upstream provably never looked at (REFUSED_STREAM, above
//! GOAWAY's last stream) is sent again on another connection, so the beginning
//! of its body is kept until the upstream answers.
//!
//! Not for: HTTP/2 windows (`pump`), deciding whether to send again (`pool`).
//! Called by: `forward` and `service` make the bodies, `pump` reads them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower::BoxError;

/// How much of a body is kept for sending it again.
const KEPT: usize = 64 * 1024;

/// What an upstream call carries.
#[derive(Debug)]
pub enum RequestBody {
    /// The body of a forwarded call, passed on as it comes.
    Passthrough(Incoming),
    /// A body of our own.
    Boxed(tonic::body::Body),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Passthrough(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passthrough(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        // Hidden: a content-length would be made of it.
        SizeHint::default()
    }
}

/// A body that keeps its beginning until it is known that it will not be needed
/// again.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// The next kept piece to give out, below `kept.len()` only the second time.
    next: usize,
    /// Whether `kept` is everything that was read.
    whole: bool,
}

impl From<RequestBody> for Upload {
    fn from(body: RequestBody) -> Self {
        Self {
            body,
            kept: Vec::new(),
            kept_bytes: 0,
            next: 0,
            whole: true,
        }
    }
}

impl Upload {
    /// The body from its beginning, if that is still there.
    pub(super) fn rewind(mut self) -> Option<Self> {
        self.next = 0;
        self.whole.then_some(self)
    }

    /// It will not be needed again.
    pub(super) fn let_go(&mut self) {
        // Pieces that are still to be given out stay.
        if self.next == self.kept.len() {
            self.kept = Vec::new();
            self.next = 0;
        }
        self.whole = false;
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(piece) = self.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.whole {
            match &frame {
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(piece) => self.keep(piece),
                    // gRPC requests have none; what has is not sent again.
                    None => self.let_go(),
                },
                Some(Err(_)) => self.let_go(),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, piece: &Bytes) {
        if self.kept_bytes + piece.len() > KEPT {
            return self.let_go();
        }
        self.kept_bytes += piece.len();
        self.kept.push(piece.clone());
        self.next += 1;
    }

    pub(super) fn is_end(&self) -> bool {
        self.next >= self.kept.len() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::future::poll_fn;

    /// A body of these pieces.
    fn upload(pieces: &[&'static [u8]]) -> Upload {
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, tonic::Status>(Frame::data(Bytes::from_static(piece))))
            .collect();
        let body = StreamBody::new(tokio_stream::iter(frames)).boxed_unsync();
        RequestBody::Boxed(tonic::body::Body::new(body)).into()
    }

    async fn next(upload: &mut Upload) -> Option<Bytes> {
        let frame = poll_fn(|cx| upload.poll_frame(cx)).await?;
        Some(frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn what_was_read_is_given_out_again_before_the_rest() {
        let mut upload = upload(&[b"one", b"two", b"three"]);
        assert_eq!(next(&mut upload).await.unwrap(), "one");
        assert_eq!(next(&mut upload).await.unwrap(), "two");
        let mut again = upload.rewind().unwrap();
        for piece in ["one", "two", "three"] {
            assert_eq!(next(&mut again).await.unwrap(), piece);
        }
        assert!(next(&mut again).await.is_none());
        assert!(again.rewind().is_some(), "a third time");
    }

    #[tokio::test]
    async fn what_is_let_go_or_too_long_cannot_be_had_back() {
        let mut gone = upload(&[b"one", b"two"]);
        next(&mut gone).await;
        gone.let_go();
        assert_eq!(next(&mut gone).await.unwrap(), "two");
        assert!(gone.kept.is_empty() && gone.rewind().is_none());

        let mut long = upload(&[&[0; KEPT], b"!"]);
        next(&mut long).await;
        next(&mut long).await;
        assert!(long.kept.is_empty() && long.rewind().is_none());
    }

    #[tokio::test]
    async fn letting_go_in_a_replay_loses_nothing() {
        let mut upload = upload(&[b"one", b"two", b"three"]);
        next(&mut upload).await;
        next(&mut upload).await;
        let mut again = upload.rewind().unwrap();
        assert_eq!(next(&mut again).await.unwrap(), "one");
        again.let_go();
        assert_eq!(next(&mut again).await.unwrap(), "two");
        assert_eq!(next(&mut again).await.unwrap(), "three");
    }
}
