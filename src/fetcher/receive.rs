//! Takes in one response body: counts it and passes it on, within bounds.
//!
//! Not for: response heads (`download`), nor where the bytes go (`sink`).
//! Called by: `download`.

use std::io;
use std::time::Duration;

use http_body_util::BodyExt as _;

use super::exchange::Body;
use super::failed::Failed;
use super::sink::Sink;
use super::{Failure, FetchError};

/// Why a body is not there: the origin's fault, or ours.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    /// The next mirror may do better.
    Origin(Failed),
    /// No other mirror would help.
    Fatal(FetchError),
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Stop::Origin(failed)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as E;
        let full = [E::StorageFull, E::QuotaExceeded, E::FileTooLarge];
        if error.kind() == E::Unsupported {
            return Stop::Fatal(FetchError::NoRoom(error.to_string()));
        }
        if error.kind() == E::NotFound {
            let text = "the directory where downloads wait is gone and cannot be made again: the \
                        operator has to make it, or to set fetch.spool_dir";
            return Stop::Fatal(FetchError::NoPlace(text.to_owned()));
        }
        Stop::Fatal(if full.contains(&error.kind()) {
            let text = "the disk where downloads wait is full: fetch.spool_dir needs more room";
            FetchError::NoRoom(text.to_owned())
        } else {
            FetchError::Internal(format!("cannot keep what is being fetched: {error}"))
        })
    }
}

/// What bounds one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Its whole length, if the origin says it.
    pub(super) announced: Option<u64>,
    /// Bytes accepted.
    pub(super) limit: u64,
    /// Longest silence.
    pub(super) stall: Duration,
}

impl Bounds {
    pub(super) fn too_large(&self) -> Failed {
        let size = self.announced.map(|n| format!("{n} bytes are "));
        let size = size.unwrap_or_default();
        let text = format!("{size}more than the limit of {} bytes", self.limit);
        Failed::new(Failure::TooLarge, text)
    }
}

/// Passes `body`, or the rest of one, on to `sink`. Tells `arrived` of the
/// bytes, on failure too.
pub(super) async fn receive(
    mut body: Body,
    sink: &mut Sink<'_>,
    bounds: &Bounds,
    mut arrived: impl FnMut(usize),
) -> Result<(), Stop> {
    loop {
        let received = sink.received();
        let frame = match tokio::time::timeout(bounds.stall, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Failed::body(&error, received, bounds.announced).into());
            }
            Err(_) => {
                let text = format!(
                    "nothing more after {received} bytes for {:?} (fetch.stall_timeout)",
                    bounds.stall
                );
                return Err(Failed::unavailable(text).into());
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        arrived(data.len());
        if received + data.len() as u64 > bounds.limit {
            return Err(bounds.too_large().into());
        }
        sink.push(data).await?;
    }
    let received = sink.received();
    if let Some(announced) = bounds.announced.filter(|n| *n != received) {
        let text = format!("{received} bytes came, {announced} were announced");
        return Err(Failed::new(Failure::Truncated, text).into());
    }
    Ok(())
}
